"""Generic foreign keys: which content types the rows refer to, and the rows whose target is gone.

Note [One statement a content type]: an OR over the content types of NOT EXISTS makes PostgreSQL look at each
row's targets one by one: not done after ten minutes, where the statement for one content type takes three seconds.
So each content type in use has a statement of its own, and their keys are read as a UNION ALL.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from django.db.models import CompositePrimaryKey, F, Field, Min, Model, Q
from django.db.models.lookups import GreaterThan

from reconcile.declaring import field_named
from reconcile.drift import EXTRA
from reconcile.effects._owner import Owner
from reconcile.errors import EvaluationError
from reconcile.finders import Finder, Rows, Source
from reconcile.windows import Keys, Scope

__all__ = ["Generic", "generic_key"]


def generic_key(model: type[Model], name: str) -> Any:
    """The model's GenericForeignKey of this name; None where there is none.

    Asked by its attributes, since its class can't be imported where the content types aren't installed.
    """
    for each in model._meta.private_fields:
        if each.name == name and hasattr(each, "ct_field") and hasattr(each, "fk_field"):
            return each
    return None


@dataclass(frozen=True)
class Generic:
    """The rows of one generic foreign key whose target is gone."""

    source: Source
    key: Any

    @property
    def type_column(self) -> Field[Any, Any]:
        """The foreign key to the content types."""
        return _column(self.source.model, self.key.ct_field)

    @property
    def key_column(self) -> Field[Any, Any]:
        """The column with the target's key."""
        return _column(self.source.model, self.key.fk_field)

    def finder(self) -> Finder:
        """The orphans, whatever their content type."""
        return Finder(
            drift=EXTRA, model=self.source.model, carried=False, find=self.find, counted=self.count, ranged=True,
            asks=True,
        )  # fmt: skip

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

    def _parts(self, scope: Scope) -> list[Rows]:
        """The orphans of each content type that has a model, then those of content types that have none."""
        records = self.source.records(scope)
        owners, unknown = self._owners(self._types_in_use())
        parts = [
            owner.orphans(self.source, records.filter(self._is_of([number])), scope)
            for number, owner in owners.items()
        ]
        if unknown or not parts:
            parts.append(records.filter(self._is_of(unknown), self._refers))
        return parts

    def _among(self, keys: Keys) -> Rows:
        """The orphans of a few keys: one queryset, so that it can be filtered, locked and deleted from."""
        records = self.source.records(keys)
        if not keys.values:
            # The database isn't asked which content types there are: the order of rules costs no statement.
            return records.filter(self._is_of([]), self._refers)
        types = self.type_column.attname
        used = (
            records.order_by().filter(**{f"{types}__isnull": False}).values_list(types, flat=True).distinct()
        )
        owners, unknown = self._owners(list(used))
        gone = [self._is_of([number]) & owner.is_gone(self.source, keys) for number, owner in owners.items()]
        terms = {name: term for owner in owners.values() for name, term in owner.terms(self.source).items()}
        orphans: Rows = records.alias(**terms).filter(reduce(or_, gone, self._is_of(unknown) & self._refers))
        return orphans

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


def _column(model: type[Model], name: str) -> Field[Any, Any]:
    column = field_named(model, name)
    if column is None:
        raise TypeError(f"{model._meta.label} has no column {name!r}.")
    return column


def _content_types(column: Field[Any, Any]) -> Any:
    model: Any = column.related_model
    return model
