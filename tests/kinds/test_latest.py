import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.db.models import Count, F, Q
from django.db.models.functions import Now, Upper
from django.utils import timezone

from reconcile import HaveRow, HaveValues, Latest, Rule, Settle
from reconcile.core.drift import Guarantee
from reconcile.models import Change
from reconcile.rules.order import sort_rules
from tests.helpers import (
    assert_clean,
    assert_finds,
    assert_repairs,
    checked,
    everything,
    repaired,
    statements,
)
from tests.zoo.models import Device, Match, Page, Reply, Tariff, Team, Thread

pytestmark = pytest.mark.django_db
NEWEST = ["-at", "-pk"]
LAST = Latest("replies", by=NEWEST)
NOON = timezone.now().replace(hour=12, minute=0, second=0, microsecond=120)


def rule(every=Thread, settle=None, **columns):
    return Rule(name="latest", every=every, must=HaveValues(**columns), settle=settle)


def thread(*hours, **values):
    """A thread with a reply at each of `hours` past noon, and those replies."""
    made = Thread.objects.create(**values)
    return made, [reply(made, each) for each in hours]


def reply(owner, hour, **values):
    at = None if hour is None else NOON + timedelta(hours=hour)
    return Reply.objects.create(**{"thread": owner, "at": at, "text": f"at {hour}", **values})


def point(owner, at):
    Thread.objects.filter(pk=owner.pk).update(last_reply=at)


def test_a_pointer_to_another_than_the_first_row_is_found_and_set():
    wrong, (first, second) = thread(2, 1)
    right, (_, newest) = thread(1, 2)
    point(wrong, second), point(right, newest)
    assert_finds(rule(last_reply=LAST), stale=[wrong])
    assert_repairs(rule(last_reply=LAST), update=1)
    wrong.refresh_from_db()
    assert wrong.last_reply == first


def test_a_pointer_to_the_first_row_is_not_found():
    right, (_, newest, _) = thread(1, 3, 2)
    point(right, newest)
    empty, _ = thread()
    assert empty.last_reply is None
    assert_clean(rule(last_reply=LAST))


def test_a_missing_pointer_is_found_and_one_at_another_s_row_too():
    missing, _ = thread(1)
    foreign, _ = thread(1)
    emptied, _ = thread()
    point(foreign, missing.replies.get()), point(emptied, foreign.replies.get())
    assert_finds(rule(last_reply=LAST), stale=[missing, foreign, emptied])
    assert_repairs(rule(last_reply=LAST), update=3)
    emptied.refresh_from_db()
    assert emptied.last_reply is None


def test_of_rows_that_are_equal_by_the_order_the_key_decides_in_the_direction_of_the_last_column():
    made, (one, other) = thread(1, 1)
    assert_repairs(rule(last_reply=Latest("replies", by=["-at"])), update=1)
    made.refresh_from_db()
    assert made.last_reply == other
    assert_repairs(rule(last_reply=Latest("replies", by=["at"])), update=1)
    made.refresh_from_db()
    assert made.last_reply == one
    assert_clean(rule(last_reply=Latest("replies", by=["-at", "pk"])))


def test_where_nulls_come_is_for_the_order_to_say():
    made, (null, dated) = thread(None, 1)
    last = rule(last_reply=Latest("replies", by=[F("at").desc(nulls_last=True)]))
    assert_repairs(last, update=1)
    made.refresh_from_db()
    assert made.last_reply == dated
    first = rule(last_reply=Latest("replies", by=[F("at").desc(nulls_first=True)]))
    assert_repairs(first, update=1)
    made.refresh_from_db()
    assert made.last_reply == null


def test_only_rows_that_the_filter_lets_through_count():
    made, (_, newest) = thread(1, 2)
    Reply.objects.filter(pk=newest.pk).update(hidden=True)
    seen = rule(last_reply=Latest("replies", by=NEWEST, filter=Q(hidden=False)))
    assert_repairs(seen, update=1)
    made.refresh_from_db()
    assert made.last_reply.text == "at 1"
    assert_finds(rule(last_reply=LAST), stale=[made])


def test_another_column_of_the_row_and_what_is_computed_from_it():
    made, _ = thread(1, 2)
    told = rule(
        last_text=Latest("replies", by=NEWEST, value="text"),
        last_at=Latest("replies", by=NEWEST, value="at"),
        last_reply=LAST,
    )
    assert_repairs(told, update=1)
    made.refresh_from_db()
    assert (made.last_text, made.last_at) == ("at 2", NOON + timedelta(hours=2))
    assert_repairs(rule(last_text=Latest("replies", by=NEWEST, value=Upper("text"))), update=1)
    made.refresh_from_db()
    assert made.last_text == "AT 2"


def test_text_is_compared_exactly():
    for stored, clean in (("At 1", False), ("at 1 ", False), ("at 1", True)):
        Thread.objects.all().delete()
        made, _ = thread(1, last_text=stored)
        assert_finds(
            rule(last_text=Latest("replies", by=NEWEST, value="text")), stale=[] if clean else [made]
        )


def test_a_null_in_the_first_row_is_null():
    made, _ = thread(None, last_at=NOON)
    told = rule(last_at=Latest("replies", by=["-pk"], value="at"))
    assert_repairs(told, update=1)
    made.refresh_from_db()
    assert made.last_at is None


def test_beside_an_aggregate_and_a_constant_over_the_same_rows():
    made, (_, newest) = thread(1, 2)
    together = rule(last_reply=LAST, reply_count=Count("replies"), region="north")
    assert_finds(together, stale=[made])
    assert_repairs(together, update=1)
    made.refresh_from_db()
    assert (made.last_reply, made.reply_count, made.region) == (newest, 2, "north")


def test_an_order_over_what_the_row_refers_to():
    made, (one, other) = thread(1, 2)
    for page, each in (("b", one), ("a", other)):
        Reply.objects.filter(pk=each.pk).update(page=Page.objects.create(code=page))
    assert_repairs(rule(last_reply=Latest("replies", by=["-page__code"])), update=1)
    made.refresh_from_db()
    assert made.last_reply == one


def test_a_clock_in_the_filter_is_the_run_s():
    made, (past, _) = thread(-48, 48)
    assert_repairs(rule(last_reply=Latest("replies", by=NEWEST, filter=Q(at__lte=Now()))), update=1)
    made.refresh_from_db()
    assert made.last_reply == past


def test_only_the_records_of_every_are_found_where_few_are_chosen():
    here, _ = thread(1, zip="1")
    thread(1, zip="2")
    assert_finds(rule(Thread.objects.filter(zip="1"), last_reply=LAST), stale=[here])
    assert_repairs(rule(Thread.objects.filter(zip="1"), last_reply=LAST), update=1)


def test_each_record_counts_once_where_every_joins_to_many():
    many, _ = thread(1, 2, 3)
    assert_finds(rule(Thread.objects.filter(replies__hidden=False), last_reply=LAST), stale=[many])


def test_young_records_are_left_alone():
    young, _ = thread(1, last_at=timezone.now())
    old, _ = thread(1, last_at=timezone.now() - timedelta(days=1))
    settled = rule(last_reply=LAST, settle=Settle("last_at", hours=1))
    assert_finds(settled, stale=[old])
    assert_repairs(settled, update=1)
    young.refresh_from_db()
    assert young.last_reply is None


def test_only_the_rule_s_column_of_stale_records_is_written():
    thread(1, 2), thread()
    before = everything()
    assert_repairs(rule(last_reply=LAST), update=1)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Thread"}


def test_records_whose_key_is_a_text_or_a_uuid():
    page, device = Page.objects.create(code="A b"), Device.objects.create(name="x")
    Page.objects.create(code="b")
    for owner in ({"page": page}, {"device": device}):
        for hour in (2, 1):
            reply(None, hour, votes=hour, **owner)
    visits = rule(Page.objects.filter(code="A b"), visits=Latest("replies", by=NEWEST, value="votes"))
    assert_finds(visits, stale=["A b"])
    assert_repairs(visits, update=1)
    assert Page.objects.get(code="A b").visits == 2
    assert_repairs(rule(Device, name=Latest("replies", by=NEWEST, value="text")), update=1)
    assert Device.objects.get().name == "at 2"


def test_a_foreign_key_that_does_not_hold_the_primary_key():
    used, unused = Tariff.objects.create(code="A b"), Tariff.objects.create(code="b", name="x")
    for votes in (1, 2):
        Reply.objects.create(tariff=used, text=f"said {votes}", votes=votes)
    named = rule(Tariff, name=Latest("replies", by=["-votes"], value="text"))
    assert not list(named.faults())
    assert_finds(named, stale=[used, unused])
    assert repaired(rule(Tariff.objects.filter(code="A b"), name=named.must.columns["name"])).left == 0
    used.refresh_from_db()
    assert used.name == "said 2"


def test_a_thousand_records_take_as_many_statements_as_ten():
    counts = []
    for size in (1, 10, 1_000):
        Thread.objects.all().delete()
        Thread.objects.bulk_create([Thread() for _ in range(size)])
        Reply.objects.bulk_create([Reply(thread=each, at=NOON) for each in Thread.objects.all()])
        with statements() as captured:
            assert repaired(rule(last_reply=LAST)).written.update == size
        counts.append(len(captured))
    assert counts[1] == counts[2]


def test_what_is_journalled_is_the_column_before_and_after():
    _, (newest,) = thread(1)
    assert_repairs(rule(last_reply=LAST), update=1)
    change = Change.objects.get()
    assert (change.before, change.after) == ({"last_reply_id": None}, {"last_reply_id": newest.pk})


def test_a_rule_that_writes_what_the_order_value_or_filter_reads_runs_first():
    def ordered(**columns):
        reads = Rule(name="reads", every=Thread, must=HaveValues(**columns))
        writes = Rule(name="writes", every=Reply, must=HaveValues(votes=1))
        named = {each.name: each for each in (reads, writes)}
        return [each.name for each in sort_rules(named, using="default", now=timezone.now()).rules]

    assert ordered(last_reply=Latest("replies", by=["-votes"])) == ["writes", "reads"]
    assert ordered(last_reply=Latest("replies", by=["-pk"], filter=Q(votes__gt=1))) == ["writes", "reads"]
    assert ordered(reply_count=Latest("replies", by=["-pk"], value="votes")) == ["writes", "reads"]
    assert ordered(last_reply=Latest("replies", by=["-at"])) == ["reads", "writes"]


@pytest.mark.parametrize(
    ("latest", "sentence"),
    [
        (LAST, "the first of replies by at descending, pk descending"),
        (Latest("replies", by=["text"]), "the first of replies by text"),
        (
            Latest("replies", by=["-at"], value="text", filter=Q(hidden=False)),
            "text of the first of replies with hidden = False by at descending",
        ),
    ],
)
def test_the_sentence(latest, sentence):
    assert rule(last_text=latest).sentence == f"Every thread must have last_text = {sentence}."


def test_the_guarantee_is_constraint():
    assert rule(last_reply=LAST).guarantee("default") == Guarantee.CONSTRAINT


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"last_reply": Latest("replys", by=NEWEST)}, "E013.*no relation 'replys'. Did you mean 'replies'?"),
        ({"last_reply": Latest("zip", by=NEWEST)}, "E015.*'zip' is not a reverse foreign key.*LookedUp"),
        ({"last_reply": Latest("replies")}, r"E012.*by= is \(\).*order_by"),
        ({"last_reply": Latest("replies", by="-at")}, "E012.*by= is '-at'"),
        ({"last_reply": Latest("replies", by=["?"])}, "E012.*by= has '[?]'"),
        ({"last_reply": Latest("replies", by=[3])}, "E012.*by= has 3"),
        ({"last_reply": Latest("replies", by=["-att"])}, "E013.*by=.*'att'.*Did you mean 'at'?"),
        ({"last_reply": Latest("replies", by=["thread__replies__at"])}, "E013.*by= has a path to many rows"),
        ({"last_reply": Latest("replies", by=NEWEST, filter=True)}, "E012.*filter= is True.*Give a Q"),
        (
            {"last_reply": Latest("replies", by=NEWEST, filter=Q(hiden=1))},
            "E013.*filter=.*Did you mean 'hidden'",
        ),
        (
            {"last_reply": Latest("replies", by=NEWEST, filter=Q(thread__replies__at=None))},
            "E013.*filter= has a path to many rows",
        ),
        ({"last_text": Latest("replies", by=NEWEST, value="txt")}, "E013.*value=.*Did you mean 'text'"),
        ({"last_text": Latest("replies", by=NEWEST, value=3)}, "E012.*value= is 3"),
        ({"last_text": Latest("replies", by=NEWEST, value=Count("pk"))}, "E015.*value=.*an aggregate"),
        ({"last_on": Latest("replies", by=NEWEST, value="thread__replies__at")}, "E013.*value=.*many rows"),
    ],
    ids=str,
)
def test_a_fault(columns, fault):
    found = [f"{each.id} {each}" for each in rule(**columns).faults()]
    assert len(found) == 1, found
    assert re.search(fault, found[0]), found


def test_a_foreign_key_to_other_rows_is_a_fault():
    found = [str(each) for each in rule(Team, alternate=Latest("players", by=["-pk"])).faults()]
    assert len(found) == 1
    assert "'alternate' is no foreign key to zoo.Player" in found[0]
    assert not list(rule(Team, points=Latest("players", by=["-pk"])).faults())


def test_many_to_many_is_a_fault():
    found = [each.id for each in rule(Group, name=Latest("user", by=["-pk"])).faults()]
    assert found == ["reconcile.E015"]


def test_it_is_refused_in_a_row_s_values():
    row = HaveRow(Match, link={"team": F("pk")}, values={"points": Latest("players", by=["-pk"])})
    assert [each.id for each in Rule(name="row", every=Team, must=row).faults()] == ["reconcile.E015"]


def test_a_check_reads_all_windows(monkeypatch):
    for size in ("reconcile.core.scopes.SIZE", "reconcile.kinds.values.latest.SORTED"):
        monkeypatch.setattr(size, 3)
    for number in range(10):
        made, replies = thread(1, 2)
        point(made, replies[number % 2])
    assert checked(rule(last_reply=LAST)).tally.total == 5
