"""`ensure`: after a bulk write, bring all into being that the records owe, inside the caller's transaction.

It is the bulk half of a service layer: what receivers would have done for each record is done for all of them at once, by the rules. There is no lease and no
cursor, and a journal only on demand. What it writes stands or falls with the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any
from uuid import UUID

import structlog
from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, transaction
from django.db.models import Model, QuerySet
from django.utils import timezone

from reconcile.core.finder import Finder
from reconcile.core.fixes import Correction, Derivation, Heights, Insertion, Levels
from reconcile.core.scopes import BLOCK, Keys, blocks
from reconcile.core.verbs import Written
from reconcile.db.clock import database_now
from reconcile.db.columns import concrete_model
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import in_transaction, referred_field
from reconcile.detect.checking import evaluation_errors
from reconcile.detect.leading import Lead, lead_of
from reconcile.errors import EnsureError, UsageError, with_type
from reconcile.remedies import Message, Remedy, WriteResult
from reconcile.rules.order import Order, sort_rules
from reconcile.rules.rule import CompiledRule, Rule
from reconcile.runs.ensured_run import EnsuredRun
from reconcile.runs.given import Changed, Given, Records, rules_of

__all__ = ["Ensured", "aensure", "ensure", "ensure_given", "ensuring"]

log = structlog.get_logger()

LEVELS = 1_000
"""Most levels of a tree that one call goes down."""

STEPS = 50
"""Most records of a circle that a message names."""


@dataclass(frozen=True, kw_only=True)
class Ensured:
    """What `ensure` has done. written: rows by rule, then by verb. messages: how many are sent once the caller's transaction is committed.

    refused: by the name of a rule that reads these records, why nothing was done for it. run: the id of the run that an undo takes back; None without a
    journal, or if nothing was written.
    """

    written: Mapping[str, Written] = field(default_factory=dict)
    messages: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)
    run: UUID | None = None

    @property
    def total(self) -> int:
        """Rows written, those that were handed over too."""
        return sum(each.total for each in self.written.values())

    @property
    def complete(self) -> bool:
        """Whether all rules that read these records were brought into being."""
        return not self.refused


def ensure(
    records: Records,
    rules: Sequence[Rule | str] | None = None,
    *,
    max_repairs: int | None = None,
    new: bool = False,
    journal: bool = False,
    using: str | None = None,
) -> Ensured:
    """Bring into being what these records owe, inside the caller's transaction; to be called after a bulk write.

    records: one or several instances, or a queryset, where a bulk write has brought no keys back. Only their keys count: what is in the database is
        ensured. They must be saved.
    rules: rules, or their names; unless given, all rules of the project that read the records' model. A rule of another model, a counter of a parent
        for one, is led to its records through the foreign keys that it reads, and these are locked in the order of their keys.
    max_repairs: raises EnsureError, and nothing is written, if it would be more rows.
    new: the records were made in this transaction, so that nobody else can see them: a rule that needs a lock on a table needs none.
    journal: keep what is written as a run, `Ensured.run`: once your transaction is committed, `reconcile undo` takes it back. Costs an image of each row that is written.
    using: alias of the database; unless given, that of the records.

    Settle times are lifted for these records. Surplus rows are left to a run, which confirms each delete. Messages of `Enqueue` are
    sent when the transaction commits, one for each `batch=` of it. The number of statements is the same for one record as for 5,000.

    Raises UsageError outside of a transaction, or for named rules that can't be ensured; EnsureError where something is owed still, EvaluationError if the
    database doesn't answer. Whatever it raises, it has written nothing.
    """
    with evaluation_errors(using or DEFAULT_DB_ALIAS):
        given = Given.of(records, using, door="ensure")
    return ensure_given(
        given, rules, max_repairs=max_repairs, new=given.keys if new else None, journal=journal
    )


def ensure_given(
    given: Given,
    rules: Sequence[Rule | str] | None,
    *,
    max_repairs: int | None = None,
    new: Mapping[type[Model], Collection[Any]] | None = None,
    journal: bool = False,
) -> Ensured:
    """`ensure` for keys that are known. new: those of records that were made in this transaction."""
    if not in_transaction(given.using):
        raise UsageError(
            "ensure() writes inside the caller's transaction, and there is none: what was written in bulk would stand without it. Put both into one: "
            "with transaction.atomic(): …"
        )
    with evaluation_errors(given.using), transaction.atomic(using=given.using):
        return _Ensuring(given, rules, max_repairs=max_repairs, new=new, journal=journal).through()


@contextmanager
def ensuring(*parents: Records, using: str | None = None) -> Iterator[None]:
    """A transaction that begins by locking these parents, in the order of their keys: for a bulk write of their children, and `ensure`.

    On MariaDB and MySQL the foreign key of a new child locks its parent so that others may read it, and two importers that then want to count its
    children wait for each other: one of them is ended as a deadlock. With the parents locked first, one waits. On SQLite a transaction that has read before it
    writes fails at once where another has written meanwhile; this one says first that it will write. It is good on any database where several import for the same parents.

    parents: instances, lists of them or querysets. Raises UsageError for what is no saved record.
    """
    givens = [Given.of(each, using, door="ensuring") for each in parents]
    aliases = {each.using for each in givens} or {using or DEFAULT_DB_ALIAS}
    if len(aliases) > 1:
        raise UsageError(f"The parents are on several databases: {', '.join(sorted(aliases))}.")
    (alias,) = aliases
    keys: dict[type[Model], set[Any]] = {}
    for model, its in (pair for each in givens for pair in each.keys.items()):
        keys.setdefault(model, set()).update(its)
    with dialect_of(alias).writing_transaction():
        for model in sorted(keys, key=lambda each: each._meta.label):
            _lock_rows(model, [*keys[model]], alias)
        yield


def _lock_rows(model: type[Model], keys: Sequence[Any], using: str) -> None:
    """Lock the rows in the order of their keys, and wait for others that hold one. One statement for 5,000."""
    for block in blocks(sorted(keys)):
        rows = model._base_manager.using(using).filter(Keys(block).on("pk")).order_by("pk")
        dialect_of(using).lock_rows(rows.only("pk"))


aensure = sync_to_async(ensure)
"""`ensure`, to be awaited. Django's transactions are not: call it in a function that is wrapped whole by `sync_to_async` where there is one."""


class _Unkept:
    """A journal that keeps nothing. It counts as many rows as a remedy says that it writes."""

    def __init__(self) -> None:
        self._locked = 0

    def record_inserts(self, _: type[Model], rows: QuerySet[Any, Any], **__: Any) -> int:
        return rows.count()

    def insert_and_record(self, *_: Any) -> None:
        """It never does both at once, since it does but one."""

    def record_reinserts(self, _: type[Model], changes: QuerySet[Any, Any], **__: Any) -> int:
        return changes.count()

    def record_before(self, _: type[Model], __: Sequence[Any], keys: Keys, **___: Any) -> int:
        self._locked = len(keys.values)
        return self._locked

    def record_after(self, _: type[Model], __: Sequence[Any], **___: Any) -> int:
        return self._locked

    def record_deletes(self, _: type[Model], rows: QuerySet[Any, Any], **__: Any) -> int:
        return rows.count()

    def record_handover(self, _: str, __: type[Model], keys: Keys) -> int:
        return len(keys.values)


@dataclass(frozen=True, eq=False)
class _SameRules:
    """Rules as the key of what is worked out of them: the very same ones, which it keeps."""

    rules: Mapping[str, Rule]

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.rules.values())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameRules) and [*map(id, self.rules.values())] == [
            *map(id, other.rules.values())
        ]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is the same for each call with these rules. order: they themselves, with no settle time. leads: by rule and model, as they are asked for."""

    order: Order
    leads: dict[tuple[str, type[Model]], Lead] = field(default_factory=dict)


@lru_cache(maxsize=16)
def _plan_of(same: _SameRules, using: str) -> _Plan:
    rules = {name: replace(rule, settle=None) for name, rule in same.rules.items()}
    return _Plan(order=sort_rules(rules, using=using, now=timezone.now()))


class _Ensuring:
    """One call, from the records to what the last rule has written."""

    def __init__(
        self,
        given: Given,
        rules: Sequence[Rule | str] | None,
        *,
        max_repairs: int | None,
        new: Mapping[type[Model], Collection[Any]] | None,
        journal: bool,
    ) -> None:
        self.given, self.named, self.max_repairs = given, rules is not None, max_repairs
        self.new: dict[type[Model], set[Any]] = {
            concrete_model(model): {*keys} for model, keys in (new or {}).items()
        }
        self._left: dict[str, dict[Any, None]] = {}
        self.using, self.now = given.using, database_now(given.using)
        self.run = EnsuredRun(using=self.using, now=self.now) if journal else None
        found, self.refused = rules_of(rules, self.using, about={each._meta.label for each in given.keys})
        plan = _plan_of(_SameRules(found), self.using)
        self.order, self._leads = plan.order, plan.leads
        self.changed: dict[str, dict[type[Model], dict[Any, None]]] = {}
        self.locked: dict[type[Model], set[Any]] = {}
        self.written: dict[str, Written] = {}
        self.messages: list[tuple[str, Message]] = []
        self._followed: dict[Any, Sequence[Any]] = {}

    def through(self) -> Ensured:
        """Ensure each rule in the order in which they read what others write."""
        dialect_of(self.using).assert_isolation()
        for rule in self.order.rules:
            keys = self._led(rule)
            if keys and rule.name not in self.refused:
                self._ensure(rule, keys)
        if self.named:
            self._refuse_idle()
        if self.named and self.refused:
            raise UsageError("\n".join(f"{name}: {why}" for name, why in self.refused.items()))
        if self.run is not None:
            self.run.close()
        for name, message in self.messages:
            transaction.on_commit(partial(_send, name, message), using=self.using)
        return Ensured(
            written=self.written,
            messages=len(self.messages),
            refused=self.refused,
            run=None if self.run is None else self.run.id,
        )

    # Which records.

    def _led(self, rule: Rule) -> list[Any]:
        """The keys of the rule's records: those that the given records lead to, and what rules before it have written that it reads."""
        keys = self._led_from(rule, self.given.keys) | self._left.get(rule.name, {})
        for name, columns in self.order.waits_for[rule.name].items():
            models = {concrete_model(model) for model, _ in columns}
            written = {model: [*its] for model, its in self.changed.get(name, {}).items() if model in models}
            if name != rule.name:
                keys |= self._led_from(rule, written)
        return [*keys]

    def _led_from(self, rule: Rule, changed: Changed) -> dict[Any, None]:
        keys: dict[Any, None] = {}
        for model, its in changed.items():
            lead = self._lead(rule, model)
            if lead.refusal is not None:
                self.refused[rule.name] = lead.refusal.reason
            keys |= dict.fromkeys(self._lead_to(lead, model, its))
        return keys

    def _lead_to(self, lead: Lead, model: type[Model], keys: Sequence[Any]) -> Sequence[Any]:
        """The keys that the lead goes to; several rules go the same way, which is asked for once as long as its rows are the same."""
        way = (model, tuple(map(tuple, lead.ways)), tuple(keys))
        if way not in self._followed:
            self._followed[way] = lead.keys(keys, self.using)
        return self._followed[way]

    def _lead(self, rule: Rule, model: type[Model]) -> Lead:
        key = (rule.name, model)
        if key not in self._leads:
            self._leads[key] = lead_of(rule, model, using=self.using, now=self.now)
        return self._leads[key]

    def _refuse_idle(self) -> None:
        """Say of named rules that they read nothing of the records."""
        labels = ", ".join(each._meta.label for each in self.given.keys)
        for rule in self.order.rules:
            if not self.order.waits_for[rule.name] and not any(
                self._lead(rule, each).concerns for each in self.given.keys
            ):
                self.refused.setdefault(rule.name, f"It doesn't read {labels}.")

    # What is written.

    def _ensure(self, rule: Rule, keys: Sequence[Any]) -> None:
        compiled = rule.compile(using=self.using, now=self.now)
        compiled.refuse_wrong_answers()
        if why := self._why_not(compiled, keys):
            self.refused[rule.name] = why
            return
        self._lock(concrete_model(rule.model), keys)
        for finder in compiled.finders:
            remedy = rule.remedy(finder.drift)
            if not remedy.repairs or remedy.deletes:
                continue
            if finder.levels is not None:
                self._write_levels(compiled, finder, finder.levels, keys)
            else:
                self._write_all(compiled, finder, keys)

    def _write_all(self, compiled: CompiledRule, finder: Finder, keys: Sequence[Any]) -> None:
        remedy = compiled.rule.remedy(finder.drift)
        for block in blocks(keys, min(remedy.chunk or BLOCK, BLOCK)):
            for scope in finder.scopes_of(block):
                self._write(compiled, finder, remedy, scope)

    def _write_levels(
        self, compiled: CompiledRule, finder: Finder, levels: Levels, keys: Sequence[Any]
    ) -> None:
        """Write the records that are computed from none that drifts, then those that are computed from these, until none is left."""
        rule, left = compiled.rule, dict.fromkeys(keys)
        for _ in range(LEVELS):
            ready = [
                key
                for block in blocks([*left])
                for key in levels.ready(Keys(block)).values_list("pk", flat=True)
            ]
            if not ready:
                break
            self._refuse_circles(rule, levels, ready)
            self._write_all(compiled, finder, ready)
            below = self._led_from(rule, {concrete_model(rule.model): ready})
            self._lock(concrete_model(rule.model), [*below])
            left = {**left, **below}
            for key in ready:
                del left[key]
        for block in blocks([*left]):
            # Of a circle none is ever ready.
            if drifted := [*finder.keys(Keys(block))]:
                self._refuse_circles(rule, levels, drifted)
                raise EnsureError(
                    f"Rule {rule.name!r}: {finder.model._meta.label} {min(drifted, key=str)} is still {finder.drift}, {LEVELS:,} levels down."
                )

    def _refuse_circles(self, rule: Rule, levels: Levels, keys: Sequence[Any]) -> None:
        for key, circle in levels.circles(keys, Heights()).items():
            told = " → ".join(map(str, circle[:STEPS]))
            raise EnsureError(
                f"Rule {rule.name!r}: {rule.model_label} {key} is computed from itself, through {levels.path!r}: {told}. Break the circle."
            )

    def _why_not(self, compiled: CompiledRule, keys: Sequence[Any]) -> str:
        """Why the rule can't be ensured inside another's transaction; empty if it can. Records that are new to all need no lock."""
        rule = compiled.rule
        are_new = self.new.get(concrete_model(rule.model), set()).issuperset(keys)
        for finder in compiled.finders:
            if finder.lock.tables and not are_new:
                tables = ", ".join(each._meta.db_table for each in finder.lock.tables)
                return (
                    f"Rule {rule.name!r} needs a lock on {tables}, which no constraint keeps from having two rows alike. Where the records were made in this "
                    "transaction, ensure(…, new=True) needs none; else look(records) repairs it after COMMIT."
                )
        return ""

    def _lock(self, model: type[Model], keys: Sequence[Any]) -> None:
        """Lock the records in key order, and wait for others that hold one: what is counted next is counted for good. One statement."""
        wanted = [each for each in keys if each not in self.locked.setdefault(model, set())]
        _lock_rows(model, wanted, self.using)
        self.locked[model].update(wanted)

    def _write(self, compiled: CompiledRule, finder: Finder, remedy: Remedy, scope: Keys) -> None:
        if not scope.values:
            return
        rule = compiled.rule
        self._note_left(compiled, finder, scope)
        result = self._written_by(rule, finder, remedy, scope)
        if result.refused:
            key, why = next(iter(result.refused.items()))
            raise EnsureError(
                f"Rule {rule.name!r}: {finder.model._meta.label} {key} can't be repaired: {why}"
            )
        self._count(rule, finder, result)
        if result.written.total:
            self._note_written(compiled, finder, scope)
        self.messages += [(rule.name, each) for each in result.messages]
        self._verify(rule, finder, remedy, scope, result)

    def _note_left(self, compiled: CompiledRule, finder: Finder, scope: Keys) -> None:
        """Where a foreign key is about to be written, remember what the rows lead to now: rules that read it owe something to the record that is left, too."""
        rule, model = compiled.rule, concrete_model(finder.model_written)
        written = {name for each, name in rule.must.writes(rule.model) if concrete_model(each) is model}
        keys = {each.attname for each in model._meta.concrete_fields if referred_field(each) is not None}
        if isinstance(finder.fix, Insertion) or not written & keys:
            return
        rows = [*_rows_of(compiled, finder, scope)]
        for later in self.order.rules:
            if rule.name in self.order.waits_for[later.name] and later.name != rule.name:
                self._left.setdefault(later.name, {}).update(self._led_from(later, {model: rows}))
        # What these keys lead to now they won't when they are written.
        self._followed.clear()

    def _written_by(self, rule: Rule, finder: Finder, remedy: Remedy, scope: Keys) -> WriteResult:
        """What the remedy writes. Where another session holds rows that it needs, they are waited for, and it writes again."""
        journal = self._journal(rule, finder, scope)
        result = remedy.write(finder, scope, journal)
        if not (result.waiting or result.waiting_rows):
            return result
        for model, keys in _needed(finder, scope):
            _lock_rows(model, keys, self.using)
        again = remedy.write(finder, scope, self._journal(rule, finder, scope))
        return replace(
            again, written=result.written + again.written, messages=[*result.messages, *again.messages]
        )

    def _journal(self, rule: Rule, finder: Finder, scope: Keys) -> Any:
        """A journal for one write. One that is kept is begun only where there is something to write: one statement that asks."""
        if self.run is None or not (drifted := finder.keys(scope)):
            return _Unkept()
        return self.run.journal(rule, finder.drift, drifted)

    def _count(self, rule: Rule, finder: Finder, result: WriteResult) -> None:
        if result.written.total:
            self.written[rule.name] = self.written.get(rule.name, Written()) + result.written
            if self.run is not None:
                self.run.count(rule, finder.drift, result.written)
        total = sum(each.total for each in self.written.values())
        if self.max_repairs is not None and total > self.max_repairs:
            raise EnsureError(
                f"More than max_repairs={self.max_repairs:,} rows are owed ({total:,} with rule {rule.name!r}); nothing was written."
            )

    def _note_written(self, compiled: CompiledRule, finder: Finder, scope: Keys) -> None:
        """Remember the rows that were written, if another rule reads them."""
        model, name = concrete_model(finder.model_written), compiled.rule.name
        later = [columns.get(name, ()) for other, columns in self.order.waits_for.items() if other != name]
        if any(concrete_model(each) is model for columns in later for each, _ in columns):
            rows = dict.fromkeys(_rows_of(compiled, finder, scope))
            if isinstance(finder.fix, Insertion):
                self.new.setdefault(model, set()).update(rows)
            self.changed.setdefault(name, {}).setdefault(model, {}).update(rows)

    def _verify(self, rule: Rule, finder: Finder, remedy: Remedy, scope: Keys, result: WriteResult) -> None:
        """None of the records may drift now. One statement, or none."""
        if result.verified or (remedy.deferred and not result.promised):
            return
        if left := finder.keys(scope):
            raise EnsureError(
                f"Rule {rule.name!r}: {finder.model._meta.label} {min(left, key=str)} is still {finder.drift} after what was written for it; does something in the "
                "database change what is written?"
            )


def _rows_of(compiled: CompiledRule, finder: Finder, scope: Keys) -> Sequence[Any]:
    """The keys of the rows that belong to the records: themselves, or those that are linked with them. One statement, or none."""
    if concrete_model(finder.model_written) is concrete_model(finder.model):
        return scope.values
    fixes = [each.fix for each in compiled.finders if isinstance(each.fix, Insertion | Derivation)]
    return [*fixes[0].present(scope).values_list("pk", flat=True)] if fixes else []


def _needed(finder: Finder, scope: Keys) -> Iterator[tuple[type[Model], Sequence[Any]]]:
    """The rows that a remedy writes for the records, by model."""
    fix: Any = finder.fix
    if isinstance(fix, Correction):
        yield fix.model, [*fix.wanted(scope).values_list("pk", flat=True)]
    yield finder.model, scope.values


def _send(rule: str, message: Message) -> None:
    """Send a message once the transaction is committed; one that can't be sent is owed again. Raises nothing: the caller's own callbacks come after it."""
    try:
        message.send()
        note, said = message.done, "message_not_noted"
    except Exception as error:  # noqa: BLE001 - what is committed stands, whatever a broker says
        log.warning("message_not_sent", rule=rule, what=message.what, error=with_type(error))
        note, said = message.failed, "message_not_taken_back"
    try:
        note()
    except Exception as error:  # noqa: BLE001 - its promise expires
        log.warning(said, rule=rule, what=message.what, error=with_type(error))
