"""What a value is that is asked of other tables' rows, and that Django's own expressions don't say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import Field, Model

from reconcile.declaring import Declaration
from reconcile.errors import Fault
from reconcile.finders import Rows, Source
from reconcile.windows import Scope

__all__ = ["Derived"]


class Derived(Declaration):
    """Base of the values that `HaveValues` takes beside expressions. A new kind is one new file."""

    def faults(self, model: type[Model], column: Field[Any, Any], where: str) -> Iterator[Fault]:
        """Everything that is wrong with it, as the value of `column` of records of `model`. Costs no statement."""
        raise NotImplementedError

    def reads(self, model: type[Model]) -> tuple[type[Model] | None, frozenset[str]]:
        """The model of the rows that it asks, and the names of their columns that it reads."""
        raise NotImplementedError

    def in_words(self) -> str:
        """What it is, to stand after `have column =`."""
        raise NotImplementedError

    def carried(self, source: Source, column: Field[Any, Any]) -> bool:
        """Whether a window costs no more than its share of the whole."""
        raise NotImplementedError

    def window(self, source: Source, column: Field[Any, Any]) -> int | None:
        """Keys in a window, where another number than the usual is faster."""
        raise NotImplementedError

    def onto(self, records: Rows, source: Source, scope: Scope, column: Field[Any, Any]) -> tuple[Rows, Any]:
        """`records`, prepared by what it needs, and the expression over them that gives its value for `column`."""
        raise NotImplementedError
