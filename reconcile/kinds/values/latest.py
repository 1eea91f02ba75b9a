"""`Latest`: a value of the record's first related row by some order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import F, Field, ForeignKey, Model, Q

from reconcile.core.finder import Rows, Source
from reconcile.core.scopes import SORTED, Scope
from reconcile.core.wording.terms import condition_in_words, expression_in_words, order_in_words
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import ManyToOneRel, referred_field, reverse_relations
from reconcile.db.expressions import prepare
from reconcile.errors import Fault, nearest
from reconcile.kinds.values.base import DerivedValue
from reconcile.kinds.values.related_rows import (
    EQUAL,
    Link,
    Matching,
    columns_named,
    condition_faults,
    order_faults,
    row_expression,
    value_faults,
)

__all__ = ["Latest"]


@dataclass(frozen=True)
class Latest(DerivedValue):
    """A value of the first of the record's related rows: `last_post=Latest("posts", by=["-created_at", "-pk"])`.

    relation: name of a reverse foreign key.
    by: which row is the first, as `order_by` takes it. Unless it names the key, the key comes last.
    value: path or expression over the row; unless given, the key that a foreign key to it holds.
    filter: condition on the rows that count.

    NULL where there is no row.
    """

    relation: str
    _: KW_ONLY
    by: Sequence[Any] = ()
    value: Any = None
    filter: Q = field(default_factory=Q)

    def faults(self, model: type[Model], column: Field[Any, Any], where: str) -> Iterator[Fault]:
        """No such relation, no order, a path that leads nowhere, a foreign key to other rows than these."""
        where = f"{where}: Latest"
        relation = _relation(model, self.relation)
        if relation is None:
            yield _relation_fault(model, self.relation, where)
            return
        rows = relation.related_model
        yield from order_faults(rows, self.by, where)
        yield from condition_faults(rows, self.filter, "filter", where)
        if self.value is None and isinstance(column, ForeignKey) and not _refers_to(rows, column):
            message = f"{column.name!r} is no foreign key to {rows._meta.label}"
            yield Fault("reconcile.E012", f"{where}: {message}.", 'Say which column it holds: value="…".')
            return
        yield from value_faults(rows, self._value_of_row(column), column, where)

    def reads(self, model: type[Model]) -> tuple[type[Model] | None, frozenset[str]]:
        """The related rows, and what value, order and filter read of them."""
        relation = _relation(model, self.relation)
        values = () if self.value is None else (self.value,)
        return relation.related_model if relation else None, columns_named(*values, *self.by, self.filter)

    def in_words(self, model: type[Model] | None) -> str:
        """`the first of posts by created_at descending, pk descending`."""
        relation = _relation(model, self.relation) if model else None
        rows = relation.related_model if relation else None
        what = (
            ""
            if self.value is None
            else f"{expression_in_words(row_expression(self.value), rows, subject='row')} of "
        )
        which = f" with {condition_in_words(self.filter, rows, subject='row')}" if self.filter else ""
        return f"{what}the first of {self.relation}{which} by {order_in_words(self.by, rows)}"

    def in_windows(self, source: Source, column: Field[Any, Any]) -> bool:
        """Always, but for a foreign key that holds something else than the records' primary key."""
        return self._match(source, column).in_windows

    def window_size(self, source: Source, column: Field[Any, Any]) -> int | None:
        """Wide where the rows are sorted for all records of the window together."""
        return SORTED if self._match(source, column).uses_join else None

    def add_to(
        self, records: Rows, source: Source, scope: Scope, column: Field[Any, Any]
    ) -> tuple[Rows, Any]:
        """The value of the first row."""
        value = row_expression(self._value_of_row(column))
        return self._match(source, column).first_value(records, scope, value, self.by)

    def _value_of_row(self, column: Field[Any, Any]) -> Any:
        """The value of the row that the column gets: `value`, or the key that a foreign key to the row needs."""
        if self.value is not None:
            return self.value
        return referred_field(column).attname if isinstance(column, ForeignKey) else "pk"

    def _match(self, source: Source, column: Field[Any, Any]) -> Matching:
        relation = _relation(source.model, self.relation)
        if relation is None:
            raise FieldError(f"{source.model._meta.label} has no relation {self.relation!r}.")
        key = relation.field
        target = referred_field(key)
        referred = "pk" if target.primary_key else target.attname
        link = Link(path=key.attname, lookup=EQUAL, column=key, value=F(referred))
        rows = relation.related_model._base_manager.using(source.using)
        rows = rows.filter(prepare(self.filter, source.now))
        return Matching(source=source, rows=rows, links=(link,), name=column.attname)


def _refers_to(rows: type[Model], column: ForeignKey[Any, Any]) -> bool:
    target: type[Model] = column.remote_field.model
    return concrete_model(target) is concrete_model(rows)


def _relation(model: type[Model], name: str) -> ManyToOneRel | None:
    related = (each for each in reverse_relations(model) if each.name == name)
    return next((each for each in related if isinstance(each, ManyToOneRel)), None)


def _relation_fault(model: type[Model], name: Any, where: str) -> Fault:
    known = [each.name for each in reverse_relations(model) if isinstance(each, ManyToOneRel)]
    if name in {each.name for each in model._meta.get_fields()}:
        hint = (
            "Name the foreign key's relation from the other side; for a join of another kind use LookedUp(…)."
        )
        return Fault("reconcile.E015", f"{where}: {name!r} is not a reverse foreign key.", hint)
    hint = nearest(str(name), known).strip() or f"Its relations: {', '.join(known) or 'none'}."
    return Fault("reconcile.E013", f"{where}: {model._meta.label} has no relation {name!r}.", hint)
