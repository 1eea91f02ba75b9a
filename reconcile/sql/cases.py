"""Values that Python knows already, written to many rows by one UPDATE.

An UPDATE that reads what it writes from a SELECT is one form for both, but InnoDB locks each row that the SELECT
merely passes, and may wait there for a live session that waits for the UPDATE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections
from django.db.models import Case, F, Field, Q, Value, When
from django.db.models.functions import Cast

from reconcile.sql.lookups import stored_field

__all__ = ["BATCH", "chosen"]

BATCH = 1_000
"""Rows that one such UPDATE writes: each distinct value among them is a branch, and branches are tried in turn."""


def chosen(field: Field[Any, Any], branches: Sequence[tuple[Q, Any]], *, using: str) -> Any:
    """The value of the first branch that is true of a row; where none is, what the column holds."""
    kind = stored_field(field)
    whens = [When(condition, then=Value(value, output_field=kind)) for condition, value in branches]
    case = Case(*whens, default=F(field.attname), output_field=kind)
    return Cast(case, kind) if connections[using].features.requires_casted_case_in_updates else case
