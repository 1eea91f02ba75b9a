"""What an effect is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from django.db.models import Model, QuerySet

from reconcile.drift import Drift, Guarantee
from reconcile.effects._lifting import Lift
from reconcile.errors import Fault
from reconcile.finders import Finder, Source
from reconcile.remedies import Remedy
from reconcile.sql.expressions import Column

__all__ = ["Effect", "Liftable", "OverRecords", "OwesRows"]


class Effect(Protocol):
    """One kind of `must=`. A new kind is one new file with these six functions."""

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """Everything that is wrong with the declaration, for records of `model`. Costs no statement."""
        ...

    def sentence(self, model: type[Model]) -> str:
        """What the records must do, to stand after `every … must`."""
        ...

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """The querysets of what is wrong, for one database at one moment. Costs no statement."""
        ...

    def guarantee(self, model: type[Model], using: str) -> Guarantee:
        """How safe a repair is beside live writers, by the models' constraints."""
        ...

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """The columns that a repair may write."""
        ...

    def remedies(self) -> Mapping[Drift, Remedy]:
        """The remedies that this effect calls for where the rule names none, if not the usual ones."""
        ...


@runtime_checkable
class OverRecords(Protocol):
    """An effect for which it matters which records `every=` names, and not only of which model they are."""

    def faults_over(self, every: QuerySet[Any]) -> Iterator[Fault]:
        """What is wrong with the declaration, which itself has no fault, for these records. Costs no statement."""
        ...

    def guarantee_over(self, every: QuerySet[Any], using: str) -> Guarantee:
        """How safe a repair is beside live writers, by constraints that hold for these records."""
        ...


@runtime_checkable
class OwesRows(Protocol):
    """An effect that owes rows, which live handlers insert, too."""

    def is_tied(self, model: type[Model]) -> bool:
        """Whether each row is owed by one record alone, so that a lock on that keeps all apart who insert the row."""
        ...

    def inserted(self) -> tuple[type[Model], ...]:
        """The models whose tables a repair inserts into."""
        ...


@runtime_checkable
class Liftable(Protocol):
    """An effect of which a unique constraint might make a rule of guarantee A."""

    def lift(self, every: QuerySet[Any], using: str) -> Lift:
        """The constraint, or why there is none. Asked where the guarantee isn't A; costs no statement."""
        ...
