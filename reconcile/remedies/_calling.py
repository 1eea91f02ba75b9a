"""How a remedy calls the project's own functions: with which records, and what becomes of an exception."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable, signature
from typing import Any

from asgiref.sync import async_to_sync
from django.db import DataError, Error, IntegrityError, connections
from django.db.transaction import TransactionManagementError

from reconcile.errors import ChunkConflictError, Fault, RemedyFailedError
from reconcile.finders import Finder
from reconcile.sql.dialects import dialect_of
from reconcile.windows import Keys

__all__ = ["batch_faults", "blamed", "called", "name_of", "still_drifting", "takes"]


def still_drifting(finder: Finder, keys: Keys, *, with_related: str = "") -> list[Any]:
    """The records of `keys`, which are locked, that drift still, in key order; with one related record where named.

    The keys were found before they were locked, and somebody may have mended some of them meanwhile. Two statements.
    """
    drifting = Keys(finder.keys(keys))
    records = finder.model._base_manager.using(finder.using).filter(drifting.on("pk")).order_by("pk")
    return list(records.select_related(with_related) if with_related else records)


def called(function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Call the function; one that is asynchronous is waited for, and its queries join the chunk's transaction."""
    result = function(*arguments, **named)
    if isawaitable(result):
        async_to_sync(_waited_for)(result)


async def _waited_for(result: Awaitable[Any]) -> None:
    await result


@contextmanager
def blamed(function: Callable[..., Any], using: str) -> Iterator[None]:
    """Turn what the function raises in the block into a RemedyFailedError that names it.

    What says nothing of single records passes through: a deadlock is tried again, a lost server ends the rule.
    """
    try:
        yield
    except ChunkConflictError:
        raise
    except Error as error:
        concerns_records = isinstance(error, IntegrityError | DataError | TransactionManagementError)
        if not concerns_records or dialect_of(using).is_transient(error):
            raise
        raise RemedyFailedError(_said(function, error)) from error
    except Exception as error:
        raise RemedyFailedError(_said(function, error)) from error
    if connections[using].needs_rollback:
        raise RemedyFailedError(
            f"{name_of(function)}: it has caught an error of the database and gone on, in a transaction that can "
            "only be rolled back. Let it raise, or put what may fail into transaction.atomic()."
        ) from None


def _said(function: Callable[..., Any], error: Exception) -> str:
    said = f"{type(error).__name__}: {error}".strip().split("\n")[0].rstrip(":")
    if isinstance(error, RuntimeError) and "durable" in said:
        said += " It can't be called inside a chunk's transaction: take durable=True away, or call what is inside."
    return f"{name_of(function)}: {said}"


def name_of(function: Any) -> str:
    """The function's own name, also where arguments are bound to it."""
    function = getattr(function, "func", function)
    return str(getattr(function, "__name__", None) or type(function).__name__)


def takes(function: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Whether the function can be called so; true where Python can't tell."""
    try:
        signature(function).bind(*arguments, **named)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def batch_faults(remedy: str, batch: Any) -> Iterator[Fault]:
    """A fault where `batch` is no number of records."""
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        yield Fault(
            "reconcile.E012", f"{remedy}: batch= is {batch!r}.", "Give a number of records, 1 or more."
        )
