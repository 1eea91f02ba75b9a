"""What the effects of models really do: existing rows are saved as they are, watched, and rolled back one by one.

Nothing that a rollback doesn't undo is let out (`shut`), callbacks of COMMIT are counted and dropped, and nothing is deleted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import cache
from types import CodeType, FrameType
from typing import Any

from django.db import connections, router
from django.db.models import Model
from django.dispatch import Signal

from reconcile.audit.called import noting_calls
from reconcile.audit.chosen import choose_rows
from reconcile.audit.effects import OF_SAVES, Effect, effects_of
from reconcile.audit.listing import ModelSignals, SignalsAudit, code_of
from reconcile.audit.ran import EffectRun, ModelRun, SeenWrite
from reconcile.audit.raw_sql import TableWrite, is_writing, writes_of
from reconcile.audit.resolver.relations import Registry
from reconcile.audit.rolling_back import CommittedError, rolled_back
from reconcile.audit.shut import shut_outside
from reconcile.conf import lock_wait
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import connect, hooks_on_commit
from reconcile.errors import EvaluationError

__all__ = ["run_saves"]


def run_saves(audit: SignalsAudit, using: str) -> SignalsAudit:
    """Save rows of each model that a save sets anything off for, each in a transaction that is rolled back, and note what their effects do.

    Locks each row for as long as its save takes. Raises EvaluationError where a table has no transactions, CommittedError where project code
    has ended one.
    """
    connection = connections[using]
    with connection.wrap_database_errors:
        connect(connection)
    loose = dialect_of(using).tables_without_transactions()
    if loose or not connection.features.supports_transactions:
        named = f": {', '.join(loose)}" if loose else ""
        raise EvaluationError(
            f"What is written to the database {using!r} could not be rolled back: it has tables without transactions{named}. Run it on a copy whose tables have them."
        )
    registry = Registry()
    effects = (each for model in registry.models for each in effects_of(model))
    names = {code: each.name for each in effects if (code := code_of(each.function)) is not None}
    with dialect_of(using).limit_lock_waits(lock_wait(), lambda: None):
        models = [_run_model(each, registry, names, using) for each in audit.models]
    return replace(audit, is_run=True, models=models)


def _run_model(
    found: ModelSignals, registry: Registry, names: Mapping[CodeType, str], using: str
) -> ModelSignals:
    effects = [each.effect for each in found.effects if each.effect.on in OF_SAVES]
    if not effects:
        return found
    run = ModelRun(effects={(each.name, each.on): EffectRun() for each in effects})
    home = router.db_for_write(found.model)
    if home != using:
        run.why = f"its rows are in the database {home}: --database {home}"
        return replace(found, run=run)
    try:
        chosen = choose_rows(found.model, using)
    except Exception as error:  # noqa: BLE001 - a field may make anything of what stands in its column
        run.why, run.is_unreadable = f"{type(error).__name__}: {error}".strip(), True
        return replace(found, run=run)
    run.looked_at = chosen.looked_at
    watch = _Watch(run, effects, registry, names, using)
    for row in chosen.rows:
        watch.save(row)
    return replace(found, run=run)


# One save.


class _Watch:
    """Saves rows of one model and notes what their effects do."""

    def __init__(
        self, run: ModelRun, effects: Sequence[Effect], registry: Registry, names: Mapping[CodeType, str], using: str
    ) -> None:  # fmt: skip
        self.run = run
        self.registry = registry
        self.names = names
        self.using = using
        self.vendor = connections[using].vendor
        self.of_code: dict[CodeType, list[EffectRun]] = {}
        for each in effects:
            if (code := code_of(each.function)) is not None:
                self.of_code.setdefault(code, []).append(run.effects[each.name, each.on])
        self.awaited = [run.effects[each.name, each.on] for each in effects if each.is_async]
        self._ran: set[CodeType] = set()
        self._row: Model | None = None

    def save(self, row: Model) -> None:
        """Save the row as it is, and roll that back."""
        self._row, self._ran = row, set()
        before = {each.attname: deepcopy(getattr(row, each.attname)) for each in row._meta.concrete_fields}
        key = row.pk
        try:
            with rolled_back(self.using, f"The save of {row._meta.label} {row.pk}"):
                self._saved(row)
            self.run.rows += 1
            for name, value in before.items():
                self.run.changed[name] += _differs(getattr(row, name), value)
        except (Exception, SystemExit) as error:
            self.run.faults[key] = f"{type(error).__name__}: {error}"
            if isinstance(error, CommittedError):
                raise
        for each in {id(one): one for code in self._ran for one in self.of_code[code]}.values():
            each.rows += 1

    def _saved(self, row: Model) -> None:
        hooks = len(hooks_on_commit(self.using))
        with shut_outside(self.using, self.run.outside), self._watching():
            row.save()
        # A constraint may wait for COMMIT, which never comes.
        dialect_of(self.using).check_references()
        self.run.on_commit += len(hooks_on_commit(self.using)) - hooks

    @contextmanager
    def _watching(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(noting_calls(self.of_code, self._ran.add))
            stack.enter_context(connections[self.using].execute_wrapper(self._executed))
            yield

    def _executed(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any  # noqa: FBT001
    ) -> Any:  # fmt: skip
        result = execute(sql, params, many, context)
        if is_writing(str(sql)):
            self._note(str(sql), inspect.currentframe())
        return result

    def _note(self, sql: str, frame: FrameType | None) -> None:
        owners, through = self._chain(frame)
        if owners is None:
            return
        for each in _writes_of(sql, self.vendor):
            model = self.registry.model_of_table(each.table)
            label = model._meta.label if model is not None else each.table
            write = SeenWrite(model=label, how=str(each.verb), through=through)
            for counter in [one.writes for one in owners] or [self.run.others]:
                counter[write] += 1

    def _chain(self, frame: FrameType | None) -> tuple[list[EffectRun] | None, tuple[str, ...]]:
        """The effects of the record's own save in which a statement was executed, and those between, nearest first; None for the save's own."""
        between: list[CodeType] = []
        is_sent = False
        while frame is not None:
            code = frame.f_code
            if code in self.names:
                between.append(code)
            elif code is _SEND:
                is_sent = True
            elif code is _SAVE and frame.f_locals.get("self") is self._row:
                # What the save itself writes comes from none of its effects.
                break
            frame = frame.f_back
        else:
            return self._outermost(between)
        if between:
            return self._outermost(between)
        # A receiver that is awaited runs in another thread, whose frames are not among these.
        return (self.awaited, ()) if is_sent and self.awaited else (None, ())

    def _outermost(self, between: Sequence[CodeType]) -> tuple[list[EffectRun] | None, tuple[str, ...]]:
        if not between:
            return [], ()
        *inner, outer = between
        return self.of_code.get(outer, []), tuple(self.names[each] for each in reversed(inner))


def _differs(one: Any, other: Any) -> bool:
    """Whether they are two values, of whatever kind: some give no truth when they are compared."""
    try:
        return bool(one != other)
    except Exception:  # noqa: BLE001
        return repr(one) != repr(other)


_SEND = Signal.send.__code__
_SAVE = Model.save_base.__code__


@cache
def _writes_of(sql: str, vendor: str) -> list[TableWrite]:
    return writes_of(sql, vendor) or []
