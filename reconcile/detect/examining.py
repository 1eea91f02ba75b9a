"""What the database says of a rule before its records are counted: whether it answers rightly, what it hides and lacks.

A view, a foreign table or a table under row level security may not show all its rows. What it hides looks as if it weren't
there. So what is missing is not inserted and what has lost its source is not deleted, unless somebody has said that all
rows are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from django.apps import apps
from django.db.models import Model

from reconcile.conf import shows_filtered_rows
from reconcile.core.declaration import RuleValue
from reconcile.core.drift import MISSING, Drift, Guarantee
from reconcile.core.verbs import DELETE, INSERT
from reconcile.db.dialects import dialect_of
from reconcile.db.expressions import NamedRow, columns_read, nodes_in
from reconcile.db.schema import Schema
from reconcile.errors import EvaluationError
from reconcile.kinds.base import Effect
from reconcile.remedies import Remedy
from reconcile.rules.rule import CompiledRule, Rule

__all__ = ["Examination", "examine"]


@dataclass
class Examination:
    """A rule on one database, as long as its `examine` block lasts."""

    compiled: CompiledRule
    schema: Schema

    @cached_property
    def refused(self) -> Mapping[str, str]:
        """What a repair may not do, by statement, with the reason; empty for a rule that sees all rows.

        Costs a statement for each table that Django doesn't make, and for each table that is read where row level security
        may filter; one more for a rule that deletes on a server that hides foreign keys.
        """
        deletes = any(self.compiled.rule.remedy(drift).deletes for drift in Drift)
        reason = dialect_of(self.compiled.source.using).hidden_foreign_keys() if deletes else ""
        return {**({DELETE: reason} if reason else {}), **self._refused_by_tables}

    @cached_property
    def _refused_by_tables(self) -> Mapping[str, str]:
        refused: dict[str, str] = {}
        for model in sorted(self._models_to_look_at(), key=lambda each: each._meta.label):
            table = self.schema.table_of(model)
            if table is None:
                continue
            if table.kind != "table" and not self.compiled.rule.views_show_all:
                reason = (
                    f"{model._meta.label} is a {table.kind}, which may not show all rows, so nothing is inserted or deleted. "
                    "If it shows all, say so: views_show_all=True."
                )
                refused |= {INSERT: reason, DELETE: reason}
            elif table.filtered:
                reason = f"Row level security hides rows of {model._meta.label} from this role, so nothing is deleted."
                refused.setdefault(DELETE, reason)
        return {**self._impossible(), **refused}

    def _impossible(self) -> dict[str, str]:
        """What the database can't do to the rows that the rule writes, by statement, with the reason."""
        found: dict[str, str] = {}
        written = {model for model, _ in self.compiled.rule.must.writes(self.compiled.rule.model)}
        for model in sorted(written, key=lambda each: each._meta.label):
            # The tables that Django makes take all writes.
            table = None if model._meta.managed else self.schema.table_of(model)
            if table is not None:
                what = f"{model._meta.label} is a {table.kind}, of which the database can"
                found |= {verb: f"{what} {verb} no row." for verb in sorted(table.impossible)}
        return found

    @property
    def _partitions(self) -> list[str]:
        """Tables that the rule inserts into, and that may have no partition for a row."""
        rule = self.compiled.rule
        if not rule.remedy(MISSING).inserts:
            return []
        found = (
            (model, self.schema.tables.get(model._meta.db_table)) for model in rule.must.inserted_models()
        )
        return [
            f"{model._meta.label} is partitioned, and has no default partition: a row whose key has no partition is refused."
            for model, table in found
            if table is not None and table.partitioned
        ]

    def _models_to_look_at(self) -> set[type[Model]]:
        """The models that the rule reads and whose tables may hide rows."""
        anywhere = shows_filtered_rows()
        if not anywhere and all(model._meta.managed for model in apps.get_models()):
            return set()
        read = {model for select in self.compiled.selects() for model, _ in columns_read(select)}
        return {model for model in read if anywhere or not model._meta.managed}

    @property
    def guarantee(self) -> Guarantee:
        """What keeps a repair and live writers apart: nothing, if rows may be hidden."""
        if self._refused_by_tables:
            return Guarantee.NONE
        return self.compiled.rule.guarantee(self.compiled.source.using)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know of the database: constraints that it lacks, as far as they were asked for, and what it hides."""
        return tuple(dict.fromkeys([*self.schema.lacking, *self.refused.values(), *self._partitions]))


def _refuse_absent_rows(rule: Rule, using: str) -> None:
    """Raise EvaluationError if the rule names a row that isn't there: no record would owe anything. One statement for each that it names."""
    asked = set()
    for node in _nodes_of(rule):
        if isinstance(node, NamedRow) and node.words not in asked:
            asked.add(node.words)
            if refusal := node.refusal(using):
                raise EvaluationError(refusal.reason)


def _nodes_of(rule: Rule) -> Iterator[Any]:
    """Each part of each value and condition of the rule."""
    yield from nodes_in(rule.queryset.query, subqueries=True)
    yield from _nodes_in_options(rule.must)
    for drift in Drift:
        yield from _nodes_in_options(rule.remedy(drift))


def _nodes_in_options(value: Any) -> Iterator[Any]:
    if isinstance(value, Effect | RuleValue | Remedy):
        options: Iterable[Any] = vars(value).values()
    elif isinstance(value, Mapping):
        options = value.values()
    elif isinstance(value, list | tuple):
        options = value
    else:
        yield from nodes_in(value, subqueries=True)
        return
    for each in options:
        yield from _nodes_in_options(each)


@contextmanager
def examine(rule: Rule, *, using: str, now: datetime) -> Iterator[Examination]:
    """Compile the rule on a session that sees all rows, or fails, and that knows the database's constraints.

    Raises EvaluationError if the database would answer wrongly.
    """
    with dialect_of(using).examine() as schema:
        compiled = rule.compile(using=using, now=now)
        compiled.refuse_wrong_answers()
        _refuse_absent_rows(rule, using)
        yield Examination(compiled, schema)
