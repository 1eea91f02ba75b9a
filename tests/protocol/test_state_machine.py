"""Random schedules: writes by signals and past them, repairs, deletes, kills, take-overs, resumes and undos, in any order.

After each step the journal must be just what the step has changed, the counts must be those of the journal, and no
record may have two rows that nobody has given it. `SCHEDULES=200 STEPS=40` in the environment tries more of them, and longer ones.
"""

import os
import random
from collections import Counter, defaultdict
from contextlib import contextmanager

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reconcile import EXTRA, MISSING, STALE, Delete, Insert, Rule, Update, runs
from reconcile.core.verbs import INSERT, UPDATE
from reconcile.db.images import image
from reconcile.errors import UsageError
from reconcile.models import Change, Chunk, Finding, Outcome, Run, WorkItem, WrittenRows
from reconcile.repair.caps import Caps
from reconcile.repair.fault_injection import Step, listen
from reconcile.runs import written_rows
from sample_project.shop.models import Item, Notification
from tests.helpers import an_hour_ago, checked, examples, raw_rows
from tests.protocol.killing import NEVER_REACHED, forked, kill, killed_at
from tests.protocol.traffic import Clearance, League, Market, Shop

SCHEDULES = settings(
    max_examples=int(os.environ.get("SCHEDULES", examples(6))),
    stateful_step_count=int(os.environ.get("STEPS", "12")),
    deadline=None,
    print_blob=True,
    phases=[Phase.reuse, Phase.generate],
    suppress_health_check=[*HealthCheck],
)

CHUNK = 3

chances = st.integers(0, 2**32).map(random.Random)
places = st.lists(st.integers(0, 40), min_size=1, max_size=6)
steps = st.sampled_from([*Step])
times = st.integers(1, 3)

KEPT = (WrittenRows, Finding, Change, Chunk, WorkItem, Outcome, Run)
WRITES = ["load", "make", "reprice", "lose", "change", "attend", "remove", "double", "orphan"]


class FewInserts(Insert):
    chunk = CHUNK


class FewUpdates(Update):
    chunk = CHUNK


class FewDeletes(Delete):
    chunk = CHUNK


class Schedule(RuleBasedStateMachine):
    """What happens to the records of one trade. A subclass says of which.

    killed: the run whose worker was killed, if it was not resumed or taken over since. last: the last run that has
    written, with the rows as they were before it. quiet: nobody has written since that run began. drifting: there
    may be something to repair. doubled: records that were given a second row, where the trade has it.
    """

    trade = None

    @initialize()
    def begin(self):
        # InnoDB checks row by row that no run is undone by one that is still there.
        Run.objects.update(undoes=None)
        for model in (Item, Notification, self.trade.child, self.trade.parent, *KEPT):
            model._base_manager.all()._raw_delete("default")
        remedies = {MISSING: FewInserts(), STALE: FewUpdates()}
        if self.trade.clears:
            remedies[EXTRA] = FewDeletes()
        self.rule = Rule(
            name=self.trade.rule.name, every=self.trade.rule.every, must=self.trade.rule.must, remedies=remedies,
            max_deletes=1_000, covers=self.trade.rule.covers,
        )  # fmt: skip
        self.rules = {self.rule.name: self.rule}
        self.killed = self.last = None
        self.doubled = set()
        self.quiet, self.drifting = False, True
        self.trade.load(7, random.Random(1))

    # What is written

    @contextmanager
    def writing(self):
        with self.replayed(), transaction.atomic():
            yield
        self.quiet, self.drifting = False, True

    def some(self, places):
        keys = self.trade.listed()
        return sorted({keys[place % len(keys)] for place in places}) if keys else []

    @rule(act=st.sampled_from(WRITES), places=places, chance=chances)
    def write(self, act, places, chance):
        with self.writing():
            self.act(act, self.some(places), chance)

    def act(self, act, keys, chance):
        trade, records = self.trade, self.trade.parent._base_manager.filter(pk__in=keys)
        acts = {
            "load": lambda: trade.load(2 * len(keys) + 1, chance),
            "make": lambda: trade.make(chance),
            "reprice": lambda: trade.reprice(keys, chance),
            "lose": lambda: trade.lose(keys),
            "change": lambda: [trade.change(record, chance) for record in records],
            "attend": lambda: [trade.attend(key, chance) for key in keys],
            "remove": lambda: [trade.remove(record) for record in records[:2]],
            "double": lambda: self.doubled.update(trade.double(keys)),
            "orphan": lambda: trade.orphan(keys[:2]),
        }
        acts[act]()

    # What is repaired

    def agree(self):
        """What is to be deleted has to be found by two runs: the first writes nothing here, since its cap is nothing."""
        if self.trade.clears:
            with self.replayed():
                (result,) = runs.repair(self.rules, using="default", caps=Caps(max_repairs=0))[1]
            assert (result.error, result.written.total) == (None, 0)

    @precondition(lambda self: self.drifting)
    @rule()
    def repair(self):
        self.agree()
        before = raw_rows(self.trade.child)
        (previewed,) = self.previewed()
        with self.replayed():
            run, (result,) = runs.repair(self.rules, using="default")
        if result.lease_held:
            assert self.killed is not None
            assert result.written.total == 0
            return
        assert (result.error, result.left, result.why_stopped) == (None, 0, "")
        self.assert_planned(result.written, previewed.planned)
        self.assert_mended()
        if result.written.total:
            self.last, self.quiet = (run.pk, before), True
        if previewed.planned.total:
            # Where there is nothing to repair, nobody needs the rule, and nothing is taken over.
            self.killed = None
        self.drifting = False

    @precondition(lambda self: self.drifting and self.killed is None)
    @rule(step=steps, time=times)
    def kill_a_repair(self, step, time):
        self.agree()
        before = raw_rows(self.trade.child)
        (previewed,) = self.previewed()
        if not previewed.planned.total:
            return
        with self.replayed():
            died = self.until(step, time, lambda: runs.repair(self.rules, using="default"))
        run = Run.objects.latest("started_at")
        self.last, self.quiet = (run.pk, before), True
        if died:
            self.killed = run.pk
        else:
            self.assert_mended()

    @precondition(lambda self: self.killed is not None)
    @rule()
    def let_the_lease_run_out(self):
        WorkItem.objects.update(heartbeat=an_hour_ago())

    @precondition(lambda self: self.killed is not None)
    @rule(step=steps, time=times)
    def kill_it_again(self, step, time):
        run = Run.objects.get(pk=self.killed)
        with self.replayed():
            died = self.until(step, time, lambda: runs.resume(run, self.rules, using="default"))
        if not died:
            self.resumed([])

    @precondition(lambda self: self.killed is not None)
    @rule()
    def resume(self):
        run = Run.objects.get(pk=self.killed)
        with self.replayed():
            results = runs.resume(run, self.rules, using="default")
        self.resumed(results)

    def resumed(self, results):
        run = Run.objects.get(pk=self.killed)
        assert run.state == Run.State.FINISHED
        assert {result.error for result in results} <= {None}
        if self.quiet:
            assert {result.left for result in results} <= {0}
        if run.kind == Run.Kind.UNDO:
            self.undone()
        elif self.quiet:
            self.assert_mended()
        self.killed = None

    def last_that_wrote(self):
        """The last run; None where it has written nothing: others mended what it was killed at, and there is nothing to undo."""
        run = Run.objects.get(pk=self.last[0])
        if Change.objects.filter(work_item__outcome__run=run).exists():
            return run
        with pytest.raises(UsageError, match="has written no rows"):
            runs.undo(run, using="default")
        self.last = None
        return None

    @precondition(lambda self: self.last is not None and self.killed is None)
    @rule()
    def undo(self):
        if (run := self.last_that_wrote()) is None:
            return
        with self.replayed():
            _, results = runs.undo(run, using="default")
        if self.quiet:
            assert [(each.left, each.conflicts) for each in results] == [(0, ())]
        self.undone()

    @precondition(lambda self: self.last is not None and self.killed is None)
    @rule(step=steps, time=times)
    def kill_an_undo(self, step, time):
        if (run := self.last_that_wrote()) is None:
            return
        with self.replayed():
            died = self.until(step, time, lambda: runs.undo(run, using="default"))
        if died:
            self.killed = Run.objects.latest("started_at").pk
        else:
            self.undone()

    def undone(self):
        """Where nobody has written since the repair began, the rows are what they were before it."""
        if self.quiet:
            assert raw_rows(self.trade.child) == self.last[1]
        self.last, self.drifting = None, True

    # What must be true

    def previewed(self):
        with self.replayed():
            return runs.preview(self.rules, using="default", now=timezone.now())

    def assert_planned(self, written, planned):
        """Written is what was planned; of a record with two stale rows, one of which is deleted then, both are updated."""
        assert (written.insert, written.delete) == (planned.insert, planned.delete)
        assert planned.update <= written.update <= planned.update + planned.delete

    def until(self, step, time, act):
        """Do `act` in another process, which is killed when it reaches the step for the `time`-th time; whether it was."""
        reached = []

        def listener(at):
            if at is step:
                reached.append(at)
            if len(reached) == time:
                kill(os.getpid())

        def acting():
            with listen(listener):
                act()

        with forked(acting) as child:
            _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == NEVER_REACHED
        return os.WIFSIGNALED(status)

    def assert_mended(self):
        """Nothing drifts, by the rule and by a count of one's own, and another repair writes nothing."""
        assert checked(self.rule).tally.total == 0
        assert self.trade.wrong() == {}
        assert runs.repair(self.rules, using="default")[1][0].written.total == 0

    def images(self):
        fields = self.trade.child._meta.concrete_fields
        rows = self.trade.child._base_manager.annotate(_image=image(fields))
        return {str(key): made for key, made in rows.values_list("pk", "_image")}

    @contextmanager
    def replayed(self):
        """What the block has journalled is what it has done to the rows, for a repair; for anybody else, nothing."""
        rows, known = self.images(), {*Change.objects.values_list("pk", flat=True)}
        chunks = Chunk.objects.count()
        yield
        noted = Change.objects.exclude(pk__in=known).order_by("pk")
        if Chunk.objects.count() == chunks:
            assert not noted, "journalled without a chunk"
            return
        for change in noted:
            self.replay(change, rows)
        assert self.images() == rows

    def replay(self, change, rows):
        if change.verb == INSERT:
            assert change.key not in rows
            assert change.before is None
            rows[change.key] = change.after
        elif change.verb == UPDATE:
            assert change.before.items() <= rows[change.key].items()
            assert change.before != change.after
            rows[change.key] = rows[change.key] | change.after
        else:
            assert rows.pop(change.key) == change.before
            assert change.after is None

    @invariant()
    def no_record_has_two_rows(self):
        assert {*self.trade.doubled()} <= self.doubled

    @invariant()
    def the_counts_are_those_of_the_journal(self):
        verbs, numbers = defaultdict(Counter), defaultdict(list)
        for work_item, verb in Change.objects.values_list("work_item", "verb"):
            verbs[work_item][verb] += 1
        for work_item, number in Chunk.objects.order_by("number").values_list("work_item", "number"):
            numbers[work_item].append(number)
        outcomes = defaultdict(Counter)
        for work_item in WorkItem.objects.all():
            assert sum(work_item.counts.values_list("rows", flat=True)) == verbs[work_item.pk].total()
            assert numbers[work_item.pk] == [*range(1, work_item.chunks + 1)]
            outcomes[work_item.outcome_id].update(verbs[work_item.pk])
        for outcome in Outcome.objects.all():
            counted = written_rows(outcome).as_dict()
            assert Counter(counted) == outcomes[outcome.pk]

    @invariant()
    def what_was_finished_holds_nothing(self):
        finished = Outcome.objects.filter(run__state=Run.State.FINISHED)
        assert not finished.filter(leased__isnull=False).exists()


def schedule_of(dealt):
    class Dealt(Schedule):
        trade = dealt()

    return Dealt


@pytest.mark.parametrize("trade", [Shop, Market, League, Clearance])
@pytest.mark.django_db(transaction=True)
def test_any_schedule_leaves_journal_counts_and_rows_as_they_must_be(trade):
    with trade().connected():
        run_state_machine_as_test(schedule_of(trade), settings=SCHEDULES)


@pytest.mark.django_db(transaction=True)
def test_an_undo_that_was_killed_goes_on_as_an_undo_when_it_is_resumed():
    Shop().load(7, random.Random(1))
    rules = {Shop.rule.name: Shop.rule}
    run, (result,) = runs.repair(rules, using="default")
    assert result.written.insert == 7
    killed_at(Step.FENCE, lambda: runs.undo(run, using="default"))
    assert len(raw_rows(Shop.child)) == 7
    (resumed,) = runs.resume(Run.objects.latest("started_at"), {}, using="default")
    assert (resumed.written.delete, resumed.left) == (7, 0)
    assert raw_rows(Shop.child) == []
