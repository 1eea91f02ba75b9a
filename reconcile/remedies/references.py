"""References to the rows of a model: foreign keys, one-to-one fields, many-to-many rows, generic foreign keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import DO_NOTHING, F, Field, ForeignKey, Model, Q

from reconcile.core.declaration import field_named
from reconcile.core.finder import Rows
from reconcile.core.scopes import Keys
from reconcile.db.columns import INTEGERS, concrete_model, stored_field
from reconcile.db.comparisons import Among
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import (
    generic_relation_columns,
    is_generic_relation,
    is_migrated,
    parents_of,
    private_fields,
    quoter,
    referred_field,
)
from reconcile.db.foreign_keys import ReferredBy
from reconcile.db.schema import ForeignKeyInto
from reconcile.errors import Fault

__all__ = ["Reference", "Referring", "deletion_faults", "references_to"]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One column by which rows of `model` refer to rows of another.

    target: the column that it holds the value of. kind: for a generic foreign key, the column of its content type.
    binding: whether a row that is referred to by it must not go; a foreign key with DO_NOTHING says that it may, if it has
        no constraint in the database, or Django doesn't manage its table.
    """

    model: type[Model]
    column: Field[Any, Any]
    target: Field[Any, Any]
    kind: Field[Any, Any] | None = None
    binding: bool = True

    @property
    def name(self) -> str:
        """`zoo.Call by contact`."""
        return f"{self.model._meta.label} by {self.column.name}"


def references_to(model: type[Model]) -> list[Reference]:
    """Every reference to rows of `model` that the project's models declare. Costs no statement."""
    return [*_keys(model), *_generic(model)]


@dataclass(frozen=True, kw_only=True)
class Referring:
    """All references to rows of `model` on one database. `kinds`: the content types of the model."""

    model: type[Model]
    all: Sequence[Reference]
    kinds: frozenset[Any]
    using: str

    @classmethod
    def to(cls, model: type[Model], using: str) -> Referring:
        """Collect the references of models that have a table on the database. One statement if there are generic keys."""
        model = concrete_model(model)
        found = [each for each in references_to(model) if is_migrated(each.model, using)]
        generic = any(each.kind is not None for each in found)
        return cls(
            model=model, all=found, kinds=_kinds(model, using) if generic else frozenset(), using=using
        )

    @cached_property
    def undeclared(self) -> Sequence[ForeignKeyInto]:
        """The foreign keys that the database has and that no model declares. One statement, at most."""
        quote = quoter(connections[self.using])
        declared = {
            (quote(each.model._meta.db_table), (each.column.column,)) for each in self.all if each.binding
        }
        keys = dialect_of(self.using).foreign_keys_into(self.model)
        return [each for each in keys if (each.table, each.columns) not in declared]

    @cached_property
    def acting(self) -> Sequence[ForeignKeyInto]:
        """The foreign keys by which a DELETE of a row would write others, whoever declares them. One statement, at most."""
        return [each for each in dialect_of(self.using).foreign_keys_into(self.model) if each.acts]

    def referred_by(self, key: ForeignKeyInto, keys: Keys, *, leaving: bool = False) -> Sequence[Any]:
        """Those of the keys whose rows a row refers to by the foreign key; `leaving`: without rows of `keys`. One statement."""
        rows = self.model._base_manager.using(self.using).filter(keys.on("pk")).order_by()
        options = self.model._meta
        own = leaving and key.table == quoter(connections[self.using])(options.db_table)
        found = rows.filter(ReferredBy(key, own_key=options.pk.column or "", but_for=rows if own else None))
        return list(found.values_list("pk", flat=True))

    def by_model(self) -> Mapping[type[Model], Sequence[Reference]]:
        """The references of each model that refers."""
        found: dict[type[Model], list[Reference]] = {}
        for each in self.all:
            found.setdefault(each.model, []).append(each)
        return found

    def values(self, reference: Reference, keys: Keys) -> dict[Any, Any]:
        """Map each value by which the reference's column refers to a row of `keys`, to that key.

        No statement; one where it refers by another column than the primary key.
        """
        if not reference.target.primary_key:
            rows = self.model._base_manager.using(self.using).filter(keys.on("pk"))
            listed = rows.values_list(reference.target.attname, "pk")
            return {value: key for value, key in listed if value is not None}
        column = stored_field(reference.column)
        column_values = {key: _as_column_value(column, key) for key in keys.values}
        return {value: key for key, value in column_values.items() if value is not None}

    def rows(self, reference: Reference, values: Iterable[Any]) -> Rows:
        """The rows that refer by one of `values`."""
        rows: Rows = (
            reference.model._base_manager.using(self.using).filter(self.on(reference, values)).order_by()
        )
        return rows

    def on(self, reference: Reference, values: Iterable[Any]) -> Q:
        """True of rows that refer by one of `values`."""
        column_values = list(values)
        condition = Q(Among(F(reference.column.attname), column_values)) if column_values else Q(pk__in=())
        return condition & self.of_kind(reference)

    def of_kind(self, reference: Reference) -> Q:
        """True of rows that refer to this model, and not, by a generic foreign key, to another."""
        return Q() if reference.kind is None else Q(**{f"{reference.kind.attname}__in": self.kinds})


def _as_column_value(column: Field[Any, Any], key: Any) -> Any:
    """The key as the column stores it, such as a UUID as text; None if the column can't store it."""
    try:
        return column.to_python(key)
    except ValidationError:
        return None


def _kinds(model: type[Model], using: str) -> frozenset[Any]:
    """Read the keys of the content types of `model`; none is created. One statement."""
    from django.contrib.contenttypes.models import ContentType

    alike = [each._meta for each in apps.get_models() if concrete_model(each) is model]
    kinds = ContentType._base_manager.using(using).filter(model__in=[each.model_name for each in alike])
    labels = {(each.app_label, each.model_name) for each in alike}
    listed = kinds.values_list("pk", "app_label", "model")
    return frozenset(pk for pk, label, name in listed if (label, name) in labels)


def deletion_faults(remedy: str, model: type[Model]) -> Iterator[Fault]:
    """Why rows of `model` can't be deleted one by one."""
    concrete = concrete_model(model)
    if parents_of(concrete):
        hint = "Its rows are spread over two tables. Use Report()."
        yield Fault("reconcile.E015", f"{remedy}: {model._meta.label} inherits from another table.", hint)
    for relation in _relations(concrete):
        if not isinstance(relation.field, ForeignKey):
            hint = "References of several columns are not served. Use Report()."
            message = f"{remedy}: {relation.related_model._meta.label} refers to it by several columns."
            yield Fault("reconcile.E015", message, hint)


def _relations(model: type[Model]) -> Iterator[Any]:
    """The relations by which other rows refer to one of the model. A GenericRelation is none: it is the other side of the row's own key."""
    for each in model._meta.get_fields(include_hidden=True):
        # The stubs don't tell a relation from a field.
        relation: Any = each
        if (
            each.auto_created
            and not each.concrete
            and not each.many_to_many
            and not is_generic_relation(relation.field)
        ):
            yield relation


def _keys(model: type[Model]) -> Iterator[Reference]:
    for relation in _relations(concrete_model(model)):
        key: Any = relation.field
        if isinstance(key, ForeignKey):
            # Rows of an unmanaged model may be a view's, which follow by themselves.
            kept = getattr(key, "db_constraint", True) and key.model._meta.managed
            loose = relation.on_delete is DO_NOTHING and not kept
            yield Reference(model=key.model, column=key, target=referred_field(key), binding=not loose)


def _generic(model: type[Model]) -> Iterator[Reference]:
    if not apps.is_installed("django.contrib.contenttypes"):
        return
    key: Any = concrete_model(model)._meta.pk
    numbered = stored_field(key).get_internal_type() in INTEGERS
    for referring, kind_name, column_name in {*_generic_keys(), *_generic_relations(model)}:
        kind, column = field_named(referring, kind_name), field_named(referring, column_name)
        # A number can't hold a key that is none.
        holds = column is not None and (numbered or stored_field(column).get_internal_type() not in INTEGERS)
        if kind is not None and column is not None and holds:
            yield Reference(model=column.model, column=column, target=key, kind=kind)


def _generic_keys() -> Iterator[tuple[type[Model], str, str]]:
    from django.contrib.contenttypes.fields import GenericForeignKey

    for model in apps.get_models(include_auto_created=True):
        for each in private_fields(model):
            if isinstance(each, GenericForeignKey) and not model._meta.proxy:
                yield model, each.ct_field, each.fk_field


def _generic_relations(model: type[Model]) -> Iterator[tuple[type[Model], str, str]]:
    from django.contrib.contenttypes.fields import GenericRelation

    for each in private_fields(model):
        if isinstance(each, GenericRelation):
            yield each.related_model, *generic_relation_columns(each)
