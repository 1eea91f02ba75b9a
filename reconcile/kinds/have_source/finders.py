"""What a record refers to without a foreign key: the owner's model, and how its columns are compared with the record's.

Note [One statement a content type]: an OR over the content types of NOT EXISTS makes PostgreSQL look at each
row's targets one by one: not done after ten minutes, where the statement for one content type takes three seconds.
So each content type in use has a statement of its own, and their keys are read as a UNION ALL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import CompositePrimaryKey, Exists, F, Field, Min, Model, OuterRef, Q
from django.db.models.lookups import GreaterThan

from reconcile.core.declaration import as_expression, field_named, known_field
from reconcile.core.drift import EXTRA, STALE
from reconcile.core.finder import Finder, OwnRangeFinder, Rows, Source
from reconcile.core.scopes import Keys, Scope
from reconcile.db.columns import INTEGERS, is_text, stored_field
from reconcile.db.comparisons import AsStored, Same
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import annotations_of, private_fields, referred_field
from reconcile.db.expressions import path_of, prepare
from reconcile.db.text_keys import AsText, EachItself, KeyOf, SameText, has_key_of
from reconcile.errors import EvaluationError

__all__ = ["Generic", "Owner", "comparable", "generic_key", "kind_of"]

_NUMBERS = INTEGERS | {"DecimalField", "FloatField"}


def kind_of(model: type[Model], expression: Any) -> Field[Any, Any]:
    """The field that says of which type `expression` over records of `model` is. Costs no statement."""
    resolved = annotations_of(model._base_manager.annotate(_kind=expression).query)["_kind"]
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
            expression = prepare(as_expression(value, column), source.now)
            kind = kind_of(source.model, expression)
            if _by_text(column, kind):
                expression = AsText(expression, field=kind)
            else:
                expression = AsStored(expression, field=column)
            named[self._alias(column)] = expression
        return named

    def is_gone(self, source: Source, scope: Scope) -> Q:
        """True of a record that refers to an owner, by all columns of the link, which isn't there."""
        owners = self.model._base_manager.using(source.using).filter(prepare(self.where, source.now))
        refers = Q()
        for column, value in self.link.items():
            kind = kind_of(source.model, as_expression(value, column))
            reference = _reference_to(column, source.model, value)
            owners = owners.filter(
                Q(Same(F(column.attname), OuterRef(self._alias(column)), field=reference))
                if reference is not None
                else self._same(column, kind, source.using, scope)
            )
            # A column can be NULL behind a foreign key too, so the field doesn't tell.
            if is_text(kind) and dialect_of(source.using).caches_folded_texts:
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
            and (isinstance(scope, Keys) or dialect_of(using).anti_join_looks_up)
        ):
            same &= Q(Same(own, KeyOf(term, field=column), field=column))
        return same

    def _alias(self, column: Field[Any, Any]) -> str:
        return f"_owner{self.name}_{column.attname}"


def _reference_to(column: Field[Any, Any], model: type[Model], value: Any) -> Field[Any, Any] | None:
    """The foreign key to `column` that `value` names among the columns of `model`; None if it is anything else."""
    named = field_named(model, path_of(value)) if isinstance(value, F) else None
    if named is None or named.remote_field is None or referred_field(named) is not column:
        return None
    return named


def _by_text(column: Field[Any, Any], kind: Field[Any, Any]) -> bool:
    """Whether they are compared as text: one is text and the other isn't, or they have nothing else in common."""
    kinds = {stored_field(column).get_internal_type(), stored_field(kind).get_internal_type()}
    if is_text(column) and is_text(kind):
        return False
    return not (len(kinds) == 1 or kinds <= _NUMBERS)


def generic_key(model: type[Model], name: str) -> Any:
    """The model's GenericForeignKey of this name; None if there is none.

    Asked by its attributes, since its class can't be imported where the content types aren't installed.
    """
    for each in private_fields(model):
        if each.name == name and hasattr(each, "ct_field") and hasattr(each, "fk_field"):
            return each
    return None


_UNKNOWN = (
    "Their content type has no model in this project: its app isn't installed, or was removed, so nobody knows whether their target is "
    "there. To take them for rows whose target is gone, say unknown=None."
)


class _GenericFinder(OwnRangeFinder):
    """Which content types there are is asked of the database."""

    needs_database = True


@dataclass(frozen=True)
class Generic:
    """The rows of one generic foreign key whose target is gone, and those whose content type has no model.

    unknown_is_extra: whether the latter count as rows whose target is gone.
    """

    source: Source
    key: Any
    unknown_is_extra: bool = True

    @property
    def type_column(self) -> Field[Any, Any]:
        """The foreign key to the content types."""
        return known_field(self.source.model, self.key.ct_field)

    @property
    def key_column(self) -> Field[Any, Any]:
        """The column with the target's key."""
        return known_field(self.source.model, self.key.fk_field)

    def finders(self) -> tuple[Finder, ...]:
        """The orphans, and the rows whose content type has no model unless these count as orphans."""
        model, using = self.source.model, self.source.using
        gone = _GenericFinder(drift=EXTRA, model=model, using=using, query=self.find, count_rows=self.count)
        if self.unknown_is_extra:
            return (gone,)
        unknown = _GenericFinder(
            drift=STALE, model=model, using=using, query=self.find_unknown, advice=_UNKNOWN
        )
        return gone, unknown

    def find_unknown(self, scope: Scope) -> Rows:
        """The rows in scope whose content type has no model. One statement for each content type in use, and two more."""
        _, unknown = self._owners(self._types_among(scope))
        return self._without_model(scope, unknown)

    def find(self, scope: Scope) -> Rows:
        """The orphans in scope; for a range, as a union that takes no further filter.

        For a range it costs a statement for each content type in use, and one more; for keys two.
        """
        if isinstance(scope, Keys):
            return self._among(scope)
        first, *others = self._parts(scope)
        union: Rows = first.union(*others, all=True) if others else first
        return union

    def count(self, scope: Scope) -> int:
        """The orphans in scope. Two statements for each content type in use, and two more."""
        return sum(part.count() for part in self._parts(scope))

    def _without_model(self, scope: Scope, unknown: list[int]) -> Rows:
        rows: Rows = self.source.records(scope).filter(self._is_of(unknown), self._refers)
        return rows

    def _parts(self, scope: Scope) -> list[Rows]:
        """The orphans of each content type that has a model, then those of content types that have none, if they count."""
        records = self.source.records(scope)
        owners, unknown = self._owners(self._types_in_use())
        parts = [
            owner.orphans(self.source, records.filter(self._is_of([number])), scope)
            for number, owner in owners.items()
        ]
        counted = unknown if self.unknown_is_extra else []
        if counted or not parts:
            parts.append(self._without_model(scope, counted))
        return parts

    def _among(self, keys: Keys) -> Rows:
        """The orphans of a few keys: one queryset, so that it can be filtered, locked and deleted from."""
        owners, unknown = self._owners(self._types_among(keys))
        if not owners:
            return self._without_model(keys, unknown if self.unknown_is_extra else [])
        gone = [self._is_of([number]) & owner.is_gone(self.source, keys) for number, owner in owners.items()]
        terms = {name: term for owner in owners.values() for name, term in owner.terms(self.source).items()}
        counted = self._is_of(unknown if self.unknown_is_extra else []) & self._refers
        orphans: Rows = self.source.records(keys).alias(**terms).filter(reduce(or_, gone, counted))
        return orphans

    def _types_among(self, scope: Scope) -> list[int]:
        """Numbers of the content types that rows in scope refer to; for a range those of all rows."""
        if not isinstance(scope, Keys):
            return self._types_in_use()
        if not scope.values:
            # The database isn't asked which content types there are: the order of rules costs no statement.
            return []
        types = self.type_column.attname
        rows = self.source.records(scope).order_by().filter(**{f"{types}__isnull": False})
        return list(rows.values_list(types, flat=True).distinct())

    def _types_in_use(self) -> list[int]:
        """Numbers of the content types that rows refer to, each found by one step through the column's index.

        A DISTINCT, and a semi-join from the content types too, made PostgreSQL read all rows.
        """
        types = self.type_column.attname
        rows = self.source.model._base_manager.using(self.source.using).order_by()
        used: list[int] = []
        beyond = rows
        while (number := beyond.aggregate(_next=Min(types))["_next"]) is not None:
            used.append(number)
            beyond = rows.filter(GreaterThan(F(types), number))
        return used

    def _owners(self, used: list[int]) -> tuple[dict[int, Owner], list[int]]:
        """The owner for each content type that has a model, and the numbers of those that have none."""
        types = _content_types(self.type_column)._base_manager.using(self.source.using)
        models = {each.pk: each.model_class() for each in types.filter(pk__in=used)} if used else {}
        owners = {number: self._owner(number, model) for number, model in models.items() if model is not None}
        return owners, [number for number in used if number not in owners]

    def _owner(self, number: int, model: type[Model]) -> Owner:
        if isinstance(model._meta.pk, CompositePrimaryKey):
            raise EvaluationError(
                f"{self.source.model._meta.label}.{self.key.name} refers to {model._meta.label}, whose primary key is "
                "composite. Leave these rows out in every=."
            )
        return Owner(model=model, link={model._meta.pk: F(self.key_column.attname)}, name=str(number))

    def _is_of(self, numbers: list[int]) -> Q:
        return Q(**{f"{self.type_column.attname}__in": numbers})

    @property
    def _refers(self) -> Q:
        return Q(**{f"{self.key_column.attname}__isnull": False})


def _content_types(column: Field[Any, Any]) -> Any:
    model: Any = column.related_model
    return model
