"""Regressions: records that drift again after they were repaired.

Each chunk records the keys that it repaired, so a later run can compare. A person may still repair such a rule. The nightly job
does not until a person resumes the rule, since it would only hide what is broken.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db.models import F, QuerySet

from reconcile.core.drift import Drift
from reconcile.core.fixes import Correction
from reconcile.core.scopes import Keys, blocks
from reconcile.db.clock import database_now
from reconcile.db.columns import label_of
from reconcile.db.comparisons import AsReadBack
from reconcile.db.images import image
from reconcile.db.statements import KEY, WANTED
from reconcile.errors import Suspended
from reconcile.kinds.values.within import Within
from reconcile.models import Change, Chunk, Run, Suspension
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
    effects may be in flight. Repairs that were undone since don't count. Nor do records that owe something else by now than what was
    journalled: what they are computed from has changed, and nobody has written them wrong. One statement, and if any is found,
    three for each 5,000 of them; reads the keys chunk by chunk.
    """
    repaired = _repaired_before(rule, drifted, run=run, using=using, now=now)
    if not repaired:
        return []
    finders = {each.drift: each for each in rule.compile(using=using, now=now).finders}
    found: set[str] = set()
    for drift, keys in drifted.items():
        mine = {key: repaired[str(drift), str(key)] for key in keys if (str(drift), str(key)) in repaired}
        fix = finders[drift].fix if drift in finders else None
        nearly = _nearly_right(rule, fix) if isinstance(fix, Correction) else frozenset()
        moved = _moved(fix, mine, nearly, using) if mine and isinstance(fix, Correction) else set()
        found |= {str(key) for key in mine if key not in moved}
    return [*found]


_Place = tuple[int, int]
"""A work item, and the number of a chunk of it."""


def _repaired_before(
    rule: Rule, drifted: Mapping[Drift, Collection[Any]], *, run: UUID | None, using: str, now: datetime
) -> Mapping[tuple[str, str], _Place]:
    """By kind of drift and key, as text, the last chunk that has repaired the record."""
    kinds = [str(drift) for drift, keys in drifted.items() if keys]
    if not kinds:
        return {}
    chunks = _chunks(rule, using, now).filter(work_item__outcome__fingerprint=fingerprint(rule, using))
    chunks = chunks.exclude(work_item__outcome__run=run).filter(work_item__drift__in=kinds)
    found: dict[tuple[str, str], _Place] = {}
    wanted: dict[str, set[str]] = {}
    for drift, keys, work_item, number in _keys(chunks.order_by("committed_at", "pk")):
        # Only once there is a chunk, since there may be many keys.
        wanted = wanted or {str(drift): {str(key) for key in keys} for drift, keys in drifted.items()}
        for key in wanted[drift] & {str(key) for key in keys}:
            found[drift, key] = (work_item, number)
    return found


def _nearly_right(rule: Rule, fix: Correction) -> frozenset[str]:
    """The columns that may be other than what they owe, as they have a tolerance."""
    given = [option for option in vars(rule.must).values() if isinstance(option, Mapping)]
    names = {name for option in given for name, value in option.items() if isinstance(value, Within)}
    return frozenset(field.attname for field in fix.fields if field.name in names or field.attname in names)


def _moved(fix: Correction, repaired: Mapping[Any, _Place], nearly: frozenset[str], using: str) -> set[Any]:
    """Those of the records for which something else is owed now than what their repair has written, as far as the journal tells.

    A column that is right again says nothing: of those that are wrong each must owe something else. Of rows of another table it isn't
    known here whose they are: all of the records, if none of the rows owes what was journalled.
    """
    moved, same = set[str](), set[str]()
    for block in blocks(repaired):
        owed = _wrong_columns(fix, block, using)
        journalled = _journalled(fix, {repaired[key] for key in block}, owed, using)
        for key, values in owed.items():
            is_same = key not in journalled or _owes(journalled[key], values, nearly)
            (same if is_same else moved).add(key)
    if fix.own:
        return {key for key in repaired if str(key) in moved}
    return set() if same or not moved else set(repaired)


def _journalled(
    fix: Correction, places: Collection[_Place], keys: Collection[str], using: str
) -> Mapping[str, Any]:
    """What the last of these repairs of each row has left of its columns, by its key as text. One statement."""
    changes = Change._base_manager.using(using).filter(
        work_item__in={work_item for work_item, _ in places}, chunk__in={number for _, number in places},
        model=label_of(fix.model), key__in=list(keys), after__isnull=False,
    )  # fmt: skip
    return dict(changes.order_by("pk").values_list("key", "after"))


def _wrong_columns(fix: Correction, keys: Sequence[Any], using: str) -> Mapping[str, Mapping[str, Any]]:
    """What each row owes now in its columns that are wrong, by its key as text. Two statements."""
    images = image(fix.fields, lambda field: AsReadBack(F(WANTED.format(field.attname)), field=field))
    owed = dict(fix.wanted(Keys(keys)).annotate(_image=images).values_list(KEY, "_image"))
    rows = fix.model._base_manager.using(using).filter(pk__in=list(owed))
    there = dict(rows.annotate(_image=image(fix.fields)).values_list("pk", "_image"))
    return {str(key): _differing(_loaded(each), _loaded(there.get(key, each))) for key, each in owed.items()}


def _differing(owed: Mapping[str, Any], there: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the columns owe that have another value; all of them if none has, as far as images tell."""
    return {name: value for name, value in owed.items() if there.get(name) != value} or owed


def _owes(after: Any, values: Mapping[str, Any], nearly: frozenset[str]) -> bool:
    """Whether a column owes what a repair has written into it. What may be nearly right speaks only where nothing else is wrong."""
    exact = {name: value for name, value in values.items() if name not in nearly}
    image_after = _loaded(after)
    same = [image_after.get(name) == value for name, value in (exact or values).items()]
    return any(same) if exact else all(same)


def _loaded(value: Any) -> Any:
    """An image as a dictionary; some databases give it as text."""
    return json.loads(value) if isinstance(value, str | bytes) else value


def name_some(keys: Collection[str]) -> str:
    """The first few keys, as a message names them."""
    return ", ".join(sorted(keys)[:SHOWN]) + (" …" if len(keys) > SHOWN else "")


def suspend(rule: str, again: Collection[str], *, run: UUID, using: str) -> Suspended:
    """Suspend the rule: the nightly job reports it from now on. Returns why. Two statements."""
    why = (
        f"{len(again):,} of its records drift again although they were repaired before: {name_some(again)}. Find what writes them, "
        f"and mend that; then: reconcile rules resume {rule}"
    )
    Suspension._base_manager.using(using).get_or_create(
        rule=rule, defaults={"run": run, "why": why, "since": database_now(using)}
    )
    log.error("rule_suspended", rule=rule, run=str(run), records=len(again))
    return Suspended(f"The nightly job leaves this rule alone. {why}")


def suspension(rule: str, *, using: str) -> Suspended | None:
    """Why the nightly job does not repair the rule; None if it is not suspended. One statement."""
    found = Suspension._base_manager.using(using).filter(rule=rule).first()
    if found is None:
        return None
    return Suspended(f"Suspended since {found.since:%Y-%m-%d %H:%M}. {found.why}")


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


def _keys(chunks: QuerySet[Chunk]) -> Iterator[tuple[str, list[Any], int, int]]:
    yield from chunks.values_list("work_item__drift", "keys", "work_item_id", "number").iterator(
        chunk_size=10
    )
