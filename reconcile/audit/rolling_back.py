"""A transaction that is rolled back whatever happens in it, and that says so where somebody has ended it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import Error, connections, transaction

from reconcile.db.dialects import dialect_of
from reconcile.errors import EvaluationError, with_type

__all__ = ["CommittedError", "rolled_back"]


class CommittedError(EvaluationError):
    """A transaction that was to be rolled back is there no more."""


@contextmanager
def rolled_back(using: str, what: str) -> Iterator[None]:
    """Roll back what the block does, in a transaction of its own or a savepoint. what: what is done, as the subject of a sentence.

    Raises CommittedError if there is nothing to go back to: the block has ended the transaction.
    """
    with transaction.atomic(using):
        _execute(using, "SAVEPOINT reconcile_run")
        try:
            yield
        except Error as error:
            # A deadlock's victim is rolled back by the server, with all savepoints.
            if not dialect_of(using).is_transient(error):
                _go_back(using, what)
            raise
        except BaseException:
            _go_back(using, what)
            raise
        _go_back(using, what)
        transaction.set_rollback(True, using=using)


def _execute(using: str, sql: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(sql)


def _go_back(using: str, what: str) -> None:
    try:
        transaction.set_rollback(False, using=using)
        _execute(using, "ROLLBACK TO SAVEPOINT reconcile_run")
    except Exception as error:
        raise CommittedError(
            f"{what} has ended the transaction that was to be rolled back ({with_type(error)}): what its effects wrote "
            "until then may stand. Nothing more was run; see to the record."
        ) from error
