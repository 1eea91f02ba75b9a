"""`Satisfy`: a plain condition over the record.

STALE is the only drift: the record is there, and the condition does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.models import F, Field, Model, Q

from reconcile.declaring import (
    Declaration,
    as_expression,
    column_faults,
    condition_faults,
    expression_faults,
    field_named,
)
from reconcile.drift import STALE, Drift, Guarantee, Tally
from reconcile.effects._tally import in_one_statement
from reconcile.errors import Fault
from reconcile.finders import Correction, Finder, Rows, Source
from reconcile.remedies import Remedy, Report
from reconcile.sql.conditions import Fails
from reconcile.sql.expressions import Column, pinned, reads_alone
from reconcile.sql.lookups import AsStored
from reconcile.sql.statements import KEY, WANTED
from reconcile.sql.wording import condition_in_words, in_words
from reconcile.windows import EVERYTHING, Scope

__all__ = ["Satisfy"]


@dataclass(frozen=True)
class Satisfy(Declaration):
    """Every record must be one that `filter(condition)` finds: `Satisfy(Q(total__gte=0))`.

    A condition that is unknown, because a column is NULL, is not satisfied. A check costs one statement.
    With `values` a repair writes them to the records that fail, in four statements a chunk; a record that
    fails even then is set aside. Without, the drift is reported.

    condition: a Q, an Exists, or a lookup, over the record and what its foreign keys lead to.
    values: column = constant or expression that restores the condition.
    """

    condition: Any = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """What isn't a condition over one record, and values that can't be written."""
        yield from self.option_faults()
        yield from condition_faults(model, self.condition, "Satisfy")
        if not isinstance(self.values, Mapping):
            hint = "Give a dictionary of column names."
            yield Fault("reconcile.E012", f"Satisfy: values= is {self.values!r}.", hint)
            return
        yield from column_faults(model, "Satisfy(values=…)", iter(self.values))
        for name, value in self.values.items():
            column = field_named(model, name)
            if column is None:
                continue
            if column.primary_key:
                said = f"Satisfy(values=…): {name!r} is the primary key."
                yield Fault("reconcile.E012", said, "A key is never repaired.")
            yield from expression_faults(model, value, column, f"Satisfy(values={{{name!r}: …}})")

    def sentence(self, model: type[Model]) -> str:  # noqa: ARG002
        """`satisfy total ≥ 0`."""
        said = f"satisfy {condition_in_words(self._condition)}"
        return f"{said}, restored by {in_words(self.values)}" if self.values else said

    def guarantee(self, model: type[Model], using: str) -> Guarantee:  # noqa: ARG002
        """A: the record's own row is locked while the condition is looked at and its columns are written."""
        return "A"

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """The columns that restore the condition."""
        concrete = model._meta.concrete_model or model
        return frozenset((concrete, column.attname) for column in self._columns(model))

    def remedies(self) -> Mapping[Drift, Remedy]:
        """Where no values restore the condition, people have to look."""
        return {} if self.values else {STALE: Report()}

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """One: the records that fail."""
        condition = pinned(self._condition, source.now)
        columns = self._columns(source.model)

        def find(scope: Scope) -> Rows:
            return source.records(scope).filter(Fails(condition))

        def wanted(scope: Scope) -> Rows:
            values = {
                WANTED.format(column.attname): AsStored(
                    pinned(as_expression(value, column), source.now), field=column
                )
                for column, value in zip(columns, self.values.values(), strict=True)
            }
            listed: Rows = find(scope).annotate(**{KEY: F("pk")}, **values).values_list(KEY, *values)
            return listed

        # Not in windows: nothing is linked that a range could make smaller, and the whole table read at once took
        # half as long; with a condition on other rows, a fifth (PostgreSQL, 1,000,000 records).
        correction = Correction(model=source.model, fields=columns, wanted=wanted, own=True)
        return (
            Finder(
                drift=STALE, model=source.model, carried=False, find=find,
                correction=correction if columns else None,
                tallied=self._tally(source, Q(Fails(condition))),
            ),
        )  # fmt: skip

    def _tally(self, source: Source, fails: Q) -> Callable[[], Tally] | None:
        """Counts records and drift in one scan; None where other rows tell, which are then joined or looked up."""
        if not reads_alone(source.records(EVERYTHING).filter(fails)):
            return None
        return in_one_statement(source, source.owing(EVERYTHING), fails)

    @property
    def _condition(self) -> Q:
        return self.condition if isinstance(self.condition, Q) else Q(self.condition)

    def _columns(self, model: type[Model]) -> tuple[Field[Any, Any], ...]:
        return tuple(column for name in self.values if (column := field_named(model, name)) is not None)
