"""The lock that a handler and a repair both take on a record, so that only one of them looks and inserts at a time.

A handler is whatever the project runs when a record is written: a receiver, a service function, a task. It takes the
lock here, and a chunk of a repair takes it in `repairing`; a rule whose `covers` all do has guarantee B.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from django.db import router, transaction
from django.db.models import Model, signals
from django.dispatch import Signal

from reconcile.errors import UsageError
from reconcile.sql.columns import inherited
from reconcile.sql.dialects import dialect_of
from reconcile.windows import Keys

__all__ = ["holding", "holds", "locks"]

P = ParamSpec("P")
R = TypeVar("R")

_MARK = "_reconcile_locks"
"""Attribute of a handler: the models whose records it locks."""


@contextmanager
def holding(*records: Model, using: str | None = None) -> Iterator[None]:
    """Hold, until the transaction ends, the lock that a repair takes on the records.

    Look for the row and insert it inside: what was read before may be older than the wait. Opens a transaction where
    none is open; where one is, the lock lasts until that one ends. Costs one statement for each model. Records that
    aren't saved are passed over: no other session sees them.

    using: alias of the database that all the records are on; unless given, where they are written.

    Waits for as long as the database lets it; a chunk of a repair holds a record for a fraction of a second. On SQLite
    the lock is the whole database's. Raises OperationalError where the wait, or a deadlock, is ended by the database;
    UsageError where the records are on several databases and none is named.
    """
    saved = [each for each in records if each.pk is not None]
    keys: dict[type[Model], list[Any]] = {}
    for each in sorted(saved, key=lambda record: _concrete(type(record))._meta.label):
        keys.setdefault(_concrete(type(each)), []).append(each.pk)
    if not saved:
        yield
        return
    with _held(keys, using or _only_database(saved)):
        yield


def locks(model: type[Model], by: str = "instance") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Run a handler under the lock that a repair takes on a record of `model`: `@locks(Order)`.

    by: the argument that holds the record, or its key; unless given, the one that signals of models send. Behind a
        dot, an attribute of it: `@locks(Order, by="instance.order_id")`. None holds nothing: there is no record then.

    The handler runs in a transaction as with `holding`, and still has to look before it inserts. An argument named
    `using`, which signals of models send, names the database. Write it below `@receiver`.

    Raises UsageError for a function that is async or a generator, that is connected to a signal already, or that has
    no such argument; and when it is called with a record of another model.
    """
    if not (isinstance(model, type) and issubclass(model, Model)):
        raise UsageError(
            f"locks() is given {model!r}. Name the model whose records are locked: @locks(Order)."
        )

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = _examined(function, by)

        @wraps(function)
        def handler(*args: P.args, **kwargs: P.kwargs) -> R:
            given = _arguments(signature, args, kwargs)
            key, using = _key(given, by, model), given.get("using")
            if key is None:
                return function(*args, **kwargs)
            with _held({_concrete(model): [key]}, using or _written_to(given, by, model)):
                return function(*args, **kwargs)

        setattr(handler, _MARK, getattr(function, _MARK, frozenset()) | {_concrete(model)})
        return handler

    return decorate


def holds(handler: Callable[..., Any], model: type[Model]) -> bool:
    """Whether the handler takes the lock on records of `model`, also where other decorators stand around it."""
    while handler is not None:
        if _concrete(model) in getattr(handler, _MARK, ()):
            return True
        handler = getattr(handler, "__wrapped__", None)  # type: ignore[assignment]
    return False


@contextmanager
def _held(keys: Mapping[type[Model], Sequence[Any]], using: str) -> Iterator[None]:
    """Hold the records of these keys in a transaction: the one that is open, or one of its own."""
    connected = transaction.get_connection(using)
    with nullcontext() if connected.in_atomic_block else transaction.atomic(using=using):
        for model, wanted in keys.items():
            rows = model._base_manager.using(using).filter(Keys(wanted).on("pk")).order_by("pk")
            # Each table of an inheriting model, as a chunk does.
            dialect_of(using).hold(rows.values_list("pk", *inherited(model)))
        yield


def _examined(function: Callable[..., Any], by: str) -> inspect.Signature:
    """The function's signature. Raises UsageError where the lock would not be held while it works."""
    name = getattr(function, "__qualname__", repr(function))
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        hint = "Write it as a plain function: Django runs that in a thread of its own where a signal is sent by asend()"
        raise UsageError(f"{name} is async, and the lock is held by a thread's connection. {hint}.")
    if inspect.isgeneratorfunction(function):
        raise UsageError(f"{name} is a generator, which works when the lock is gone. Return a list.")
    if any(_is_connected(function, each) for each in vars(signals).values() if isinstance(each, Signal)):
        raise UsageError(
            f"{name} is connected to a signal without the lock. Write @locks(…) below @receiver(…)."
        )
    signature = inspect.signature(function)
    kinds = {each.kind for each in signature.parameters.values()}
    head = by.partition(".")[0]
    if head not in signature.parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
        named = ", ".join(signature.parameters) or "none"
        raise UsageError(f"{name} has no argument {head!r}; it has {named}. Name it: @locks(Order, by=…).")
    return signature


def _is_connected(function: Callable[..., Any], signal: Signal) -> bool:
    receivers = (each[1] for each in signal.receivers)
    return any(
        (each() if isinstance(each, weakref.ReferenceType) else each) is function for each in receivers
    )


def _arguments(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What the handler is called with, by name."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    for each in signature.parameters.values():
        if each.kind is inspect.Parameter.VAR_KEYWORD:
            given |= given.pop(each.name)
    return given


def _named(given: Mapping[str, Any], by: str) -> Any:
    head, *path = by.split(".")
    value = given.get(head)
    for name in path:
        value = None if value is None else getattr(value, name)
    return value


def _key(given: Mapping[str, Any], by: str, model: type[Model]) -> Any:
    """The key of the record that `by` names, as the table of `model` has it. Raises UsageError for another's record."""
    value = _named(given, by)
    if not isinstance(value, Model):
        return value
    if not isinstance(value, _concrete(model)):
        hint = f"Name the argument that holds one: @locks({model.__name__}, by=…)."
        raise UsageError(f"{by!r} is a {type(value)._meta.label}, not a {model._meta.label}. {hint}")
    return getattr(value, _concrete(model)._meta.pk.attname)


def _only_database(records: Sequence[Model]) -> str:
    """Where all the records are written. Raises UsageError where that isn't the same for all of them."""
    using = {router.db_for_write(type(each), instance=each) for each in records}
    if len(using) > 1:
        raise UsageError(
            f"holding() is given records of {' and '.join(map(repr, sorted(using)))}, and a lock is of one database. Hold "
            "those of each by a holding() of their own, or name the database that all of them are on: using=…."
        )
    return using.pop()


def _written_to(given: Mapping[str, Any], by: str, model: type[Model]) -> str:
    value = _named(given, by)
    hints = {"instance": value} if isinstance(value, Model) else {}
    return router.db_for_write(model, **hints)


def _concrete(model: type[Model]) -> type[Model]:
    return model._meta.concrete_model or model
