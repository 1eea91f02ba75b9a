"""A repair that is killed at each of its steps: what the database holds then, and what resuming makes of it."""

import pytest

from reconcile.repair.fault_injection import Step
from tests.protocol.killing import killed_at
from tests.protocol.works import WORKS, committing, invoices, matches

pytestmark = committing

# Tables are locked at the guarantee `lock` alone.
STEPS = [step for step in Step if step is not Step.TABLES]


@pytest.mark.parametrize("step", STEPS)
def test_a_repair_that_is_killed_leaves_whole_chunks_and_goes_on_when_it_is_resumed(step):
    work = invoices()
    work.prepare()
    survives = step is Step.COMMITTED
    killed_at(step, work.repair)
    work.assert_sound(chunks=1 if survives else 0)
    assert work.run.state == "running"
    killed_at(step, work.resume, time=2)
    work.assert_sound(chunks=3 if survives else 1)
    (result,) = work.resume()
    assert (result.left, result.why_stopped) == (0, "")
    work.assert_whole()


@pytest.mark.postgresql
def test_a_repair_that_is_killed_before_it_locks_a_table_leaves_whole_chunks():
    work = matches()
    work.prepare()
    killed_at(Step.TABLES, work.repair)
    work.assert_sound(chunks=0)
    killed_at(Step.TABLES, work.resume, time=2)
    work.assert_sound(chunks=1)
    work.resume()
    work.assert_whole()


@pytest.mark.parametrize("verb", [*WORKS])
def test_a_repair_that_is_killed_again_and_again_at_every_step_does_each_record_once(verb):
    work = WORKS[verb]()
    work.prepare()
    act, chunks = work.repair, 0
    for step in STEPS:
        killed_at(step, act)
        chunks += step is Step.COMMITTED
        work.assert_sound(chunks=chunks)
        act = work.resume
    work.resume()
    work.assert_whole()
