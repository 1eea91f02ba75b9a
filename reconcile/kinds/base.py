"""The base of every kind of rule: what `must=` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.db.models import Model, QuerySet
from django.utils import timezone

from reconcile.core.drift import Drift, Guarantee
from reconcile.core.finder import Finder, Source
from reconcile.db.expressions import Column, columns_read_of_others
from reconcile.errors import Fault
from reconcile.kinds.uniqueness import ConstraintAdvice
from reconcile.remedies import Remedy

__all__ = ["Effect"]


class Effect:
    """Base of each kind of `must=`. A new kind is one new file; it overrides the methods without a default, and those whose default is wrong for it."""

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """Everything that is wrong with the declaration, for records of `model`. Costs no statement."""
        raise NotImplementedError

    def faults_over(self, every: QuerySet[Any]) -> Iterator[Fault]:  # noqa: ARG002
        """What is wrong for these records with a declaration in which `faults` found nothing. Costs no statement."""
        yield from ()

    def insertion_faults(self) -> Iterator[Fault]:
        """What keeps a missing row from being inserted; asked only where the rule's remedy inserts it. Costs no statement."""
        yield from ()

    def sentence(self, model: type[Model]) -> str:
        """What the records must do: the words after `every … must`."""
        raise NotImplementedError

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """The querysets of what is wrong, for one database at one moment. Costs no statement."""
        raise NotImplementedError

    def guarantee(self, model: type[Model], using: str) -> Guarantee:
        """What keeps a repair and live writers apart, by the models' constraints and the locks on records."""
        raise NotImplementedError

    def guarantee_over(self, every: QuerySet[Any], using: str) -> Guarantee:
        """What keeps a repair and live writers apart, by constraints that hold for these records."""
        return self.guarantee(every.model, using)

    def constraint_advice(self, every: QuerySet[Any], using: str) -> ConstraintAdvice | None:  # noqa: ARG002
        """The unique constraint that would raise the guarantee to `constraint`, or why there is none.

        None if the effect can't tell. Called only if the guarantee is not `constraint`. Costs no statement.
        """
        return None

    def inserted_models(self) -> tuple[type[Model], ...]:
        """The models whose tables a repair inserts into, as live handlers do; empty if the effect owes no rows."""
        return ()

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """The columns that a repair may write."""
        raise NotImplementedError

    def decides(self, model: type[Model]) -> frozenset[Column]:
        """The columns that tell whether a row drifts, or are written where one does: what they hold can't be the reason. Costs no statement."""
        return self.writes(model)

    def reads_of_others(self, every: QuerySet[Any]) -> frozenset[Column]:
        """The columns that say what a record owes, and stand in other rows than the one that a repair writes for it.

        Here the record itself is written. Costs no statement.
        """
        columns = columns_read_of_others(every)
        source = Source(every=every.model._base_manager.all(), using=every.db, now=timezone.now())
        for finder in self.finders(source):
            columns = columns.union(*map(columns_read_of_others, finder.selects()))
        return columns

    def values_of_others(self) -> frozenset[Column]:
        """The columns of other rows that are compared and written, and by which no row is linked with its record."""
        return frozenset()

    def constants(self) -> Mapping[Column, Any]:
        """Columns that have one value in all rows that the effect looks at and writes; rows of another value are none of its rows."""
        return {}

    def remedies(self) -> Mapping[Drift, Remedy]:
        """The remedies for this effect if the rule names none. A drift that is not in it gets the usual remedy."""
        return {}
