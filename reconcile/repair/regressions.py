"""Regressions: records that drift again after they were repaired.

Each chunk records the keys that it repaired, so a later run can compare. A person may still repair such a rule. The nightly job
does not until a person resumes the rule, since it would only hide what is broken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db.models import QuerySet

from reconcile.core.drift import Drift
from reconcile.db.clock import database_now
from reconcile.errors import Refusal
from reconcile.models import Chunk, Run, Suspension
from reconcile.rules.fingerprints import fingerprint
from reconcile.rules.rule import Rule

__all__ = [
    "MEMORY",
    "find_regressions",
    "name_some",
    "resume_rule",
    "suspend",
    "suspension",
    "was_repaired_lately",
]

log = structlog.get_logger()

MEMORY = timedelta(days=7)
"""How long a repaired record is remembered. A record that drifts again later is drift like any other."""

_OWN_WAY = (Run.Kind.UNDO, Run.Kind.LOOK)
"""Kinds of runs whose repairs are not remembered. A look comes after each write past the handlers, so a record may need many."""

SHOWN = 5
"""Keys that a message names."""


def was_repaired_lately(rule: Rule, *, using: str, now: datetime) -> bool:
    """Whether any record of the rule was repaired lately. One statement."""
    return _chunks(rule, using, now).exists()


def find_regressions(
    rule: Rule, drifted: Mapping[Drift, Collection[Any]], *, run: UUID | None, using: str, now: datetime
) -> list[str]:
    """Return the `drifted` keys that an earlier run has repaired, as text, in no order.

    Repairs from before the rule was edited don't count. Repairs that are younger than the rule's settle time don't count, since their
    effects may be in flight. Repairs that were undone since don't count. One statement; reads the keys chunk by chunk.
    """
    kinds = [str(drift) for drift, keys in drifted.items() if keys]
    chunks = _chunks(rule, using, now).filter(work_item__outcome__fingerprint=fingerprint(rule, using))
    chunks = chunks.exclude(work_item__outcome__run=run).filter(work_item__drift__in=kinds)
    if not kinds:
        return []
    found: set[str] = set()
    wanted: dict[str, set[str]] = {}
    for drift, keys in _keys(chunks):
        # Only once there is a chunk, since there may be many keys.
        wanted = wanted or {str(drift): {str(key) for key in keys} for drift, keys in drifted.items()}
        found |= wanted[drift] & {str(key) for key in keys}
    return [*found]


def name_some(keys: Collection[str]) -> str:
    """The first few keys, as a message names them."""
    return ", ".join(sorted(keys)[:SHOWN]) + (" …" if len(keys) > SHOWN else "")


def suspend(rule: str, again: Collection[str], *, run: UUID, using: str) -> Refusal:
    """Suspend the rule: the nightly job reports it from now on. Returns why. Two statements."""
    why = (
        f"{len(again):,} of its records drift again although they were repaired before: {name_some(again)}. Find what writes them, "
        f"and mend that; then: reconcile resume {rule}"
    )
    Suspension._base_manager.using(using).get_or_create(
        rule=rule, defaults={"run": run, "why": why, "since": database_now(using)}
    )
    log.error("rule_suspended", rule=rule, run=str(run), records=len(again))
    return Refusal(f"The nightly job leaves this rule alone. {why}")


def suspension(rule: str, *, using: str) -> Refusal | None:
    """Why the nightly job does not repair the rule; None if it is not suspended. One statement."""
    found = Suspension._base_manager.using(using).filter(rule=rule).first()
    if found is None:
        return None
    return Refusal(f"Suspended since {found.since:%Y-%m-%d %H:%M}. {found.why}")


def resume_rule(rule: str, *, using: str) -> bool:
    """Let the nightly job repair the rule again. Returns whether it was suspended. Earlier repairs no longer count.

    Two statements.
    """
    lifted = bool(Suspension._base_manager.using(using).filter(rule=rule).delete()[0])
    if lifted:
        Chunk._base_manager.using(using).filter(work_item__outcome__rule=rule).update(keys=[])
        log.info("rule_resumed", rule=rule, database=using)
    return lifted


def _chunks(rule: Rule, using: str, now: datetime) -> QuerySet[Chunk]:
    upto = now - rule.settle.age if rule.settle else now
    chunks = Chunk._base_manager.using(using).filter(
        work_item__outcome__rule=rule.name, committed_at__gt=now - MEMORY, committed_at__lte=upto
    )
    undos = Run._base_manager.using(using).filter(kind=Run.Kind.UNDO, undoes__isnull=False)
    # An undo that was undone itself has taken nothing back.
    undone = undos.exclude(pk__in=undos.values("undoes")).values("undoes")
    # What a run that isn't over has repaired may be its work of this moment, by the clock of another host.
    chunks = chunks.exclude(work_item__outcome__run__state__in=Run.ACTIVE)
    return chunks.exclude(work_item__outcome__run__kind__in=_OWN_WAY).exclude(
        work_item__outcome__run__in=undone
    )


def _keys(chunks: QuerySet[Chunk]) -> Iterator[tuple[str, list[Any]]]:
    yield from chunks.values_list("work_item__drift", "keys").iterator(chunk_size=10)
