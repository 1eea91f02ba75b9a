"""A connection that breaks while COMMIT is under way: the repair finds out what became of it, and goes on."""

from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from django.db import connection, transaction

from reconcile import MISSING, STALE, Call, Enqueue, HaveReceipt, HaveValues, Insert, Rule, runs
from reconcile.errors import EvaluationError
from reconcile.models import Change, Chunk, Outcome, Receipt
from reconcile.repair.fault_injection import Step, listen
from reconcile.runs import written_rows
from sample_project.shop.models import Invoice, Order
from tests.protocol.proxy import proxied, through
from tests.protocol.works import CHUNK, CHUNKS, RECORDS, WORKS, committing, invoices
from tests.repair.test_chunk import chunks_for
from tests.zoo.models import Basket
from tests.zoo.tasks import MESSAGES, keep

pytestmark = [pytest.mark.server, *committing]

CUTS = ["before", "after", "late"]


@pytest.mark.parametrize("cut", CUTS)
def test_a_repair_whose_connection_breaks_during_a_commit_goes_on_by_itself(cut):
    work = invoices()
    work.prepare()
    again = cut == "before"
    with proxied() as proxy:
        _, (result,) = through(proxy, work.repair, cut=cut, chunks={1, CHUNKS + again})
        assert proxy.done == [cut, cut]
    assert (result.error, result.left, result.why_stopped) == (None, 0, "")
    assert result.written.total == RECORDS
    work.assert_whole()


@pytest.mark.parametrize("verb", [*WORKS])
def test_what_a_chunk_of_any_verb_wrote_is_written_once_when_its_commit_was_not_answered(verb):
    work = WORKS[verb]()
    work.prepare()
    with proxied() as proxy:
        _, (result,) = through(proxy, work.repair, cut="after", chunks={2})
        assert proxy.done == ["after"]
    assert (result.written.total, result.left, result.why_stopped) == (RECORDS, 0, "")
    work.assert_whole()


class OneByOne(Insert):
    @property
    def chunk(self):
        return 1


def test_a_commit_that_comes_after_the_last_try_at_its_chunk_neither_fails_a_record_nor_passes_one_over():
    work = invoices()
    work.prepare()
    work.rule = replace(work.rule, remedies={MISSING: OneByOne()})
    with proxied(late=3) as proxy:
        _, (result,) = through(proxy, work.repair, cut="late", chunks={2})
        assert proxy.done == ["late"]
    assert (result.left, result.skipped, result.why_stopped) == (0, 0, "")
    assert result.written.insert == Invoice.objects.count() == Change.objects.count() == RECORDS
    assert (
        work.work_item.chunks,
        written_rows(work.work_item.outcome).total,
        work.work_item.quarantined,
    ) == (
        RECORDS,
        RECORDS,
        0,
    )
    assert Chunk.objects.count() == RECORDS


def followed(rule_name, act):
    """A rule whose function mends baskets, and leaves `act` of each chunk's keys to the commit."""

    def mend(baskets):
        keys = [basket.pk for basket in baskets]
        Basket.objects.filter(pk__in=keys).update(label="mended")
        transaction.on_commit(lambda: act(keys))

    must = HaveValues(label="mended")
    return Rule(name=rule_name, every=Basket, must=must, remedies={STALE: Call(mend, batch=CHUNK)})


@pytest.mark.parametrize("cut", CUTS)
def test_what_a_function_leaves_to_a_commit_that_was_not_answered_is_done_once(cut):
    Basket.objects.bulk_create([Basket() for _ in range(RECORDS)])
    told = []
    rule = followed("told", told.extend)
    with proxied() as proxy:
        _, (result,) = through(
            proxy, lambda: runs.repair({rule.name: rule}, using="default"), cut=cut, chunks={2}
        )
        assert proxy.done == [cut]
    assert (result.left, result.why_stopped) == (0, "")
    assert told == sorted(Basket.objects.values_list("pk", flat=True))


def test_what_follows_a_commit_that_was_not_answered_and_fails_ends_the_rule():
    Basket.objects.bulk_create([Basket() for _ in range(RECORDS)])

    def fail(keys):
        raise ValueError("no mail")

    rule = followed("failing", fail)
    with proxied() as proxy:
        _, (result,) = through(
            proxy, lambda: runs.repair({rule.name: rule}, using="default"), cut="after", chunks={1}
        )
    assert "What was to follow a chunk's commit failed (ValueError: no mail)" in result.why_stopped
    assert Basket.objects.filter(label="mended").count() == CHUNK


@pytest.mark.parametrize("cut", CUTS)
def test_the_messages_of_a_chunk_whose_commit_was_not_answered_go_out_once(cut):
    MESSAGES.clear()
    Basket.objects.bulk_create([Basket() for _ in range(RECORDS)])
    keys = sorted(Basket.objects.values_list("pk", flat=True))
    remedy = Enqueue(keep, batch=CHUNK)
    rule = Rule(name="greeting", every=Basket, must=HaveReceipt("greeting"), remedies={MISSING: remedy})
    with proxied() as proxy:
        _, (result,) = through(
            proxy, lambda: runs.repair({rule.name: rule}, using="default"), cut=cut, chunks={2}
        )
        assert proxy.done == [cut]
    chunks = [keys[:CHUNK], keys[CHUNK : 2 * CHUNK], keys[2 * CHUNK :]]
    assert [("keep", chunk) for chunk in chunks] == MESSAGES
    assert (result.written.enqueued, result.why_stopped) == (RECORDS, "")
    assert {*Receipt.objects.values_list("state", flat=True)} == {"sent"}
    assert Receipt.objects.count() == Change.objects.filter(verb="enqueued").count() == RECORDS
    assert written_rows(Outcome.objects.get()).enqueued == RECORDS


def test_a_repair_whose_server_is_gone_for_good_stops_and_its_run_is_resumed_later():
    work = invoices()
    work.prepare()
    with proxied() as proxy, pytest.raises(EvaluationError):
        through(proxy, work.repair, cut="gone_after", chunks={2})
    assert proxy.done == ["gone_after"]
    work.assert_sound(chunks=2)
    assert (work.run.state, work.run.why_stopped) == ("running", "")
    work.resume()
    work.assert_whole()


def test_a_chunk_whose_server_is_gone_with_its_commit_leaves_nothing_and_ends_the_repair():
    work = invoices()
    work.prepare()
    chunks, paused = chunks_for(work.rule)
    Outcome.objects.update(may_repair=True)
    keys = list(Order.objects.order_by("pk").values_list("pk", flat=True))
    with proxied() as proxy, pytest.raises(EvaluationError):
        through(proxy, lambda: chunks.execute(keys[:CHUNK]), cut="gone_before", chunks={1})
    assert proxy.done == ["gone_before"]
    # How long each pause is, chance decides; their number and their bound are fixed.
    assert len(paused) >= 4
    assert sum(paused) < 60
    work.assert_sound(chunks=0)
    work.resume()
    work.assert_whole()


def test_whoever_resumes_waits_for_a_commit_that_is_still_under_way():
    work = invoices()
    work.prepare()
    chunks, _ = chunks_for(work.rule)
    Outcome.objects.update(may_repair=True)
    keys = list(Order.objects.order_by("pk").values_list("pk", flat=True))
    with proxied(late=1.5) as proxy:
        with pytest.raises(EvaluationError):
            through(proxy, lambda: chunks.execute(keys[:CHUNK]), cut="gone_late", chunks={1})
        work.assert_sound(chunks=0)
        assert proxy.done == []
        work.resume()
        assert proxy.done == ["gone_late"]
    work.assert_whole()


@contextmanager
def session_ended_at(step, *, nth):
    """The server ends the session of whoever reaches the step for the nth time, as it does when it is restarted."""
    times = []

    def listener(reached):
        times.extend([reached] if reached is step else [])
        if reached is step and len(times) == nth:
            times.append(None)
            own = connection.connection
            postgresql = connection.vendor == "postgresql"
            number = own.info.backend_pid if postgresql else own.thread_id()
            with closing(connection.copy()) as other, other.cursor() as cursor:
                cursor.execute(f"SELECT pg_terminate_backend({number})" if postgresql else f"KILL {number}")

    with listen(listener):
        yield
    assert None in times


def test_a_session_that_the_server_ends_before_the_commit_is_begun_anew():
    work = invoices()
    work.prepare()
    with session_ended_at(Step.COMMIT, nth=2):
        _, (result,) = work.repair()
    assert (result.written.insert, result.left, result.why_stopped) == (RECORDS, 0, "")
    work.assert_whole()


@pytest.mark.parametrize("step", [Step.LOCK, Step.JOURNAL, Step.CURSOR])
def test_a_session_that_the_server_ends_within_a_chunk_stops_the_run_which_is_resumed_later(step):
    work = invoices()
    work.prepare()
    with session_ended_at(step, nth=2):
        _, (result,) = work.repair()
    assert result.incomplete
    assert result.why_stopped
    assert work.run.state == "stopped"
    work.assert_sound(chunks=1)
    work.resume()
    work.assert_whole()
