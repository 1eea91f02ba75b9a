"""Counts the statements of one act, and says in which effect each was executed."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connections

from reconcile.audit.capture.capturing import Statements, counting, is_of_savepoint
from reconcile.audit.cost.causes import OWN, Effects, cause_of
from reconcile.db.django_compat import hooks_on_commit

__all__ = ["Count", "Counted", "beyond", "count", "seconds_of"]


@dataclass(frozen=True, kw_only=True)
class Count:
    """The statements of one act. savepoints: those that set, release or go back to one, which are none of the others. callbacks: of COMMIT, which were
    not run. by_effect: statements by the outermost effect in which they were executed, and their first words.
    """

    statements: int
    savepoints: int
    callbacks: int
    by_effect: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What the effects of one act cost. k: statements beyond its own. own: those of the act without any effect.

    by_effect: as of `Count`; under no name what the act itself executes more than in silence, such as rows that a delete reads because a receiver wants them. seconds: that the act took, without COMMIT; None if that wasn't measured.
    """

    k: int
    own: int
    savepoints: int = 0
    callbacks: int = 0
    seconds: float | None = None
    by_effect: Mapping[tuple[str, str], int] = field(default_factory=dict)


def count(act: Callable[[], Any], effects: Effects, using: str) -> Count:
    """Run the act, in a transaction that the caller rolls back, and count what it does."""
    statements, found = Statements(), Counter[tuple[str, str]]()
    hooks = len(hooks_on_commit(using))
    with counting(statements, using), _attributing(found, effects, using):
        act()
    return Count(
        statements=statements.total,
        savepoints=statements.savepoints,
        callbacks=len(hooks_on_commit(using)) - hooks,
        by_effect=found,
    )


def beyond(loud: Count, muted: Count, seconds: float | None = None) -> Counted:
    """What the effects cost: what the act did with them, less what it did without.

    Fields can't be muted: what they execute in silence is none of the act's own.
    """
    own = _by_itself(muted)
    by_effect = {place: number for place, number in loud.by_effect.items() if place[0] != OWN}
    return Counted(
        k=loud.statements - own.total(),
        own=own.total(),
        savepoints=loud.savepoints - muted.savepoints,
        callbacks=loud.callbacks - muted.callbacks,
        seconds=seconds,
        by_effect=by_effect | (_by_itself(loud) - own),
    )


def _by_itself(counted: Count) -> Counter[tuple[str, str]]:
    return Counter({place: number for place, number in counted.by_effect.items() if place[0] == OWN})


def seconds_of(act: Callable[[], Any]) -> float:
    """How long the act takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


@contextmanager
def _attributing(found: Counter[tuple[str, str]], effects: Effects, using: str) -> Iterator[None]:
    def note(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001
        if not is_of_savepoint(str(sql)):
            found[cause_of(inspect.currentframe(), effects), _first_words(str(sql))] += 1
        return execute(sql, params, many, context)

    with connections[using].execute_wrapper(note):
        yield


def _first_words(sql: str) -> str:
    """`UPDATE shop_order`: the verb and the first table, to be recognised by."""
    words = sql.replace("(", " ").replace('"', "").replace("`", "").split()
    verb = words[0].upper() if words else ""
    before = {"SELECT": "FROM", "DELETE": "FROM", "INSERT": "INTO"}.get(verb)
    upper = [each.upper() for each in words]
    at = upper.index(before) + 1 if before in upper else 1
    return f"{verb} {words[at]}" if verb in _WITH_TABLE and at < len(words) else verb


_WITH_TABLE = frozenset({"SELECT", "DELETE", "INSERT", "UPDATE"})
