"""Where a receiver is connected, and what each signal would have sent for a record that is there."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, cast

import django
from django.apps import apps
from django.db.models import Field, ManyToManyField, Model
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal

__all__ = [
    "DELETES",
    "SERVED",
    "as_sent",
    "connections_of",
    "is_connected",
    "links_through",
    "name_of_signal",
]

SERVED: tuple[Signal, ...] = (post_save, pre_save, m2m_changed)
"""Those that can be sent again; a receiver that is connected to several is called as by the first of them."""

DELETES: tuple[Signal, ...] = (post_delete, pre_delete)

_NAMES = ("post_save", "pre_save", "m2m_changed", "post_delete", "pre_delete")


def name_of_signal(signal: Any) -> str:
    """`post_save`."""
    named = zip((*SERVED, *DELETES), _NAMES, strict=True)
    return next((name for each, name in named if each is signal), repr(signal))


def is_connected(receiver: Any, signal: Signal, model: type[Model]) -> bool:
    """Whether the signal reaches the receiver when `model` sends it."""
    return bool(_sender_ids(receiver, signal) & {id(model), id(None)}) and _is_sent(signal, model)


def _is_sent(signal: Signal, model: type[Model]) -> bool:
    """Django sends m2m_changed for the rows of a many-to-many field, and nothing else where it made their model."""
    if signal is m2m_changed:
        return bool(links_through(model))
    return not model._meta.auto_created


def _sender_ids(receiver: Any, signal: Signal) -> set[int]:
    """The identities of the senders that the receiver listens to.

    Django's versions append other things to an entry; it begins with (receiver's id, sender's id) and the receiver.
    """
    entries: list[Any] = list(signal.receivers)
    return {key[1] for key, reference, *_ in entries if _target(reference) == receiver}


def _target(reference: Any) -> Any:
    return reference() if isinstance(reference, weakref.ReferenceType) else reference


def connections_of(receiver: Any) -> Iterator[str]:
    """`post_save of shop.Order`, for each connection to a signal of models."""
    labels = {id(model): model._meta.label for model in apps.get_models(include_auto_created=True)}
    labels[id(None)] = "every model"
    for signal in (*SERVED, *DELETES):
        for each in sorted(labels.get(sender, "something else") for sender in _sender_ids(receiver, signal)):
            yield f"{name_of_signal(signal)} of {each}"


def links_through(model: type[Model]) -> list[ManyToManyField[Any, Any]]:
    """The many-to-many fields whose rows `model` holds."""
    fields = (field for each in apps.get_models() for field in each._meta.local_many_to_many)
    return [field for field in fields if field.remote_field.through is model]


def as_sent(
    signal: Signal, model: type[Model], *, using: str, created: bool
) -> Callable[[Any], dict[str, Any]]:
    """From a record of `model` to the arguments with which Django calls the signal's receivers."""
    always = {"signal": signal, "sender": model, "using": using, "raw": False}
    if signal is m2m_changed:
        return _added(model, always)
    if signal is post_save:
        always["created"] = created
    return lambda record: {**always, "instance": record, "update_fields": None}


def _added(model: type[Model], always: dict[str, Any]) -> Callable[[Any], dict[str, Any]]:
    """As if the one row had just been added from the side that has the field."""
    field: Any = links_through(model)[0]
    if django.VERSION < (6, 1):
        del always["raw"]
    target = cast("Field[Any, Any]", model._meta.get_field(field.m2m_reverse_field_name())).attname
    return lambda row: {
        **always,
        "instance": getattr(row, field.m2m_field_name()),
        "action": "post_add",
        "reverse": False,
        "model": field.related_model,
        "pk_set": {getattr(row, target)},
    }
