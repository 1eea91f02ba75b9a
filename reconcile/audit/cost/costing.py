"""What saves, deletes and links cost, model by model: of existing rows, and of new records that factories of rules make. All is rolled back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from django.db import connections, router, transaction
from django.db.models import DO_NOTHING, Model, ProtectedError, RestrictedError

from reconcile.audit.capture.capturing import kept_to
from reconcile.audit.chosen import MOST_ROWS, choose_rows
from reconcile.audit.cost.causes import effects_by_code
from reconcile.audit.cost.classes import CostClass, Sample, classes_in, features_of
from reconcile.audit.cost.counting import Count, Counted, beyond, count, seconds_of
from reconcile.audit.effects import Effect, On, audited_models, effects_of
from reconcile.audit.muting import muted, save_muted
from reconcile.audit.parity.records import Linked, from_factory
from reconcile.audit.rolling_back import CommittedError, rolled_back
from reconcile.audit.shut import Outside, shut_outside
from reconcile.conf import lock_wait
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import connect, deletes_unread, many_to_many_owner
from reconcile.errors import EvaluationError, UsageError, with_type
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.rule import Rule

__all__ = ["ActCost", "CostAudit", "ModelCost", "Together", "cost_of_models", "cost_of_new"]

CREATED, SAVED, DELETED, LINKED = "created", "saved again", "deleted", "linked"
ACTS = (CREATED, SAVED, DELETED, LINKED)
DELETES = frozenset({On.PRE_DELETE, On.POST_DELETE})


@dataclass(kw_only=True)
class ActCost:
    """What one act on records of a model costs. samples: a record each. faults: by record, why it could not be counted.

    protected: records that other rows keep from being deleted, so that there is no delete to count.
    """

    samples: list[Sample] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    protected: int = 0

    @property
    def classes(self) -> list[CostClass]:
        """The classes of records that cost alike, the dearest first."""
        return classes_in(self.samples)

    @property
    def dearest(self) -> Counted | None:
        """Of the samples the one that costs most; None if there is none."""
        return max((each.counted for each in self.samples), key=lambda each: each.k, default=None)

    @property
    def seconds(self) -> float | None:
        """How long one act takes on average, with its effects; None if that wasn't measured."""
        known = [each.counted.seconds for each in self.samples if each.counted.seconds is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True, kw_only=True)
class Together:
    """A queryset's delete() of several rows. statements: with all effects. without: in silence."""

    rows: int
    statements: int
    without: int


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """What signals cost one model. acts: by `created`, `saved again`, `deleted`, `linked`, those that were counted.

    slows_deletes: receivers for whose sake alone Django reads the rows that a queryset deletes, where one statement would do. referring: models whose rows refer to its
    own, so that Django reads them in any case; empty if no receiver hears of its deletes. together: such a delete, if deletes were counted. why: why nothing
    was counted; empty if something was. is_unreadable: its rows could not be read.
    """

    model: type[Model]
    acts: Mapping[str, ActCost]
    slows_deletes: Sequence[Effect] = ()
    referring: Sequence[str] = ()
    together: Together | None = None
    why: str = ""
    is_unreadable: bool = False

    @property
    def is_counted(self) -> bool:
        """Whether any act was counted."""
        return any(each.samples for each in self.acts.values())

    @property
    def faults(self) -> int:
        """Records that could not be counted."""
        return sum(len(each.faults) for each in self.acts.values())

    @property
    def dearest_act(self) -> str | None:
        """`created` or `saved again`, whichever costs more, and `created` if both cost the same; None if none was counted."""
        counted = {
            name: one.k for name in (CREATED, SAVED) if name in self.acts and (one := self.acts[name].dearest)
        }
        return max(counted, key=counted.__getitem__, default=None)

    @property
    def dearest(self) -> Counted | None:
        """Of its saves the one whose effects cost most; None if none was counted."""
        act = self.dearest_act
        return self.acts[act].dearest if act else None

    @property
    def k(self) -> int:
        """The most that one save of its records costs beyond its own statement."""
        return self.dearest.k if self.dearest is not None else 0

    @property
    def seconds(self) -> float | None:
        """How long one save takes on average, without COMMIT; of new records, if there were any."""
        return next((self.acts[name].seconds for name in (CREATED, SAVED) if name in self.acts), None)


@dataclass(frozen=True, kw_only=True)
class CostAudit:
    """The models, the dearest first. deletes: deletes were counted, too. outside: what was kept from the world. faults: of factories, by their names."""

    models: Sequence[ModelCost]
    deletes: bool = False
    outside: Outside = field(default_factory=Outside)
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """`error` if a record could not be counted, `empty` if none was there, or `counted`."""
        if self.faults or any(each.faults or each.is_unreadable for each in self.models):
            return "error"
        return "counted" if any(each.is_counted for each in self.models) else "empty"


def cost_of_models(
    rules: Mapping[str, Rule], models: Sequence[type[Model]] | None, *, using: str, deletes: bool
) -> CostAudit:
    """Count what the effects of models cost; unless they are given, of all that have effects of the project's own.

    Up to 20 existing rows of each model are saved again, and what the factories of rules make is saved and linked; with `deletes`, both are deleted, too. Each
    is done four times, and each is rolled back: to warm up, to take the time, to count, and in silence. Callbacks of COMMIT are not run.

    Raises EvaluationError where a table has no transactions, CommittedError where project code has ended one.
    """
    connection = connections[using]
    with connection.wrap_database_errors:
        connect(connection)
    loose = dialect_of(using).tables_without_transactions()
    if loose or not connection.features.supports_transactions:
        named = f": {', '.join(loose)}" if loose else ""
        raise EvaluationError(
            f"What is written to the database {using!r} could not be rolled back: it has tables without transactions{named}."
        )
    costing = _Costing(using, deletes=deletes)
    with dialect_of(using).limit_lock_waits(lock_wait(), lambda: None):
        costing.make(
            {name: each for name, each in rules.items() if not isinstance(each, InvalidRule)}, models
        )
        found = [
            costing.of(each) for each in models or [each for each in audited_models() if _own_effects(each)]
        ]
    found.sort(key=lambda each: (-each.k, each.model._meta.label))
    return CostAudit(models=found, deletes=deletes, outside=costing.outside, faults=costing.faults)


def _own_effects(model: type[Model]) -> list[Effect]:
    return [each for each in effects_of(model) if not each.third_party]


def cost_of_new(make: Callable[[], Model], *, using: str) -> Counted:
    """What saving the record costs that `make` makes, unsaved or not, beyond its own statements. Raises what the save raises. All is rolled back."""
    costing = _Costing(using, deletes=False, is_shut=False)
    return costing.counted(
        lambda: partial(save_muted, make(), using=using),
        lambda: partial(make().save, using=using),
        "The save",
    )


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One act on one record that a factory has made, and what was done with it."""

    model: type[Model]
    key: str
    features: Mapping[str, Any]
    gave: Any

    @classmethod
    def of(cls, row: Model, place: int, gave: Any) -> _Step:
        """The step, with the features that the record has by now: foreign keys are known once it is saved."""
        key = f"{row._meta.label} {place + 1} of the factory"
        return cls(model=type(row), key=key, features=features_of(row), gave=gave)


class _Costing:
    """Counts on one database."""

    def __init__(self, using: str, *, deletes: bool, is_shut: bool = True) -> None:
        self.using, self.deletes = using, deletes
        self.outside = Outside(is_shut=is_shut)
        self.effects = effects_by_code()
        self.faults: dict[str, str] = {}
        self.unreadable: set[type[Model]] = set()
        self.acts: dict[type[Model], dict[str, ActCost]] = {}

    # New records.

    def make(self, rules: Mapping[str, Rule], models: Sequence[type[Model]] | None) -> None:
        """Save what the factories of the rules make, each factory once."""
        factories = {each.factory: name for name, each in rules.items() if each.factory}
        for factory, name in factories.items():
            try:
                self._made_by(factory, models)
            except CommittedError:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the project's code
                self.faults[f"the factory of {name}"] = with_type(error)

    def _made_by(self, factory: Any, models: Sequence[type[Model]] | None) -> None:
        """Save all that the factory makes three times; what is at the same place is the same record."""
        self._pass_over(factory, lambda _, act: act())
        seconds = self._pass_over(factory, lambda _, act: seconds_of(act))
        counted = self._pass_over(factory, self._both)
        if seconds.keys() != counted.keys():
            raise UsageError("It does not make the same records each time, so that they can't be compared.")
        for place, step in counted.items():
            if models is None or step.model in models:
                loud, without = step.gave
                cost = beyond(loud, without, seconds[place].gave)
                sample = Sample(key=step.key, features=step.features, counted=cost)
                self._act(step.model, place[1]).samples.append(sample)

    def _both(self, silent: Callable[[], Any], loud: Callable[[], Any]) -> tuple[Count, Count]:
        """Count the act with its effects, and right before, from the same state, in silence."""
        with transaction.atomic(self.using):
            without = count(silent, self.effects, self.using)
            transaction.set_rollback(True, using=self.using)
        return count(loud, self.effects, self.using), without

    def _pass_over(self, factory: Any, do: Callable[[Any, Any], Any]) -> dict[tuple[int, str], _Step]:
        """Do something with each act on what the factory makes: in silence, and with its effects. Returns what it gave, by place and act."""
        found: dict[tuple[int, str], _Step] = {}
        with self._kept("What a factory makes"):
            made = from_factory(factory)
            for place, each in enumerate(made):
                row, act, silent, loud = self._act_of(each)
                found[place, act] = _Step.of(row, place, do(silent, loud))
            for place, each in reversed([*enumerate(made)] if self.deletes else []):
                if isinstance(each, Model):
                    step = _Step.of(each, place, None)
                    found[place, DELETED] = replace(step, gave=do(*self._deleting(each)))
        return found

    def _act_of(self, each: Model | Linked) -> tuple[Model, str, Callable[[], Any], Callable[[], Any]]:
        if isinstance(each, Model):
            return each, CREATED, *self._saving(each)
        link = partial(getattr(each.row, each.name).add, *each.others)
        return each.row, LINKED, partial(_in_silence, link), link

    # Existing rows.

    def of(self, model: type[Model]) -> ModelCost:
        """The costs of one model: of what factories made, and of its existing rows."""
        why, together = self._existing(model)
        acts = self.acts.get(model, {})
        heard_by = [each for each in effects_of(model) if each.on in DELETES]
        is_lost = not deletes_unread(model, self.using) and _deletes_unread_in_silence(model, self.using)
        return ModelCost(
            model=model,
            acts={name: acts[name] for name in ACTS if name in acts},
            slows_deletes=heard_by if is_lost else (),
            referring=_referring(model) if heard_by and not is_lost else (),
            together=together,
            why=why,
            is_unreadable=model in self.unreadable,
        )

    def _existing(self, model: type[Model]) -> tuple[str, Together | None]:
        """Save existing rows again, and delete them if that is wanted. Returns why none was, and what they cost together."""
        home = router.db_for_write(model)
        if home != self.using:
            return f"its rows are in the database {home}: --database {home}", None
        if many_to_many_owner(model) is not None:
            return "", None
        try:
            rows = choose_rows(model, self.using, at_least=MOST_ROWS).rows
        except Exception as error:  # noqa: BLE001 - a field may make anything of what stands in its column
            self.unreadable.add(model)
            return f"its rows can't be read: {with_type(error)}", None
        for row in rows:
            self._sample(model, SAVED, row, self._saving)
            if self.deletes:
                self._sample(model, DELETED, row, self._deleting)
        if not rows and not self.acts.get(model):
            return "it has no rows, and no rule has a factory for it", None
        return "", self._together(model, rows) if rows and self.deletes else None

    def _together(self, model: type[Model], rows: Sequence[Model]) -> Together | None:
        """Delete the rows by a queryset. None if one of them could not be deleted by itself."""
        deleted = self._act(model, DELETED)
        if deleted.faults or deleted.protected:
            return None
        chosen = model._base_manager.using(self.using).filter(pk__in=[each.pk for each in rows])
        what = f"delete() of {len(rows)} rows of {model._meta.label}"
        try:
            cost = self.counted(lambda: partial(_in_silence, chosen.delete), lambda: chosen.delete, what)
        except CommittedError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the project's code
            deleted.faults[what] = with_type(error)
            return None
        return Together(rows=len(rows), statements=cost.own + cost.k, without=cost.own)

    def _sample(self, model: type[Model], act: str, row: Model, acts_on: Callable[[Model], Any]) -> None:
        found = self._act(model, act)
        key = f"{row._meta.label} {row.pk}"
        try:
            counted = self.counted(
                lambda: acts_on(deepcopy(row))[0],
                lambda: acts_on(deepcopy(row))[1],
                f"What was done to {key}",
            )
        except CommittedError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the project's code
            if act == DELETED and isinstance(error, ProtectedError | RestrictedError):
                found.protected += 1
            else:
                found.faults[f"{key} {act}"] = with_type(error)
        else:
            found.samples.append(Sample(key=key, features=features_of(row), counted=counted))

    def _saving(self, row: Model) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Saving the row in silence, which leaves the instance as it is, and with its effects."""
        return lambda: save_muted(deepcopy(row), using=self.using), partial(row.save, using=self.using)

    def _deleting(self, row: Model) -> tuple[Callable[[], Any], Callable[[], Any]]:
        silent = lambda: _in_silence(partial(Model.delete, deepcopy(row), using=self.using))  # noqa: E731
        return silent, partial(row.delete, using=self.using)

    # One act.

    def counted(self, silent: Callable[[], Any], loud: Callable[[], Any], what: str) -> Counted:
        """What an act costs. silent, loud: make it anew, without its effects and with them."""

        def rolled(do: Callable[[Any], Any], make: Callable[[], Any]) -> Any:
            with self._kept(what):
                return do(make())

        counting = partial(count, effects=self.effects, using=self.using)
        rolled(lambda act: act(), loud)
        seconds = rolled(seconds_of, loud)
        return beyond(rolled(counting, loud), rolled(counting, silent), seconds)

    @contextmanager
    def _kept(self, what: str) -> Iterator[None]:
        with rolled_back(self.using, what):
            with shut_outside(self.using, self.outside), kept_to(self.using):
                yield
            # A constraint may wait for COMMIT, which never comes.
            dialect_of(self.using).check_references()

    def _act(self, model: type[Model], name: str) -> ActCost:
        return self.acts.setdefault(model, {}).setdefault(name, ActCost())


def _in_silence(act: Callable[[], Any]) -> Any:
    with muted():
        return act()


def _deletes_unread_in_silence(model: type[Model], using: str) -> bool:
    """Whether a queryset's delete() would be one statement if there were no receivers."""
    with muted():
        return deletes_unread(model, using)


def _referring(model: type[Model]) -> Sequence[str]:
    """The models whose rows refer to those of this one, so that Django reads these before they go."""
    relations: list[Any] = [
        each for each in model._meta.get_fields(include_hidden=True) if each.one_to_many or each.one_to_one
    ]
    found = [
        (each, getattr(each, "on_delete", DO_NOTHING))
        for each in relations
        if each.auto_created and not each.concrete
    ]
    return sorted(
        {
            each.related_model._meta.label
            for each, on_delete in found
            if on_delete is not DO_NOTHING and not str(getattr(on_delete, "__name__", "")).startswith("DB_")
        }
    )
