"""The values of thresholds and caps: a count of rows, or a percent of the checked records. `repair.caps` enforces caps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reconcile.core.drift import Drift, Status

__all__ = [
    "FLOOR",
    "Tolerance",
    "cap_rows",
    "is_limit",
    "is_tolerance",
    "limit_of",
    "status_of",
    "threshold_rows",
]

FLOOR = 10
"""Rows that a cap given as a percent lets through in any case: of few records, a percent is less than a row."""


def is_limit(value: Any) -> bool:
    """True for None, a count of rows, or a percent such as '0.5%'."""
    if isinstance(value, str):
        return re.fullmatch(r"[0-9]+(\.[0-9]+)?%", value) is not None
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


Tolerance = int | str | Mapping[Drift, int | str] | None
"""How much drift is tolerated: of all kinds together, or of each kind that is named."""


def is_tolerance(value: Any) -> bool:
    """True for what `is_limit` takes but None in it, by kind of drift, and for such a limit itself."""
    if not isinstance(value, Mapping):
        return is_limit(value)
    return bool(value) and all(
        drift in set(Drift) and limit is not None and is_limit(limit) for drift, limit in value.items()
    )


def limit_of(tolerance: Tolerance, drift: Drift) -> int | str | None:
    """The limit for one kind of drift; None if the kind is not named."""
    return tolerance.get(drift) if isinstance(tolerance, Mapping) else tolerance


def status_of(drifted: int, checked: int, *, warn_if: int | str | None, error_if: int | str | None) -> Status:
    """Whether so many drifted rows among the checked records pass, warn or fail."""
    if not drifted:
        return Status.PASS
    if error_if is not None and drifted <= threshold_rows(error_if, checked):
        warned = warn_if is None or drifted > threshold_rows(warn_if, checked)
        return Status.WARN if warned else Status.PASS
    if error_if is None and warn_if is not None:
        return Status.WARN if drifted > threshold_rows(warn_if, checked) else Status.PASS
    return Status.FAIL


def threshold_rows(limit: int | str, of: int) -> float:
    """The number of rows that a limit means: a count as it is, a percent such as '0.5%' of `of` rows."""
    if isinstance(limit, str):
        return float(limit.removesuffix("%")) / 100 * of
    return limit


def cap_rows(limit: int | str, of: int) -> float:
    """The number of rows that a cap lets through: a count as it is, a percent of `of` rows, but FLOOR at the least."""
    rows = threshold_rows(limit, of)
    return max(rows, FLOOR) if isinstance(limit, str) else rows
