"""The states of runs: each goes along an arrow of the table, and one function alone writes them."""

import ast
from pathlib import Path

import pytest
from django.utils import timezone

import reconcile
from reconcile.models import Outcome, Run, WorkItem, transition
from reconcile.states import ARROWS, OutcomeState, RunState, WorkItemState, states_before

KINDS = (RunState, OutcomeState, WorkItemState)


@pytest.mark.once
def test_each_arrow_leads_between_states_of_one_kind_and_says_when():
    for kind in KINDS:
        for (one, other), event in ARROWS[kind].items():
            assert type(one) is type(other) is kind
            assert event.endswith(".")


@pytest.mark.once
def test_each_state_but_the_first_is_reached_and_those_that_end_a_run_for_good_are_left_by_none():
    first = [RunState.RUNNING, OutcomeState.WAITING, WorkItemState.RUNNING]
    for state in (state for kind in KINDS for state in kind):
        assert any(state is each for each in first) or states_before(state) - {state}
    left = {one for one, other in ARROWS[RunState] if one is not other}
    assert {state for state in RunState if state not in left} == {RunState.FINISHED, RunState.CANCELLED}


@pytest.mark.django_db
@pytest.mark.parametrize("before", RunState)
@pytest.mark.parametrize("after", RunState)
def test_a_run_changes_its_state_along_an_arrow_and_in_no_other_way(before, after):
    run = Run.objects.create(kind="repair", now=timezone.now(), state=before)
    other = Run.objects.create(kind="repair", now=timezone.now(), state=before)
    done = transition(Run.objects.filter(pk=run.pk), after, why_stopped="so")
    run.refresh_from_db()
    other.refresh_from_db()
    expected = (1, after, "so") if (before, after) in ARROWS[RunState] else (0, before, "")
    assert (done, run.state, run.why_stopped) == expected
    assert (other.state, other.why_stopped) == (before, "")


@pytest.mark.django_db
@pytest.mark.parametrize("before", WorkItemState)
@pytest.mark.parametrize("after", WorkItemState)
def test_a_work_item_changes_its_state_along_an_arrow(before, after):
    run = Run.objects.create(kind="repair", now=timezone.now())
    outcome = Outcome.objects.create(run=run, rule="r", position=0)
    item = WorkItem.objects.create(outcome=outcome, drift="stale", state=before, token=run.pk, cursor="7")
    allowed = (before, after) in ARROWS[WorkItemState]
    assert transition(WorkItem.objects.filter(pk=item.pk), after, cursor=None) == allowed
    item.refresh_from_db()
    assert (item.state, item.cursor) == ((after, None) if allowed else (before, "7"))


@pytest.mark.django_db
def test_only_some_of_the_states_before_can_be_asked_for():
    run = Run.objects.create(kind="repair", now=timezone.now(), state=RunState.RUNNING)
    runs = Run.objects.filter(pk=run.pk)
    assert transition(runs, RunState.CANCELLED, only=[RunState.PAUSED]) == 0
    assert transition(runs, RunState.CANCELLED, only=[RunState.PAUSED, RunState.RUNNING]) == 1


def _writes_of_states(tree):
    """The lines that write a state: `.update(state=…)`, or an assignment to `.state`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in {"update", "update_or_create"} and any(
                each.arg == "state" for each in node.keywords
            ):
                yield node.lineno
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            flat = [each for one in targets for each in (one.elts if isinstance(one, ast.Tuple) else [one])]
            if any(isinstance(each, ast.Attribute) and each.attr == "state" for each in flat):
                yield node.lineno


@pytest.mark.once
def test_no_other_code_writes_a_state():
    found = {}
    for file in Path(reconcile.__file__).parent.rglob("*.py"):
        # Receipts are no part of a run; their states are written in one module.
        if file.name != "receipts.py" and (lines := list(_writes_of_states(ast.parse(file.read_text())))):
            found[file.name] = lines
    assert [*found] == ["models.py"]
    assert len(found["models.py"]) == 1


@pytest.mark.once
def test_what_writes_a_state_elsewhere_would_be_found():
    code = "runs.update(state=1)\nrun.state = 2\nrun.cursor, run.state = 1, 2\nrun.states = 1\n"
    assert sorted(_writes_of_states(ast.parse(code))) == [1, 2, 3]


@pytest.mark.once
def test_the_models_have_these_states():
    assert (Run.State, Outcome.State, WorkItem.State) == KINDS
