"""Models, fields and signals."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db.models import Field, Model
from django.db.models.deletion import (
    Collector,  # What gathers the rows that a delete takes along.
)
from django.db.models.fields import (
    NOT_PROVIDED,  # What db_default holds where a field has none.
)
from django.db.models.fields.reverse_related import (
    ManyToOneRel,  # The other side of a foreign key, as get_fields() lists it.
)
from django.dispatch import Signal

from reconcile.db.django_compat.connections import BaseDatabaseWrapper

__all__ = [
    "NOT_PROVIDED",
    "Collector",
    "Connection",
    "ManyToOneRel",
    "accessor_of",
    "admin_pages",
    "cast_type",
    "collected_keys",
    "connections_of",
    "default_of",
    "flat_choices",
    "generic_relation_columns",
    "has_default",
    "is_generic_relation",
    "is_swapped",
    "key_columns",
    "managers_of",
    "many_to_many_columns",
    "many_to_many_owner",
    "mute_receivers",
    "own_columns",
    "own_many_to_many",
    "parent_links",
    "parents_of",
    "private_fields",
    "receivers_of",
    "referred_field",
    "reverse_name",
    "reverse_relations",
]


def own_columns(model: type[Model]) -> Sequence[Field[Any, Any]]:
    """`local_concrete_fields`: the columns of the model's own table, without its parents' and in their order."""
    return model._meta.local_concrete_fields


def own_many_to_many(model: type[Model]) -> Sequence[Any]:
    """`local_many_to_many`: the many-to-many fields that the model itself declares."""
    return model._meta.local_many_to_many


def private_fields(model: type[Model]) -> Sequence[Any]:
    """`private_fields`: generic foreign keys and relations, also where content types aren't installed."""
    return model._meta.private_fields


def collected_keys(collector: Collector) -> Iterator[tuple[type[Model], list[Any]]]:
    """`Collector.data`, `Collector.origin`: the keys of the rows that it has read to delete them, but for the record whose own delete it is."""
    origin: Any = getattr(collector, "origin", None)
    for model, rows in collector.data.items():
        keys = [each.pk for each in rows if each is not origin]
        if keys:
            yield model, keys


def reverse_relations(model: type[Model]) -> Sequence[Any]:
    """`related_objects`: the relations from other models, with what get_fields() adds to them left out."""
    return model._meta.related_objects


def managers_of(model: type[Model]) -> Sequence[Any]:
    """`Options.managers`: the managers of the model, its parents' among them."""
    return list(model._meta.managers)


def key_columns(model: type[Model]) -> tuple[str, ...]:
    """`Options.pk_fields`: the columns of the primary key, of which a composite one has several."""
    fields: Any = model._meta.pk_fields
    return tuple(each.column for each in fields)


def parents_of(model: type[Model]) -> Sequence[type[Model]]:
    """`get_parent_list()`: the models over whose tables a row is spread, nearest first."""
    return list(model._meta.get_parent_list())


def parent_links(model: type[Model]) -> list[Field[Any, Any]]:
    """`Options.parents`: the columns by which a row continues one of another table."""
    return [link for link in model._meta.parents.values() if link is not None]


def is_swapped(model: type[Model]) -> bool:
    """`Options.swapped`: whether a setting puts another model in this one's place, so that it has no table."""
    return bool(model._meta.swapped)


def many_to_many_owner(model: type[Model]) -> type[Model] | None:
    """`Options.auto_created`: the model for whose many-to-many field Django made this one; None for any other."""
    # The stubs take what Django sets for a flag.
    owner: Any = model._meta.auto_created
    return owner or None


def many_to_many_columns(field: Any) -> tuple[str, str]:
    """`m2m_field_name()`, `m2m_reverse_field_name()`: the foreign keys to the field's own model and to the other."""
    return field.m2m_field_name(), field.m2m_reverse_field_name()


def reverse_name(field: Any) -> str:
    """`related_query_name()`: what a path from the other side calls a relation."""
    return str(field.related_query_name())


def accessor_of(field: Any) -> str | None:
    """`get_accessor_name()`: by which attribute a record has what the relation leads to; None where `related_name` hides it."""
    name: str | None = field.get_accessor_name() if hasattr(field, "get_accessor_name") else field.name
    return name


def flat_choices(field: Any) -> Sequence[tuple[Any, Any]]:
    """`flatchoices`: values and labels of a column's choices, out of their groups; none for a column without."""
    return getattr(field, "flatchoices", None) or ()


def generic_relation_columns(relation: Any) -> tuple[str, str]:
    """`content_type_field_name`, `object_id_field_name`: the columns that a GenericRelation is followed by."""
    return relation.content_type_field_name, relation.object_id_field_name


def is_generic_relation(field: Any) -> bool:
    """`object_id_field_name`: whether it is a GenericRelation, also where content types aren't installed."""
    return hasattr(field, "object_id_field_name")


def referred_field(field: Any) -> Any:
    """`target_field`: the column that a foreign key points at, by no other name to be had; None for any other field."""
    return getattr(field, "target_field", None)


def has_default(field: Field[Any, Any]) -> bool:
    """`Field.has_default()`: whether default= was given; None may be given, too."""
    return field.has_default()


def default_of(field: Field[Any, Any]) -> Any:
    """`Field.get_default()`: what save() would store where nothing was given: the default, an empty text or None."""
    return field.get_default()


def cast_type(field: Field[Any, Any], connection: BaseDatabaseWrapper) -> str:
    """`cast_db_type()`: the column's type as CAST takes it, without what only CREATE TABLE takes."""
    return str(field.cast_db_type(connection))


# Signals.


def receivers_of(signal: Signal) -> list[tuple[int, Any]]:
    """`Signal.receivers`: the identity of the sender that each listens to, and the receiver; None for one that is gone.

    Django's versions append other things to an entry; it begins with (receiver's id, sender's id) and the receiver.
    """
    entries: list[Any] = list(signal.receivers)
    return [
        (key[1], reference() if isinstance(reference, weakref.ReferenceType) else reference)
        for key, reference, *_ in entries
    ]


@dataclass(frozen=True)
class Connection:
    """A receiver of a signal. sender: the identity of the model that it listens to; receiver: None for one that is gone."""

    sender: int
    receiver: Any
    weak: bool
    is_async: bool

    @property
    def of_all(self) -> bool:
        """Whether it listens to every sender."""
        return self.sender == id(None)


def connections_of(signal: Signal) -> list[Connection]:
    """`Signal.receivers`, as `receivers_of`, with how each is connected; whether it is asynchronous stands last in an entry."""
    found = []
    for key, reference, *_, is_async in list(signal.receivers):
        weak = isinstance(reference, weakref.ReferenceType)
        found.append(Connection(key[1], reference() if weak else reference, weak, bool(is_async)))
    return found


def admin_pages() -> list[tuple[type[Model], Any]]:
    """`all_sites`, `AdminSite._registry`: each model that an admin site has, with its page, in the order of their labels."""
    from django.contrib.admin import sites

    found = [pair for site in sites.all_sites for pair in site._registry.items()]
    return sorted(found, key=lambda pair: pair[0]._meta.label)


@contextmanager
def mute_receivers(signals: Iterable[Signal]) -> Iterator[None]:
    """`Signal.receivers`, `sender_receivers_cache`: while the block runs, nobody in this process hears these signals."""
    kept: list[tuple[Any, Any]] = [(signal, signal.receivers) for signal in signals]
    try:
        for signal, _ in kept:
            signal.receivers = []
            signal.sender_receivers_cache.clear()
        yield
    finally:
        for signal, receivers in kept:
            signal.receivers = receivers
            signal.sender_receivers_cache.clear()
