"""`Satisfy`: a plain condition over the record.

STALE is the only drift: the record is there, and the condition does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from django.db.models import F, Field, Model, Q
from django.utils import timezone

from reconcile.core.declaration import (
    as_expression,
    column_faults,
    condition_faults,
    expression_faults,
    field_named,
    fields_named,
)
from reconcile.core.drift import STALE, Drift, Guarantee, Tally
from reconcile.core.finder import Finder, QueryFinder, Rows, Source, tally_in_one_statement
from reconcile.core.fixes import Correction
from reconcile.core.options import Option, is_mapping, option_faults
from reconcile.core.scopes import EVERYTHING, Scope
from reconcile.core.wording.terms import condition_in_words, in_words
from reconcile.db.columns import concrete_model
from reconcile.db.comparisons import AsStored, overflows
from reconcile.db.conditions import Fails
from reconcile.db.expressions import Column, columns_read, prepare, reads_alone
from reconcile.db.statements import KEY, WANTED
from reconcile.errors import Fault
from reconcile.kinds.base import Effect
from reconcile.kinds.values.storable import writable_rows
from reconcile.remedies import Remedy, Report

__all__ = ["Satisfy"]

_OPTIONS = (Option("values", is_mapping, "Give a dictionary of column names."),)


@dataclass(frozen=True)
class Satisfy(Effect):
    """Every record must be one that `filter(condition)` finds: `Satisfy(Q(total__gte=0))`.

    A condition that is unknown, because a column is NULL, is not satisfied. A check costs one statement.
    With `values` a repair writes them to the records that fail, in four statements a chunk; a record that
    fails even then is set aside. Without, the drift is reported.

    condition: a Q, an Exists, or a lookup, over the record and what its foreign keys lead to.
    values: column = constant or expression that restores the condition.
    """

    condition: Any
    _: KW_ONLY
    values: Mapping[str, Any] = field(default_factory=dict)

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """What isn't a condition over one record, and values that can't be written."""
        yield from condition_faults(model, self.condition, "Satisfy")
        wrong = [*option_faults(self, _OPTIONS, "Satisfy")]
        yield from wrong
        if wrong:
            return
        yield from column_faults(model, "Satisfy(values=…)", iter(self.values))
        for name, value in self.values.items():
            column = field_named(model, name)
            if column is None:
                continue
            if column.primary_key:
                message = f"Satisfy(values=…): {name!r} is the primary key."
                yield Fault("reconcile.E012", message, "A key is never repaired.")
            yield from expression_faults(model, value, column, f"Satisfy(values={{{name!r}: …}})")

    def sentence(self, model: type[Model]) -> str:
        """`satisfy total ≥ 0`."""
        condition = f"satisfy {condition_in_words(self._condition, model)}"
        return f"{condition}, restored by {in_words(self.values, model)}" if self.values else condition

    def guarantee(self, model: type[Model], using: str) -> Guarantee:  # noqa: ARG002
        """CONSTRAINT: the record's own row is locked while the condition is looked at and its columns are written."""
        return Guarantee.CONSTRAINT

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """The columns that restore the condition."""
        concrete = concrete_model(model)
        return frozenset((concrete, column.attname) for column in self._columns(model))

    def decides(self, model: type[Model]) -> frozenset[Column]:
        """Those that restore the condition, and those that it reads."""
        failing = model._base_manager.filter(prepare(self._condition, timezone.now()))
        return self.writes(model) | columns_read(failing.order_by().values("pk"))

    def remedies(self) -> Mapping[Drift, Remedy]:
        """Where no values restore the condition, people have to look."""
        return {} if self.values else {STALE: Report()}

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """One: the records that fail."""
        condition = prepare(self._condition, source.now)
        columns = self._columns(source.model)

        def find(scope: Scope) -> Rows:
            return source.records(scope).filter(Fails(condition))

        def wanted(scope: Scope) -> Rows:
            values = {
                WANTED.format(column.attname): AsStored(
                    prepare(as_expression(value, column), source.now), field=column
                )
                for column, value in zip(columns, self.values.values(), strict=True)
            }
            rows = find(scope).annotate(**{KEY: F("pk")}, **values)
            given = dict(zip(columns, self.values.values(), strict=True))
            overflow = overflows(
                source.model, given, lambda column: F(WANTED.format(column.attname)), source.using
            )
            listed: Rows = writable_rows(rows, overflow).values_list(KEY, *values)
            return listed

        # Not in windows: nothing is linked that a range could make smaller, and the whole table read at once took
        # half as long; with a condition on other rows, a fifth (PostgreSQL, 1,000,000 records).
        correction = Correction(model=source.model, fields=columns, wanted=wanted, own=True)
        return (
            QueryFinder(
                drift=STALE, model=source.model, using=source.using, query=find, fix=correction if columns else None,
                tally_all=self._tally(source, Q(Fails(condition))),
            ),
        )  # fmt: skip

    def _tally(self, source: Source, fails: Q) -> Callable[[], Tally] | None:
        """Counts records and drift in one scan; None if other rows tell, which are then joined or looked up."""
        if not reads_alone(source.records(EVERYTHING).filter(fails)):
            return None
        return tally_in_one_statement(source, source.records_of_any_age(EVERYTHING), fails)

    @property
    def _condition(self) -> Q:
        return self.condition if isinstance(self.condition, Q) else Q(self.condition)

    def _columns(self, model: type[Model]) -> tuple[Field[Any, Any], ...]:
        return fields_named(model, self.values)
