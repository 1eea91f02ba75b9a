"""What Django runs when a record is saved, created, deleted or added to a many-to-many, as the running project has it."""

from __future__ import annotations

import inspect
import os
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import django
from django.apps import apps
from django.db.models import DateField, Field, Model, TimeField
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from reconcile.audit.places import name_of, place_of
from reconcile.core.declaration import Place
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import Connection, connections_of, many_to_many_owner, parents_of

__all__ = [
    "OF_SAVES",
    "SAVING",
    "SIGNALS",
    "Effect",
    "On",
    "audited_models",
    "effects_of",
    "inherited_but_deaf",
    "is_third_party",
]


class On(StrEnum):
    """When an effect runs."""

    PRE_SAVE = "pre_save"
    POST_SAVE = "post_save"
    PRE_DELETE = "pre_delete"
    POST_DELETE = "post_delete"
    M2M_CHANGED = "m2m_changed"
    SAVE = "save()"
    DELETE = "delete()"
    FIELD = "field"


SIGNALS = {
    On.PRE_SAVE: pre_save,
    On.POST_SAVE: post_save,
    On.PRE_DELETE: pre_delete,
    On.POST_DELETE: post_delete,
    On.M2M_CHANGED: m2m_changed,
}


SAVING = frozenset({On.PRE_SAVE, On.SAVE, On.POST_SAVE})
"""What runs when a record is saved, beside the fields that make their own values."""

OF_SAVES = SAVING | {On.FIELD}
"""All that a save runs."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One effect of writing a record of the model.

    name: of the receiver's function, `app.Model.save`, or `app.Model.column` of a field that has a pre_save of its own. function: what
    runs. of_all: a receiver that listens to every model. weak: Django keeps no reference to the receiver.
    """

    name: str
    model: type[Model]
    on: On
    function: Callable[..., Any] = field(compare=False)
    place: Place | None
    of_all: bool = False
    weak: bool = False
    is_async: bool = False

    @property
    def key(self) -> str:
        """By what the effect is known from run to run."""
        return f"{self.model._meta.label} {self.on} {self.name}"

    @property
    def third_party(self) -> bool:
        """Whether it is Django's own, or of an installed package."""
        return self.place is None or is_third_party(self.place.file)


def audited_models(*, third_party: bool = False) -> list[type[Model]]:
    """The models of the apps that stand in the project's own source, then those of others that have effects of it; proxies too, no swapped ones.

    third_party: then all of the others.
    """
    configs = apps.get_app_configs()
    own = [model for each in configs if not is_third_party(each.path) for model in each.get_models()]
    others = [model for each in configs if is_third_party(each.path) for model in each.get_models()]
    return [*own, *(others if third_party else filter(_has_own_effect, others))]


def _has_own_effect(model: type[Model]) -> bool:
    """Whether the project does something of its own for a record of somebody else's model, and not for every record there is."""
    return any(not (each.third_party or each.of_all) for each in effects_of(model))


def effects_of(model: type[Model]) -> list[Effect]:
    """What runs for a record of the model: receivers, in the order in which they are called, overrides, and fields. Costs no statement."""
    return [*_overrides(model), *_fields(model), *_receivers(model)]


def _receivers(model: type[Model]) -> Iterator[Effect]:
    for on, signal in SIGNALS.items():
        senders = _senders(model) if on is On.M2M_CHANGED else {id(model): model}
        for connection in connections_of(signal):
            if connection.receiver is None or not (connection.sender in senders or connection.of_all):
                continue
            if on is On.M2M_CHANGED and connection.of_all and not senders:
                continue
            yield _of_receiver(connection, model, on)


def _of_receiver(connection: Connection, model: type[Model], on: On) -> Effect:
    function: Any = connection.receiver
    return Effect(
        name=name_of(function),
        model=model,
        on=on,
        function=function,
        place=place_of(function),
        of_all=connection.of_all,
        weak=connection.weak,
        is_async=connection.is_async,
    )


def _senders(model: type[Model]) -> dict[int, type[Model]]:
    """What m2m_changed is sent by for the model's own many-to-many fields, and for a row model itself."""
    fields: list[Any] = [
        each for each in model._meta.get_fields() if each.many_to_many and not each.auto_created
    ]
    throughs = [each.remote_field.through for each in fields if hasattr(each.remote_field, "through")]
    if many_to_many_owner(model):
        throughs.append(model)
    return {id(each): each for each in throughs}


def _overrides(model: type[Model]) -> Iterator[Effect]:
    for on, name in ((On.SAVE, "save"), (On.DELETE, "delete")):
        # The nearest class decides; those that it calls by super() are read with it.
        owner = next((each for each in model.__mro__ if name in vars(each)), Model)
        if owner is not Model:
            function = vars(owner)[name]
            yield Effect(
                name=f"{model._meta.label}.{name}",
                model=model,
                on=on,
                function=function,
                place=place_of(function),
                is_async=inspect.iscoroutinefunction(function),
            )


def _fields(model: type[Model]) -> Iterator[Effect]:
    for column in model._meta.concrete_fields:
        if _has_own_pre_save(column):
            function = type(column).pre_save
            yield Effect(
                name=f"{model._meta.label}.{column.name}",
                model=model,
                on=On.FIELD,
                function=function,
                place=place_of(function),
            )


def _has_own_pre_save(column: Field[Any, Any]) -> bool:
    """Whether saving gives the column another value than the attribute has. Django's dates have one, which does so only where it is told to."""
    owner = next(each for each in type(column).__mro__ if "pre_save" in vars(each))
    if owner is Field:
        return False
    if owner in {DateField, TimeField} or owner.__module__ == "django.db.models.fields":
        return bool(getattr(column, "auto_now", False) or getattr(column, "auto_now_add", False))
    return True


def inherited_but_deaf(model: type[Model]) -> Sequence[Effect]:
    """The receivers of the concrete model of a proxy, and of the parents of a child, that a save of this model does not call."""
    heard = {(each.name, each.on) for each in _receivers(model)}
    others = [concrete_model(model)] if model._meta.proxy else parents_of(model)
    found = [each for other in others for each in _receivers(other) if other is not model]
    return [each for each in found if (each.name, each.on) not in heard]


@cache
def _foreign_folders() -> tuple[str, ...]:
    """Folders of files that are nobody's project's, each with a separator at its end."""
    paths = sysconfig.get_paths()
    named = [paths[each] for each in ("purelib", "platlib", "stdlib", "platstdlib") if each in paths]
    own = [Path(django.__file__).parent, Path(__file__).parent.parent]
    return tuple(f"{each.resolve()}{os.sep}" for each in (*map(Path, named), *own))


@cache
def is_third_party(path: str) -> bool:
    """Whether the file or folder is the standard library's, an installed package's, or this package's own."""
    place = f"{Path(path).resolve()}{os.sep}"
    return f"{os.sep}site-packages{os.sep}" in place or place.startswith(_foreign_folders())
