"""The records that a parity is shown on: what a factory makes, what fixtures hold, or existing rows; saved one by one, or written in bulk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core import serializers
from django.core.serializers.base import DeserializationError
from django.db import Error, connections, transaction
from django.db.models import Model

from reconcile.audit.muting import muted, save_muted
from reconcile.audit.parity.named import named_function
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import many_to_many_owner, own_many_to_many, parents_of
from reconcile.errors import UsageError

__all__ = ["Linked", "Made", "counted", "from_factory", "from_fixtures", "save_each", "write_in_bulk"]


@dataclass(frozen=True)
class Linked:
    """Rows that a many-to-many field links to a row: `Linked(group, "members", [user])`. All of them are saved by then."""

    row: Model
    name: str
    others: Sequence[Model]


Made = Sequence[Model | Linked]
"""Unsaved instances and links, each after what it refers to."""


def from_factory(factory: Callable[[], Any] | str) -> Made:
    """What the factory makes: unsaved instances and `Linked`, in the order in which they are to be saved. What it saves itself is there on each path.

    Raises UsageError for anything else, and whatever the factory raises.
    """
    function = named_function(factory) if isinstance(factory, str) else factory
    name = factory if isinstance(factory, str) else f"{function.__module__}.{function.__qualname__}"
    found = function()
    listed = [found] if isinstance(found, Model | Linked) else found
    if isinstance(listed, str) or not isinstance(listed, Iterable):
        raise UsageError(f"The factory {name} gives {listed!r}: let it give a list of unsaved instances.")
    made = list(listed)
    for each in made:
        if isinstance(each, Linked):
            continue
        if not isinstance(each, Model):
            raise UsageError(f"The factory {name} gives {each!r}, which is no instance of a model.")
        if not each._state.adding:
            raise UsageError(
                f"The factory {name} gives a {each._meta.label} that is saved already, so that both paths would have been taken by then. Build it: "
                f"{type(each).__name__}(…) without save(), or .build() of a factory class."
            )
    if not made:
        raise UsageError(f"The factory {name} gives nothing.")
    return made


def from_fixtures(files: Sequence[Path], using: str) -> Made:
    """The objects of fixtures of Django's formats, with their links.

    They are loaded in silence, so that their natural keys and references are known, and that is rolled back. Raises UsageError for a file
    that can't be read.
    """
    with transaction.atomic(using), muted(), connections[using].constraint_checks_disabled():
        rows = [each.object for file in files for each in _loaded(file, using)]
        links = [link for each in rows for link in _links(each, using)]
        transaction.set_rollback(True, using=using)
    for each in rows:
        each._state.adding = True
    return [*rows, *links]


def _loaded(file: Path, using: str) -> Sequence[Any]:
    form = file.suffix.lstrip(".")
    if form not in serializers.get_public_serializer_formats():
        known = ", ".join(f".{each}" for each in serializers.get_public_serializer_formats())
        raise UsageError(f"{str(file)!r} is no fixture by its name; those end in {known}.")
    found = []
    try:
        text = file.read_text(encoding="utf-8")
        for each in serializers.deserialize(form, text, using=using, handle_forward_references=True):
            each.save(using=using)
            found.append(each)
        for each in found:
            if each.deferred_fields:
                each.save_deferred_fields(using=using)
    except (DeserializationError, Error, OSError, ValueError) as error:
        raise UsageError(f"The fixture {str(file)!r} can't be read: {error}") from error
    return found


def _links(row: Model, using: str) -> Iterator[Linked]:
    for each in own_many_to_many(type(row)):
        through: Any = each.remote_field.through
        if many_to_many_owner(through) is not None:
            others = [*getattr(row, each.name).using(using).order_by("pk")]
            if others:
                yield Linked(row, each.name, others)


def counted(made: Made) -> Counter[str]:
    """How many rows of each model, by its label."""
    return Counter(each._meta.label for each in made if isinstance(each, Model))


@contextmanager
def in_any_order(using: str) -> Iterator[None]:
    """Let rows refer to those that come later, as `loaddata` does, on a database that would look at once. Raises IntegrityError if one never comes."""
    connection = connections[using]
    with connection.constraint_checks_disabled():
        yield
    connection.check_constraints()


def save_each(made: Made, using: str) -> None:
    """Save one after the other, with all that the project does about it."""
    for each in made:
        if isinstance(each, Linked):
            getattr(each.row, each.name).add(*each.others)
        else:
            each.save(using=using)


def write_in_bulk(made: Made, using: str) -> list[Model]:
    """Write the same by `bulk_create`, past all that the project does about it. Returns what is to be ensured.

    One by one, and as silent, go rows that inherit from a table of another model, and those of a database that gives no keys back.
    """
    written: list[Model] = []
    for rows in _batches([each for each in made if isinstance(each, Model)]):
        _insert(rows, using)
        written += rows
    for each in made:
        if isinstance(each, Linked):
            written += _link(each, using)
    return written


def _batches(rows: Sequence[Model]) -> Iterator[list[Model]]:
    """The rows of one model at a time, none in one batch with a row that it refers to."""
    batch: list[Model] = []
    waiting: list[Model] = [*rows]
    while waiting:
        model, batch = type(waiting[0]), []
        later: list[Model] = []
        for each in waiting:
            if type(each) is model and not _refers_to(each, (*batch, *later)):
                batch.append(each)
            else:
                later.append(each)
        yield batch
        waiting = later


def _refers_to(row: Model, others: Sequence[Model]) -> bool:
    """Whether the row refers to one of these, which has no key yet."""
    identities = {*map(id, others)}
    fields: Any = row._meta.concrete_fields
    keys = [each for each in fields if each.is_relation and each.is_cached(row)]
    return any(id(getattr(row, each.name)) in identities for each in keys)


def _insert(rows: Sequence[Model], using: str) -> None:
    model = type(rows[0])
    by_one = bool(parents_of(concrete_model(model))) or (
        any(each.pk is None for each in rows)
        and not connections[using].features.can_return_rows_from_bulk_insert
    )
    if by_one:
        for each in rows:
            save_muted(each, using=using)
    else:
        model._base_manager.using(using).bulk_create(rows)


def _link(linked: Linked, using: str) -> list[Model]:
    """Write the rows between, in bulk."""
    manager = getattr(linked.row, linked.name)
    through = manager.through
    own, other = manager.source_field_name, manager.target_field_name
    rows = [through(**{own: linked.row, other: each}) for each in linked.others]
    _insert(rows, using)
    return rows
