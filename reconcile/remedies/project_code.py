"""How a remedy calls the project's own functions, and what becomes of an exception."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable, signature
from typing import Any

from asgiref.sync import async_to_sync
from django.db import Error, transaction
from django.db.transaction import TransactionManagementError

from reconcile.core.finder import Finder
from reconcile.core.options import Option, is_whole
from reconcile.core.scopes import Keys
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import in_transaction
from reconcile.errors import ChunkConflictError, RemedyFailedError, with_type

__all__ = ["BATCH", "accepts", "blame", "call_function", "drifted_records", "function_name"]

BATCH = Option("batch", is_whole(1), "Give a number of records, 1 or more.")
"""How many records one call of the project's code gets."""


def drifted_records(finder: Finder, keys: Keys, *, with_related: str = "") -> list[Any]:
    """Read the locked records of `keys` that still drift, in key order, with one related record if named.

    The keys were found before they were locked, and somebody may have mended some of them meanwhile. Two statements.
    """
    drifting = Keys(finder.keys(keys))
    records = finder.model._base_manager.using(finder.using).filter(drifting.on("pk")).order_by("pk")
    return list(records.select_related(with_related) if with_related else records)


def call_function(function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Call the function. An asynchronous function is awaited, and its queries join the chunk's transaction."""
    result = function(*arguments, **named)
    if isawaitable(result):
        async_to_sync(_waited_for)(result)


async def _waited_for(result: Awaitable[Any]) -> None:
    await result


@contextmanager
def blame(function: Callable[..., Any], using: str) -> Iterator[None]:
    """Raise an exception of the function, inside the block, as a RemedyFailedError that names the function.

    What says nothing of single records passes through: a deadlock is tried again, a lost server ends the rule.
    """
    try:
        yield
    except ChunkConflictError:
        raise
    except Error as error:
        dialect = dialect_of(using)
        concerns_records = isinstance(error, TransactionManagementError) or dialect.concerns_records(error)
        if not concerns_records or dialect.is_transient(error):
            raise
        raise RemedyFailedError(_describe_error(function, error)) from error
    except Exception as error:
        raise RemedyFailedError(_describe_error(function, error)) from error
    if in_transaction(using) and transaction.get_rollback(using=using):
        raise RemedyFailedError(
            f"{function_name(function)}: it has caught an error of the database and gone on, in a transaction that can "
            "only be rolled back. Let it raise, or put what may fail into transaction.atomic()."
        ) from None


def _describe_error(function: Callable[..., Any], error: Exception) -> str:
    message = with_type(error)
    if isinstance(error, RuntimeError) and "durable" in message:
        message += " It can't be called inside a chunk's transaction: take durable=True away, or call what is inside."
    return f"{function_name(function)}: {message}"


def function_name(function: Any) -> str:
    """The name of the function, behind a partial too."""
    function = getattr(function, "func", function)
    return str(getattr(function, "__name__", None) or type(function).__name__)


def accepts(function: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Whether the function accepts these arguments; True if Python can't tell."""
    try:
        signature(function).bind(*arguments, **named)
    except TypeError:
        return False
    except ValueError:
        return True
    return True
