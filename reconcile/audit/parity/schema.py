"""What the columns of each table are: keys that are made, references, times, documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.apps import apps
from django.db import connections
from django.db.models import NOT_PROVIDED, AutoField, BigAutoField, Field, Model, SmallAutoField

from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import key_columns, own_columns, private_fields, referred_field, stored_tables

__all__ = ["Schema", "TableSchema"]


@dataclass(frozen=True, kw_only=True)
class TableSchema:
    """One table. key: the columns of its primary key. made: those of its columns that are made for each new row, and never say what the row is.

    references: the table to whose primary key a column refers. generic: the columns with the content type and the key of a generic foreign key.
    """

    key: tuple[str, ...] = ()
    made: frozenset[str] = frozenset()
    references: Mapping[str, str] = field(default_factory=dict)
    generic: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Field[Any, Any]] = field(default_factory=dict)


class Schema:
    """The tables of one database, by the models of the running project."""

    def __init__(self, using: str) -> None:
        self.using = using
        self._tables: dict[str, TableSchema] = {}
        # By table, the least key that the database makes; whoever pushes the sequences knows it.
        self.least_made: Mapping[str, int] = {}

    @cached_property
    def models(self) -> Mapping[str, type[Model]]:
        """The models by their tables."""
        models = apps.get_models(include_auto_created=True)
        return {each._meta.db_table: each for each in models if not each._meta.proxy}

    def table(self, name: str) -> TableSchema:
        """What is known of the table; of one without a model, nothing."""
        if name not in self._tables:
            model = self.models.get(name)
            self._tables[name] = _read(model) if model is not None else TableSchema()
        return self._tables[name]

    @cached_property
    def content_types(self) -> Mapping[Any, str]:
        """The table of the model by the key of its content type."""
        if not apps.is_installed("django.contrib.contenttypes"):
            return {}
        kinds: Any = apps.get_model("contenttypes.ContentType")
        if kinds._meta.db_table not in stored_tables(connections[self.using]):
            return {}
        models = {each.pk: each.model_class() for each in kinds._base_manager.using(self.using)}
        return {
            key: concrete_model(model)._meta.db_table for key, model in models.items() if model is not None
        }


def _read(model: type[Model]) -> TableSchema:
    fields = {str(each.column): each for each in own_columns(model)}
    references = {name: _target(each) for name, each in fields.items() if each.is_relation}
    key = key_columns(model)
    return TableSchema(
        key=key,
        made=frozenset(name for name in key if name in fields and name not in references and _is_made(fields[name])),
        references={name: table for name, table in references.items() if table},
        generic=dict(_generic(model)),
        fields=fields,
    )  # fmt: skip


def _is_made(each: Field[Any, Any]) -> bool:
    """Whether the database or a default makes the value, and not whoever creates the row."""
    by_database = getattr(each, "db_default", NOT_PROVIDED) is not NOT_PROVIDED
    # What says that there is no default can be called.
    by_python = each.default is not NOT_PROVIDED and callable(each.default)
    return isinstance(each, AutoField | BigAutoField | SmallAutoField) or by_database or by_python


def _target(each: Any) -> str:
    """The table to whose primary key it refers; empty where it refers to another column, whose values are kept as they are."""
    target = referred_field(each) if each.many_to_one or each.one_to_one else None
    return target.model._meta.db_table if target is not None and target.primary_key else ""


def _generic(model: type[Model]) -> list[tuple[str, str]]:
    found = [
        each for each in private_fields(model) if hasattr(each, "fk_field") and hasattr(each, "ct_field")
    ]
    columns: Any = {each.name: each.column for each in own_columns(model)}
    return [
        (columns[each.fk_field], columns[each.ct_field])
        for each in found
        if {each.fk_field, each.ct_field} <= {*columns}
    ]
