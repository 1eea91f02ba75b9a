"""`HaveSource`: what a record refers to, without a foreign key that the database enforces, is still there.

EXTRA is the only drift: a record is there whose owner isn't. Its key is the record's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.models import F, Field, Model, Q, QuerySet

from reconcile.declaring import Declaration, field_named
from reconcile.drift import EXTRA, Drift, Guarantee
from reconcile.effects._generic import Generic, generic_key
from reconcile.effects._lifting import Lift
from reconcile.effects._owner import Owner
from reconcile.effects._source_faults import source_faults
from reconcile.errors import Fault
from reconcile.finders import Finder, Rows, Source
from reconcile.remedies import Remedy
from reconcile.sql.dialects import dialect_of
from reconcile.sql.expressions import Column, columns_of
from reconcile.sql.wording import condition_in_words, in_words
from reconcile.windows import Scope

__all__ = ["HaveSource"]


@dataclass(frozen=True)
class HaveSource(Declaration):
    """Every record's owner must still be there: `HaveSource("target")`.

    column: a generic foreign key, a foreign key without a constraint in the database, or with `model` any column.
    model: the owner's model, where the column doesn't say.
    to: the owner's column that `column` holds; its primary key unless given.
    link: in place of `column`: column of the owner = expression over the record.
    where: condition on the owners that count.

    A record whose column, or any part of whose link, is NULL refers to nothing and isn't judged.
    """

    column: str = ""
    model: type[Model] | None = None
    to: str = ""
    link: Mapping[str, Any] = field(default_factory=dict)
    where: Q = field(default_factory=Q)

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """Options that don't go together, unknown columns and paths, types that can't be compared."""
        yield from self.option_faults()
        yield from source_faults(self, model)

    def sentence(self, model: type[Model]) -> str:
        """`have the target that it refers to`, or `have the Page that it refers to, with code = page_code`."""
        where = f", counting those with {condition_in_words(self.where)}" if self.where else ""
        if self.column and self.model is None:
            return f"have the {self.column} that it refers to{where}"
        owner = self._owner(model)
        link = in_words({column.name: value for column, value in owner.link.items()})
        return f"have the {owner.model._meta.object_name} that it refers to, with {link}{where}"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:  # noqa: ARG002
        """D, since there is no owner whose row could be locked; C where a chunk keeps every other writer out."""
        return "C" if dialect_of(using).keeps_rows_out(constrained=False) else "D"

    def lift(self, every: QuerySet[Any], using: str) -> Lift:  # noqa: ARG002
        """None: an orphan has no owner."""
        return Lift(
            why_not="A record whose owner is gone has no row that could be locked. Only a foreign key with a constraint "
            "in the database lets no such record come to be."
        )

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """All columns of the records: a remedy that deletes takes each of them away."""
        return columns_of(model)

    def remedies(self) -> Mapping[Drift, Remedy]:
        """The usual one: EXTRA is reported."""
        return {}

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """One: the records whose owner is gone."""
        key = generic_key(source.model, self.column)
        if key is not None:
            return (Generic(source, key).finder(),)
        owner = self._owner(source.model)

        def find(scope: Scope) -> Rows:
            return owner.orphans(source, source.records(scope), scope)

        return (Finder(drift=EXTRA, model=source.model, carried=False, find=find, ranged=True),)

    def _owner(self, model: type[Model]) -> Owner:
        named = field_named(model, self.column)
        if self.column and self.model is None and named is not None:
            owner, link = _referred(named)
            return Owner(model=owner, link=link, where=self.where)
        if self.model is None:
            raise TypeError(f"{self!r} names no model.")
        given = self.link or {self.to or "pk": F(self.column)}
        columns = {_column(self.model, name): value for name, value in given.items()}
        return Owner(model=self.model, link=columns, where=self.where)


def _referred(key: Field[Any, Any]) -> tuple[type[Model], dict[Field[Any, Any], Any]]:
    """What a foreign key refers to."""
    owner: type[Model] = key.related_model  # type: ignore[assignment]
    return owner, {key.target_field: F(key.attname)}  # type: ignore[attr-defined]


def _column(model: type[Model], name: str) -> Field[Any, Any]:
    column = model._meta.pk if name == "pk" else field_named(model, name)
    if column is None:
        raise TypeError(f"{model._meta.label} has no column {name!r}.")
    return column
