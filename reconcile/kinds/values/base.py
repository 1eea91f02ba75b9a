"""The base of values that are read from the rows of other tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import Field, Model, Q

from reconcile.core.declaration import RuleValue
from reconcile.core.finder import Rows, Source
from reconcile.core.scopes import Scope
from reconcile.errors import Fault

__all__ = ["DerivedValue"]


class DerivedValue(RuleValue):
    """Base of the values that `HaveValues` takes beside expressions. A new kind is one new file."""

    def faults(self, model: type[Model], column: Field[Any, Any], where: str) -> Iterator[Fault]:
        """Everything that is wrong with it, as the value of `column` of records of `model`. Costs no statement."""
        raise NotImplementedError

    def reads(self, model: type[Model]) -> tuple[type[Model] | None, frozenset[str]]:
        """The model of the rows that it reads, and the names of the columns that it reads of them."""
        raise NotImplementedError

    def in_words(self, model: type[Model] | None) -> str:
        """What it is for records of `model`: the words after `have column =`."""
        raise NotImplementedError

    def in_windows(self, source: Source, column: Field[Any, Any]) -> bool:
        """Whether a window costs no more than its share of the whole."""
        raise NotImplementedError

    def window_size(self, source: Source, column: Field[Any, Any]) -> int | None:
        """Keys in a window, where another number than the usual is faster."""
        raise NotImplementedError

    def starts(
        self,
        records: Rows,  # noqa: ARG002
        source: Source,  # noqa: ARG002
        scope: Scope,  # noqa: ARG002
        column: Field[Any, Any],  # noqa: ARG002
    ) -> tuple[Rows, Q] | None:
        """`records`, and the condition that a discrepancy starts at the record; None if each record stands for itself."""
        return None

    def add_to(
        self, records: Rows, source: Source, scope: Scope, column: Field[Any, Any]
    ) -> tuple[Rows, Any]:
        """`records` with what the value needs, and the expression over them that gives the value of `column`."""
        raise NotImplementedError
