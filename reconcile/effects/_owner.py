"""What a record refers to without a foreign key: the owner's model, and how its columns are compared with the record's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Exists, F, Field, Model, OuterRef, Q

from reconcile.declaring import as_expression
from reconcile.finders import Rows, Source
from reconcile.sql.dialects import dialect_of
from reconcile.sql.expressions import pinned
from reconcile.sql.lookups import INTEGERS, AsStored, Same, is_text, stored_field
from reconcile.sql.texts import AsText, EachItself, KeyOf, SameText, has_key_of
from reconcile.windows import Keys, Scope

__all__ = ["Owner", "comparable", "kind_of"]

_NUMBERS = INTEGERS | {"DecimalField", "FloatField"}


def kind_of(model: type[Model], expression: Any) -> Field[Any, Any]:
    """The field that says of which type `expression` over records of `model` is. Costs no statement."""
    resolved = model._base_manager.annotate(_kind=expression).query.annotations["_kind"]
    return stored_field(resolved.output_field)


def comparable(column: Field[Any, Any], kind: Field[Any, Any]) -> bool:
    """Whether a column of the owner can be compared with a value of this kind, on every database."""
    kinds = {stored_field(column).get_internal_type(), stored_field(kind).get_internal_type()}
    if len(kinds) == 1 or kinds <= _NUMBERS:
        return True
    return any(map(is_text, (column, kind))) and all(
        is_text(each) or has_key_of(each) for each in (column, kind)
    )


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Rows of `model` that records refer to by `link`: column of the owner = expression over the record.

    `name` keeps the aliases of several owners in one queryset apart.
    """

    model: type[Model]
    link: Mapping[Field[Any, Any], Any]
    where: Q = field(default_factory=Q)
    name: str = ""

    def orphans(self, source: Source, records: Rows, scope: Scope) -> Rows:
        """Those of `records` that refer to an owner which isn't there."""
        orphans: Rows = records.alias(**self.terms(source)).filter(self.is_gone(source, scope))
        return orphans

    def terms(self, source: Source) -> dict[str, Any]:
        """What the records refer by, under names that the subquery can refer to."""
        named = {}
        for column, value in self.link.items():
            expression = pinned(as_expression(value, column), source.now)
            kind = kind_of(source.model, expression)
            if _by_text(column, kind):
                expression = AsText(expression, field=kind)
            else:
                expression = AsStored(expression, field=column)
            named[self._alias(column)] = expression
        return named

    def is_gone(self, source: Source, scope: Scope) -> Q:
        """True of a record that refers to an owner, by all columns of the link, which isn't there."""
        owners = self.model._base_manager.using(source.using).filter(pinned(self.where, source.now))
        refers = Q()
        for column, value in self.link.items():
            kind = kind_of(source.model, as_expression(value, column))
            owners = owners.filter(self._same(column, kind, source.using, scope))
            # A column can be NULL behind a foreign key too, so the field doesn't tell.
            if is_text(kind) and dialect_of(source.using).remembers_folded:
                owners = owners.filter(EachItself(OuterRef("pk")))
            refers &= Q(**{f"{self._alias(column)}__isnull": False})
        return refers & ~Q(Exists(owners))

    def _same(self, column: Field[Any, Any], kind: Field[Any, Any], using: str, scope: Scope) -> Q:
        term = OuterRef(self._alias(column))
        own = F(column.attname)
        if not _by_text(column, kind) or is_text(column):
            return Q(Same(own, term, field=column))
        same = Q(SameText(AsText(own, field=column), term))
        # Note [A text key, whole or few]: for all rows PostgreSQL hashes the owners' keys as text once, which nothing
        # beats. For few rows, and on databases that look up each row, the text leads to the key through its index.
        if (
            has_key_of(column)
            and is_text(kind)
            and (isinstance(scope, Keys) or dialect_of(using).looks_up_each)
        ):
            same &= Q(Same(own, KeyOf(term, field=column), field=column))
        return same

    def _alias(self, column: Field[Any, Any]) -> str:
        return f"_owner{self.name}_{column.attname}"


def _by_text(column: Field[Any, Any], kind: Field[Any, Any]) -> bool:
    """Whether they are compared as text: one is text and the other isn't, or they have nothing else in common."""
    kinds = {stored_field(column).get_internal_type(), stored_field(kind).get_internal_type()}
    if is_text(column) and is_text(kind):
        return False
    return not (len(kinds) == 1 or kinds <= _NUMBERS)
