"""What the live registry says of an attribute of a record or model: relations, columns, managers. One reading per model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db.models import FileField, Manager, Model, QuerySet

from reconcile.audit.effects import SIGNALS
from reconcile.audit.places import innermost
from reconcile.audit.resolver.types import Instance, Kind, Relation, Rows
from reconcile.db.django_compat import (
    accessor_of,
    admin_pages,
    connections_of,
    is_generic_relation,
    managers_of,
)

__all__ = ["MOST_MODELS", "Registry"]

MOST_MODELS = 3
"""Models that an abstract class or a manager may stand for; of more nothing is known."""


@dataclass(frozen=True, kw_only=True)
class _Relations:
    """The relations of one model by their accessors."""

    one: Mapping[str, type[Model]]
    many: Mapping[str, Relation]


class Registry:
    """The models of the running project, and by which names they lead to each other."""

    def __init__(self) -> None:
        self.models: list[type[Model]] = list(apps.get_models(include_auto_created=True))
        self._relations: dict[type[Model], _Relations] = {}
        self._classes: dict[int, tuple[Any, tuple[type | None, type | None]]] = {}
        self._names: dict[type[Model], Mapping[str, str]] = {}

    def model(self, label: str) -> type[Model] | None:
        """The model of the label `app.Model`, in any case."""
        return self._by_label.get(label.lower())

    @cached_property
    def _by_label(self) -> dict[str, type[Model]]:
        return {each._meta.label_lower: each for each in self.models}

    @cached_property
    def user(self) -> type[Model] | None:
        """The model of AUTH_USER_MODEL, whose default names one that need not be there."""
        return self.model(settings.AUTH_USER_MODEL)

    def model_of_table(self, table: str) -> type[Model] | None:
        """The model whose rows stand in the table; a proxy has none of its own."""
        return self._by_table.get(table.lower())

    @cached_property
    def _by_table(self) -> dict[str, type[Model]]:
        return {each._meta.db_table.lower().strip('"'): each for each in self.models if not each._meta.proxy}

    @cached_property
    def pages(self) -> Sequence[tuple[type[Model], Any]]:
        """The models that the admin has, each with its page."""
        return admin_pages()

    @cached_property
    def heard_by(self) -> Mapping[tuple[str, str], Sequence[type[Model]]]:
        """The models by the file and the qualified name of the functions that listen to them."""
        found: dict[tuple[str, str], list[type[Model]]] = defaultdict(list)
        by_identity = {id(each): each for each in self.models}
        for connection in (each for signal in SIGNALS.values() for each in connections_of(signal)):
            function = innermost(connection.receiver) if connection.receiver is not None else None
            model = by_identity.get(connection.sender)
            if function is not None and model is not None:
                found[function.__code__.co_filename, function.__qualname__].append(model)
        return found

    def concrete(self, live: type) -> list[type[Model]]:
        """The models that an instance of the class may be: itself, or those that inherit from an abstract one or a mixin."""
        if issubclass(live, Model) and not live._meta.abstract:
            return [live]
        # issubclass() is what a class makes of it: a protocol refuses to answer.
        return [each for each in self.models if live in each.__mro__ and not each._meta.proxy]

    def used_by(self, live: type) -> list[type[Model]]:
        """The models that have the class as manager, or whose rows come in it."""
        return [
            model
            for model, classes in self._by_manager.items()
            if any(live in each.__mro__ for each in classes)
        ]

    @cached_property
    def _by_manager(self) -> dict[type[Model], set[type]]:
        found: dict[type[Model], set[type]] = defaultdict(set)
        for model in self.models:
            for manager in managers_of(model):
                found[model] |= {each for each in self._classes_of(manager) if each is not None}
        return found

    def rows(self, manager: Any) -> Rows:
        """What a live manager gives."""
        cls, queryset = self._classes_of(manager)
        return Rows(model=manager.model, manager=cls, queryset=queryset)

    def _classes_of(self, manager: Any) -> tuple[type | None, type | None]:
        # Managers are equal if they are alike. Keeping one keeps its identity from being another's.
        if id(manager) not in self._classes:
            queryset: type | None = None
            # A manager's get_queryset() is the project's own code, and may need what isn't there.
            with suppress(Exception):
                queryset = type(manager.get_queryset())
            self._classes[id(manager)] = (manager, (type(manager), queryset))
        return self._classes[id(manager)][1]

    def managers_by_name(self, model: type[Model]) -> dict[str, Any]:
        """The managers by name, with those that Django uses itself."""
        found = {each.name: each for each in managers_of(model)}
        if not model._meta.abstract:
            found["_default_manager"], found["_base_manager"] = model._default_manager, model._base_manager
        return found

    def default_rows(self, model: type[Model], relation: Relation | None = None) -> Rows:
        """All rows of the model."""
        return replace(self.rows(model._default_manager), model=model, relation=relation)

    def to_one(self, model: type[Model], name: str) -> type[Model] | None:
        """The model of the one record that the attribute holds."""
        return self._of(model).one.get(name)

    def to_many(self, model: type[Model], name: str) -> Relation | None:
        """What the attribute leads to, if these may be many."""
        return self._of(model).many.get(name)

    def relations_of(self, model: type[Model]) -> Mapping[str, Relation]:
        """All that leads from a record of the model to many others."""
        return self._of(model).many

    def _of(self, model: type[Model]) -> _Relations:
        if model not in self._relations:
            one: dict[str, type[Model]] = {}
            many: dict[str, Relation] = {}
            for field in model._meta.get_fields():
                _note(model, field, one, many)
            self._relations[model] = _Relations(one=one, many=many)
        return self._relations[model]

    def by_name(self, name: str) -> Instance | Rows | None:
        """What an attribute of an unknown object is, if all models that have it agree, and none has it as a plain column."""
        found = self._accessors.get(name, [])
        # The same relation of several models, as a mixin gives it to them, is one.
        ways = {
            (model, relation and (relation.kind, relation.column, relation.through))
            for model, relation in found
        }
        if name in self._plain or len(ways) != 1:
            return None
        model, relation = found[0]
        if relation is None:
            return Instance(model=model, by_name=True)
        return replace(self.default_rows(model, relation), by_name=True)

    def is_file(self, name: str) -> bool:
        """Whether all models that have a column of the name keep a file in it."""
        return name in self._files

    @cached_property
    def _files(self) -> set[str]:
        fields = [each for model in self.models for each in model._meta.concrete_fields]
        return {each.name for each in fields if isinstance(each, FileField)} - {
            each.name for each in fields if not isinstance(each, FileField)
        }

    def many_by_name(self, name: str) -> int:
        """How many models have an attribute of the name that leads to many records."""
        return sum(name in self._of(each).many for each in self.models)

    @cached_property
    def _accessors(self) -> dict[str, list[tuple[type[Model], Relation | None]]]:
        found: dict[str, list[tuple[type[Model], Relation | None]]] = defaultdict(list)
        for model in self.models:
            relations = self._of(model)
            for name, target in relations.one.items():
                found[name].append((target, None))
            for name, relation in relations.many.items():
                found[name].append((relation.target, relation))
        return found

    @cached_property
    def _plain(self) -> set[str]:
        """Names that are a plain column, a property or a method of some model."""
        columns = {
            each.name for model in self.models for each in model._meta.concrete_fields if not each.is_relation
        }
        methods = {
            name for model in self.models for cls in model.__mro__ for name, value in vars(cls).items()
            if isinstance(value, property) or callable(value)
        }  # fmt: skip
        return columns | (methods - {*self._descriptors})

    @cached_property
    def _descriptors(self) -> set[str]:
        return {name for model in self.models for name in (*self._of(model).one, *self._of(model).many)}

    def columns(self, model: type[Model]) -> Mapping[str, str]:
        """The names of the fields by each way to name their columns: `customer` by `customer_id`, the key by `pk`."""
        if model not in self._names:
            fields = model._meta.concrete_fields
            found = {name: each.name for each in fields for name in (each.name, each.attname)}
            key = model._meta.pk
            self._names[model] = {**found, **({"pk": key.name} if key else {})}
        return self._names[model]


def _note(model: type[Model], field: Any, one: dict[str, type[Model]], many: dict[str, Relation]) -> None:
    target = field.related_model
    if not field.is_relation or not isinstance(target, type) or not issubclass(target, Model):
        return
    name = accessor_of(field)
    if not name:
        return
    if field.many_to_one or field.one_to_one:
        one[name] = target
        return
    if field.many_to_many:
        through = getattr(field if field.auto_created else field.remote_field, "through", None)
        many[name] = Relation(kind=Kind.MANY_TO_MANY, name=name, owner=model, target=target, through=through)
    elif is_generic_relation(field):
        many[name] = Relation(kind=Kind.GENERIC, name=name, owner=model, target=target)
    else:
        key = field.field
        many[name] = Relation(
            kind=Kind.REVERSE_KEY,
            name=name,
            owner=model,
            target=target,
            column=key.name,
        )


def is_rows_class(live: type) -> bool:
    """Whether it is a manager's or queryset's class."""
    return issubclass(live, Manager | QuerySet) or hasattr(live, "_get_queryset_methods")
