"""The values of thresholds and caps: a count of rows, or a percent of the checked records. `repair.caps` enforces caps."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["FLOOR", "cap_rows", "is_limit", "threshold_rows"]

FLOOR = 10
"""Rows that a cap given as a percent lets through in any case: of few records, a percent is less than a row."""


def is_limit(value: Any) -> bool:
    """True for None, a count of rows, or a percent such as '0.5%'."""
    if isinstance(value, str):
        return re.fullmatch(r"[0-9]+(\.[0-9]+)?%", value) is not None
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def threshold_rows(limit: int | str, of: int) -> float:
    """The number of rows that a limit means: a count as it is, a percent such as '0.5%' of `of` rows."""
    if isinstance(limit, str):
        return float(limit.removesuffix("%")) / 100 * of
    return limit


def cap_rows(limit: int | str, of: int) -> float:
    """The number of rows that a cap lets through: a count as it is, a percent of `of` rows, but FLOOR at the least."""
    rows = threshold_rows(limit, of)
    return max(rows, FLOOR) if isinstance(limit, str) else rows
