"""`Resend`: call one receiver for the records whose signal it never got."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, cast

import django
from django.apps import apps
from django.db.models import Field, ManyToManyField, Model
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal

from reconcile.core.drift import EXTRA, Drift
from reconcile.core.finder import Finder
from reconcile.core.options import Option, is_one_of, option_faults
from reconcile.core.scopes import EVERYTHING, Keys, Scope
from reconcile.core.verbs import CALLED, UPDATE, Written
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import (
    many_to_many_columns,
    many_to_many_owner,
    own_columns,
    own_many_to_many,
    receivers_of,
)
from reconcile.errors import ChunkConflictError, Fault
from reconcile.remedies.base import Journal, Remedy, WriteResult, WriteStep
from reconcile.remedies.project_code import BATCH, blame, call_function, drifted_records, function_name

__all__ = [
    "DELETES",
    "SERVED",
    "Resend",
    "changes",
    "columns_of",
    "connections_of",
    "is_connected",
    "links_through",
    "name_of_signal",
    "signal_arguments",
    "write_back",
]

SERVED: tuple[Signal, ...] = (post_save, pre_save, m2m_changed)
"""Signals that can be sent again. A receiver that is connected to several is called as by the first of them."""

DELETES: tuple[Signal, ...] = (post_delete, pre_delete)

_OPTIONS = (
    BATCH,
    Option("created", is_one_of(bool), "Give True or False."),
    Option("receiver", callable, "Give the function that is connected to the signal."),
)

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
    return many_to_many_owner(model) is None


def _sender_ids(receiver: Any, signal: Signal) -> set[int]:
    """The identities of the senders that the receiver listens to."""
    return {sender for sender, each in receivers_of(signal) if each == receiver}


def connections_of(receiver: Any) -> Iterator[str]:
    """`post_save of shop.Order`, for each connection to a signal of models."""
    labels = {id(model): model._meta.label for model in apps.get_models(include_auto_created=True)}
    labels[id(None)] = "every model"
    for signal in (*SERVED, *DELETES):
        for each in sorted(labels.get(sender, "something else") for sender in _sender_ids(receiver, signal)):
            yield f"{name_of_signal(signal)} of {each}"


def links_through(model: type[Model]) -> list[ManyToManyField[Any, Any]]:
    """The many-to-many fields whose table is that of `model`."""
    fields = (field for each in apps.get_models() for field in own_many_to_many(each))
    return [field for field in fields if field.remote_field.through is model]


def signal_arguments(
    signal: Signal, model: type[Model], *, using: str, created: bool
) -> Callable[[Any], dict[str, Any]]:
    """Return what makes the arguments of the signal, as Django sends it, from a record of `model`."""
    always = {"signal": signal, "sender": model, "using": using, "raw": False}
    if signal is m2m_changed:
        return _arguments_of_added_row(model, always)
    if signal is post_save:
        always["created"] = created
    return lambda record: {**always, "instance": record, "update_fields": None}


def _arguments_of_added_row(model: type[Model], always: dict[str, Any]) -> Callable[[Any], dict[str, Any]]:
    """The arguments as if the one row had just been added from the side of the field."""
    field: Any = links_through(model)[0]
    if django.VERSION < (6, 1):
        del always["raw"]
    near, far = many_to_many_columns(field)
    target = cast("Field[Any, Any]", model._meta.get_field(far)).attname
    return lambda row: {
        **always,
        "instance": getattr(row, near),
        "action": "post_add",
        "reverse": False,
        "model": field.related_model,
        "pk_set": {getattr(row, target)},
    }


_Fields = tuple["Field[Any, Any]", ...]


def columns_of(record: Model) -> dict[Field[Any, Any], Any]:
    """The columns of the record as they would be stored. They are copies, since a receiver may change a value in place."""
    return {
        field: deepcopy(_copy_of_stored_value(record, field))
        for field in record._meta.concrete_fields
        if not getattr(field, "generated", False)
    }


def _copy_of_stored_value(record: Model, field: Field[Any, Any]) -> Any:
    value = getattr(record, field.attname)
    return value if hasattr(value, "resolve_expression") else field.get_prep_value(value)


def changes(record: Model, before: dict[Field[Any, Any], Any]) -> _Fields:
    """The columns whose values differ from `before`. Raises ValueError if one can't be written."""
    changed = tuple(field for field, value in columns_of(record).items() if value != before[field])
    concrete = concrete_model(type(record))
    for field in changed:
        if field.primary_key:
            raise ValueError(f"it has changed the primary key from {before[field]!r} to {record.pk!r}")
        if field not in own_columns(concrete):
            raise ValueError(f"it has changed {field.name!r}, which is stored in a parent's table")
    return changed


def write_back(
    model: type[Model], fields: _Fields, records: Sequence[Any], journal: Journal, *, using: str
) -> int:
    """Journal and update `fields` of the locked records. Returns their number. Three statements, more for very many records."""
    recorded = journal.record_before(model, fields, Keys([record.pk for record in records]))
    written = model._base_manager.using(using).bulk_update(records, [field.name for field in fields])
    completed = journal.record_after(model, fields)
    if not recorded == written == completed:
        raise ChunkConflictError(
            f"{model._meta.label}: of {recorded} changed records {written} were updated."
        )
    return written


@dataclass(frozen=True)
class Resend(Remedy):
    """Call one receiver, once for each record, with the arguments of its signal. No other receiver is called.

    The signal is the one that it is connected to, for the record's model: post_save, or pre_save, or m2m_changed
    for the rows of a many-to-many field. What a pre_save receiver changed on a record is written, those columns
    alone. It may be `async`. Errors are those of `Call`. Three statements, and the receiver's own for each record;
    for pre_save two, and three for each set of columns that it changed.

    signal: which one, where it is connected to several and the first of these isn't meant.
    created: what a post_save receiver is told. batch: most records in one transaction.
    """

    receiver: Any
    _: KW_ONLY
    signal: Signal | None = None
    created: bool = True
    batch: int = 100

    verbs: ClassVar[Sequence[str]] = (CALLED, UPDATE)

    @property
    def chunk(self) -> int:
        """Few: each record costs the receiver's own statements, while all of them are locked."""
        return self.batch

    def faults(self, drift: Drift, finder: Finder | None) -> Iterator[Fault]:
        """The receiver must be connected to a signal of the records' model, and the records must be there."""
        yield from option_faults(self, _OPTIONS, "Resend")
        if not callable(self.receiver):
            return
        if self.signal is not None and self.signal not in SERVED:
            yield self._unserved_signal()
        elif drift is EXTRA:
            hint = "Use Report(), or Call(…) with a function that takes these rows."
            yield Fault("reconcile.E012", "Resend() does not mend extra drift.", hint)
        elif finder is not None:
            yield from self._connection_faults(finder.model)

    def _unserved_signal(self) -> Fault:
        message = f"Resend: signal= is {name_of_signal(self.signal)}."
        if self.signal in DELETES:
            return Fault(
                "reconcile.E012",
                message,
                "It is sent for records that are gone; these are there. Use Call(…).",
            )
        return Fault("reconcile.E012", message, f"Give {', '.join(map(name_of_signal, SERVED))}.")

    def _connection_faults(self, model: type[Model]) -> Iterator[Fault]:
        signal = self._signal(model)
        if signal is m2m_changed and len(links_through(model)) > 1:
            hint = "Use Call(…) with the function that the receiver wraps."
            message = f"Resend: {model._meta.label} holds the rows of several many-to-many fields."
            yield Fault("reconcile.E015", message, hint)
        if signal is not None:
            return
        known = ", ".join(connections_of(self.receiver)) or "no signal of a model"
        wanted = name_of_signal(self.signal) if self.signal else "post_save, pre_save or m2m_changed"
        message = f"Resend: {function_name(self.receiver)} is connected to {known}; not to {wanted} of {model._meta.label}."
        hint = "Write the rule over a model that it is connected to, or use Call(…) with the function that it wraps."
        yield Fault("reconcile.E012", message, hint)

    def _signal(self, model: type[Model]) -> Signal | None:
        """The signal that reaches the receiver from `model`; None if there is none."""
        candidates = SERVED if self.signal is None else (self.signal,)
        return next((each for each in candidates if is_connected(self.receiver, each, model)), None)

    def plan(self, finder: Finder, drifted: int, scope: Scope = EVERYTHING) -> Written:  # noqa: ARG002
        """One call for each record; for a pre_save receiver, one update."""
        verb = UPDATE if self._signal(finder.model) is pre_save else CALLED
        return Written(**{verb: drifted})

    def spell(self, finder: Finder, keys: Keys) -> Iterator[WriteStep]:  # noqa: ARG002
        """The receiver, of which nobody knows what it sends."""
        name = function_name(self.receiver)
        if self._signal(finder.model) is pre_save:
            yield WriteStep(
                f"Call {name}() with each locked record, and UPDATE the columns that it has changed."
            )
        else:
            yield WriteStep(f"Call {name}() with each locked record. What it writes is its own.")

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> WriteResult:
        """Call the receiver for the records of `keys` that drift still."""
        model, using = finder.model, finder.using
        signal = self._signal(model)
        if signal is None:
            raise TypeError(
                f"{function_name(self.receiver)} is not connected to {model._meta.label} any more."
            )
        related = many_to_many_columns(links_through(model)[0])[0] if signal is m2m_changed else ""
        records = drifted_records(finder, keys, with_related=related)
        if not records:
            return WriteResult()
        drifted = [record.pk for record in records]
        arguments = signal_arguments(signal, model, using=using, created=self.created)
        if signal is pre_save:
            sent = [arguments(each) for each in records]
            return WriteResult.of(UPDATE, self._save(records, sent, journal, finder), keys=drifted)
        recorded = journal.record_handover(CALLED, model, Keys(drifted))
        with blame(self.receiver, using):
            for record in records:
                call_function(self.receiver, **arguments(record))
        return WriteResult.of(CALLED, recorded, keys=drifted)

    def _save(
        self, records: Sequence[Any], sent: Sequence[dict[str, Any]], journal: Journal, finder: Finder
    ) -> int:
        """Call the pre_save receiver, and write the columns that it has changed."""
        changed: dict[tuple[Field[Any, Any], ...], list[Any]] = defaultdict(list)
        with blame(self.receiver, finder.using):
            for record, arguments in zip(records, sent, strict=True):
                before = columns_of(record)
                call_function(self.receiver, **arguments)
                changed[changes(record, before)].append(record)
            changed.pop((), None)
            return sum(
                write_back(finder.model, fields, group, journal, using=finder.using)
                for fields, group in changed.items()
            )
