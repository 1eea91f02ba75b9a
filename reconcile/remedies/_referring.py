"""What refers to the rows of a model: foreign keys, one-to-one fields, many-to-many rows, generic foreign keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import router
from django.db.models import DO_NOTHING, F, Field, ForeignKey, Model, Q

from reconcile.declaring import field_named
from reconcile.errors import Fault
from reconcile.finders import Rows
from reconcile.sql.lookups import INTEGERS, Among, stored_field
from reconcile.windows import Keys

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
    """What refers to rows of `model` on one database. `kinds` are the content types that stand for the model."""

    model: type[Model]
    all: Sequence[Reference]
    kinds: frozenset[Any]
    using: str

    @classmethod
    def to(cls, model: type[Model], using: str) -> Referring:
        """All references by models that have a table on the database. One statement where there are generic keys."""
        model = model._meta.concrete_model or model
        found = [each for each in references_to(model) if router.allow_migrate_model(using, each.model)]
        generic = any(each.kind is not None for each in found)
        return cls(
            model=model, all=found, kinds=_kinds(model, using) if generic else frozenset(), using=using
        )

    def by_model(self) -> Mapping[type[Model], Sequence[Reference]]:
        """The references of each model that refers."""
        found: dict[type[Model], list[Reference]] = {}
        for each in self.all:
            found.setdefault(each.model, []).append(each)
        return found

    def values(self, reference: Reference, keys: Keys) -> dict[Any, Any]:
        """What the reference's column holds where it refers to a row of `keys`, with that key.

        No statement; one where it refers by another column than the primary key.
        """
        if not reference.target.primary_key:
            rows = self.model._base_manager.using(self.using).filter(keys.on("pk"))
            listed = rows.values_list(reference.target.attname, "pk")
            return {value: key for value, key in listed if value is not None}
        column = stored_field(reference.column)
        held = {key: _read(column, key) for key in keys.values}
        return {value: key for key, value in held.items() if value is not None}

    def rows(self, reference: Reference, values: Iterable[Any]) -> Rows:
        """The rows that refer by one of `values`."""
        rows: Rows = (
            reference.model._base_manager.using(self.using).filter(self.on(reference, values)).order_by()
        )
        return rows

    def on(self, reference: Reference, values: Iterable[Any]) -> Q:
        """True of rows that refer by one of `values`."""
        held = list(values)
        condition = Q(Among(F(reference.column.attname), held)) if held else Q(pk__in=())
        return condition & self.of_kind(reference)

    def of_kind(self, reference: Reference) -> Q:
        """True of rows that refer to this model, and not, by a generic foreign key, to another."""
        return Q() if reference.kind is None else Q(**{f"{reference.kind.attname}__in": self.kinds})


def _read(column: Field[Any, Any], key: Any) -> Any:
    """The key as the column would give it back, such as a UUID as text; None where it could never hold it."""
    try:
        return column.to_python(key)
    except ValidationError:
        return None


def _kinds(model: type[Model], using: str) -> frozenset[Any]:
    """Keys of the content types that stand for rows of `model`; none is created. One statement."""
    from django.contrib.contenttypes.models import ContentType

    alike = [each._meta for each in apps.get_models() if each._meta.concrete_model is model]
    kinds = ContentType._base_manager.using(using).filter(model__in=[each.model_name for each in alike])
    labels = {(each.app_label, each.model_name) for each in alike}
    listed = kinds.values_list("pk", "app_label", "model")
    return frozenset(pk for pk, label, name in listed if (label, name) in labels)


def deletion_faults(remedy: str, model: type[Model]) -> Iterator[Fault]:
    """Why rows of `model` can't be deleted one by one."""
    concrete = model._meta.concrete_model or model
    if concrete._meta.parents:
        hint = "Its rows are spread over two tables. Use Report()."
        yield Fault("reconcile.E015", f"{remedy}: {model._meta.label} inherits from another table.", hint)
    for relation in _relations(concrete):
        if not isinstance(relation.field, ForeignKey):
            hint = "References of several columns are not served. Use Report()."
            said = f"{remedy}: {relation.related_model._meta.label} refers to it by several columns."
            yield Fault("reconcile.E015", said, hint)


def _relations(model: type[Model]) -> Iterator[Any]:
    for each in model._meta.get_fields(include_hidden=True):
        if each.auto_created and not each.concrete and not each.many_to_many:
            yield each


def _keys(model: type[Model]) -> Iterator[Reference]:
    for relation in _relations(model._meta.concrete_model or model):
        key: Any = relation.field
        if isinstance(key, ForeignKey):
            # Rows of an unmanaged model may be a view's, which follow by themselves.
            kept = getattr(key, "db_constraint", True) and key.model._meta.managed
            loose = relation.on_delete is DO_NOTHING and not kept
            yield Reference(model=key.model, column=key, target=key.target_field, binding=not loose)


def _generic(model: type[Model]) -> Iterator[Reference]:
    if not apps.is_installed("django.contrib.contenttypes"):
        return
    key: Any = (model._meta.concrete_model or model)._meta.pk
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
        for each in model._meta.private_fields:
            if isinstance(each, GenericForeignKey) and not model._meta.proxy:
                yield model, each.ct_field, each.fk_field


def _generic_relations(model: type[Model]) -> Iterator[tuple[type[Model], str, str]]:
    from django.contrib.contenttypes.fields import GenericRelation

    for each in model._meta.private_fields:
        if isinstance(each, GenericRelation):
            yield each.related_model, each.content_type_field_name, each.object_id_field_name
