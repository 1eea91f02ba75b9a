"""Records that drift again after they were repaired: something writes them wrong each time.

Each chunk has noted the keys that it repaired, so a later run can tell. Such a rule is repaired where a person asks
for it; the nightly job leaves it alone until somebody resumes it, since it would only hide what is broken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db.models import QuerySet

from reconcile.drift import Drift
from reconcile.fingerprints import fingerprint
from reconcile.models import Chunk, Run, Suspension
from reconcile.rules import Rule

__all__ = ["MEMORY", "drifting_again", "has_history", "resumed", "some_of", "suspend", "suspension"]

log = structlog.get_logger()

MEMORY = timedelta(days=7)
"""How long a repaired record is remembered: one that drifts again after that is drift like any other."""

SHOWN = 5
"""Keys that a message names."""


def has_history(rule: Rule, *, using: str, now: datetime) -> bool:
    """Whether any record of the rule was repaired lately. One statement."""
    return _chunks(rule, using, now).exists()


def drifting_again(
    rule: Rule, drifted: Mapping[Drift, Collection[Any]], *, run: UUID | None, using: str, now: datetime
) -> list[str]:
    """Which of the `drifted` keys an earlier run has repaired, as text, in no order.

    What was repaired before the rule was edited counts no more: another rule drifts there. Repairs that are younger than the rule's settle time don't count, since what belongs to them may be in flight; nor
    do those that were undone since. One statement; holds the keys of one chunk at a time.
    """
    kinds = [str(drift) for drift, keys in drifted.items() if keys]
    chunks = _chunks(rule, using, now).filter(shard__outcome__fingerprint=fingerprint(rule, using))
    chunks = chunks.exclude(shard__outcome__run=run).filter(shard__drift__in=kinds)
    if not kinds:
        return []
    found: set[str] = set()
    wanted: dict[str, set[str]] = {}
    for drift, keys in _keys(chunks):
        # Not before there is a chunk: the keys may be many.
        wanted = wanted or {str(drift): {str(key) for key in keys} for drift, keys in drifted.items()}
        found |= wanted[drift] & {str(key) for key in keys}
    return [*found]


def some_of(keys: Collection[str]) -> str:
    """The first few keys, as a message names them."""
    return ", ".join(sorted(keys)[:SHOWN]) + (" …" if len(keys) > SHOWN else "")


def suspend(rule: str, again: Collection[str], *, run: UUID, using: str) -> str:
    """Have the nightly job leave the rule alone from now on; why, in words. Two statements."""
    why = (
        f"{len(again):,} of its records drift again although they were repaired before: {some_of(again)}. Find what writes them, "
        f"and mend that; then: reconcile resume {rule}"
    )
    Suspension._base_manager.using(using).get_or_create(rule=rule, defaults={"run": run, "why": why})
    log.error("rule_suspended", rule=rule, run=str(run), records=len(again))
    return f"The nightly job leaves this rule alone. {why}"


def suspension(rule: str, *, using: str) -> str:
    """Why the nightly job leaves the rule alone; empty where it doesn't. One statement."""
    found = Suspension._base_manager.using(using).filter(rule=rule).first()
    return f"Suspended since {found.since:%Y-%m-%d %H:%M}. {found.why}" if found else ""


def resumed(rule: str, *, using: str) -> bool:
    """Let the nightly job repair the rule again; whether it was suspended. What was repaired so far counts no more.

    Two statements.
    """
    lifted = bool(Suspension._base_manager.using(using).filter(rule=rule).delete()[0])
    if lifted:
        Chunk._base_manager.using(using).filter(shard__outcome__rule=rule).update(keys=[])
        log.info("rule_resumed", rule=rule, database=using)
    return lifted


def _chunks(rule: Rule, using: str, now: datetime) -> QuerySet[Chunk]:
    upto = now - rule.settle.age if rule.settle else now
    chunks = Chunk._base_manager.using(using).filter(
        shard__outcome__rule=rule.name, committed_at__gt=now - MEMORY, committed_at__lte=upto
    )
    undos = Run._base_manager.using(using).filter(kind=Run.Kind.UNDO, undoes__isnull=False)
    # An undo that was undone itself has taken nothing back.
    undone = undos.exclude(pk__in=undos.values("undoes")).values("undoes")
    return chunks.exclude(shard__outcome__run__kind=Run.Kind.UNDO).exclude(shard__outcome__run__in=undone)


def _keys(chunks: QuerySet[Chunk]) -> Iterator[tuple[str, list[Any]]]:
    yield from chunks.values_list("shard__drift", "keys").iterator(chunk_size=10)
