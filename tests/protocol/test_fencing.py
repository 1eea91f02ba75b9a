"""Two workers at one work item: the old one stands still between two of its steps, and another takes over."""

import threading
from contextlib import contextmanager

import pytest

from reconcile.errors import LeaseLostError
from reconcile.repair.fault_injection import Step, listen
from tests.helpers import Session, everything
from tests.protocol.works import CHUNKS, WORKS, committing, invoices

pytestmark = committing

MOST_WAIT = 30


class Halts:
    """Makes one thread stand still where it is told to: at the nth time that it reaches a step."""

    def __init__(self, *places):
        self.places = {place: (threading.Event(), threading.Event()) for place in places}
        self.times = {}
        self.thread = None

    def __call__(self, step):
        if threading.current_thread() is not self.thread:
            return
        self.times[step] = self.times.get(step, 0) + 1
        if (step, self.times[step]) in self.places:
            there, go_on = self.places[step, self.times[step]]
            there.set()
            assert go_on.wait(MOST_WAIT)

    def wait_for(self, *place):
        assert self.places[place][0].wait(MOST_WAIT)

    def let_go(self, *place):
        self.places[place][1].set()


@contextmanager
def halting(act, *places):
    """A session that does `act` and stands still at these places, which are those of its thread."""
    halts = Halts(*places)
    session = Session(act)
    halts.thread = session
    with listen(halts):
        session.start()
        try:
            yield halts, session
        finally:
            for place in places:
                halts.let_go(*place)
            session.is_alive() and threading.Thread.join(session, MOST_WAIT)


@pytest.mark.parametrize("verb", [*WORKS])
def test_a_worker_that_was_taken_over_between_two_chunks_writes_nothing_more(verb):
    work = WORKS[verb]()
    work.prepare()
    with halting(work.repair, (Step.COMMITTED, 1)) as (halts, old):
        halts.wait_for(Step.COMMITTED, 1)
        (result,) = work.resume()
        assert (result.left, result.why_stopped) == (0, "")
        before = everything()
        halts.let_go(Step.COMMITTED, 1)
        with pytest.raises(LeaseLostError):
            old.join()
    assert everything() == before
    work.assert_whole()


@pytest.mark.server
def test_a_worker_that_was_taken_over_before_its_fence_stops_at_the_fence():
    work = invoices()
    work.prepare()
    with halting(work.repair, (Step.FENCE, 2)) as (halts, old):
        halts.wait_for(Step.FENCE, 2)
        work.resume()
        before = everything()
        halts.let_go(Step.FENCE, 2)
        with pytest.raises(LeaseLostError):
            old.join()
        assert Step.LOCK not in halts.times or halts.times[Step.LOCK] == 1
    assert everything() == before
    work.assert_whole()


@pytest.mark.parametrize("step", [Step.LOCK, Step.CURSOR, Step.COMMIT])
def test_whoever_takes_over_waits_for_the_chunk_at_hand_and_goes_on_after_it(step):
    """The chunk holds the work item's row (on SQLite, the database), so it is committed before the token changes, or never."""
    work = invoices()
    work.prepare()
    with halting(work.repair, (step, 2), (Step.COMMITTED, 2)) as (halts, old):
        halts.wait_for(step, 2)
        new = Session(work.resume)
        new.start()
        threading.Event().wait(0.5)
        assert new.is_alive()
        halts.let_go(step, 2)
        halts.wait_for(Step.COMMITTED, 2)
        (result,) = new.join()
        assert (result.left, result.why_stopped) == (0, "")
        before = everything()
        halts.let_go(Step.COMMITTED, 2)
        with pytest.raises(LeaseLostError):
            old.join()
    assert everything() == before
    assert work.work_item.chunks == CHUNKS
    work.assert_whole()
