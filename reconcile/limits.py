"""Limits that a rule or a person sets: a count of rows, or a percent of what was checked."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["is_limit", "share"]


def is_limit(value: Any) -> bool:
    """True for None, a count of rows, or a percent such as '0.5%'."""
    if isinstance(value, str):
        return re.fullmatch(r"[0-9]+(\.[0-9]+)?%", value) is not None
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def share(limit: int | str, of: int) -> float:
    """The number of rows that a limit means: a count as it is, a percent such as '0.5%' of `of` rows."""
    if isinstance(limit, str):
        return float(limit.removesuffix("%")) / 100 * of
    return limit
