"""Repair then undo is the identity, to the byte; what somebody has changed in between is left and told."""

import threading
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Count, F, Q, Sum, Value
from django.db.models.functions import Coalesce, Concat
from django.db.models.signals import pre_save
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings, strategies as st

from reconcile import (
    EXTRA,
    STALE,
    BeUnique,
    Call,
    Delete,
    FromPython,
    HaveRow,
    HaveRows,
    HaveValues,
    Latest,
    Resend,
    Rule,
    Satisfy,
    runs,
)
from reconcile.core.scopes import Keys
from reconcile.errors import LeaseHeldError, StoppedError, UsageError
from reconcile.models import Change, Outcome, Run, WorkItem
from reconcile.repair.journal import ChunkJournal
from reconcile.runs import LEASE
from tests.helpers import Session, an_hour_ago, examples, found_by_the_night, raw_rows, raw_tables, statements
from tests.zoo.models import (
    Aside,
    Badge,
    Basket,
    Bill,
    Blob,
    Card,
    Contact,
    Coupon,
    Device,
    Letter,
    Lorry,
    Mention,
    Node,
    Note,
    Page,
    Parcel,
    Player,
    Reply,
    Tag,
    Team,
    Thread,
    Vehicle,
    Visit,
)

pytestmark = pytest.mark.django_db


def repair(*rules):
    found_by_the_night(*rules)
    run, results = runs.repair({rule.name: rule for rule in rules}, using="default")
    assert [(each.error, each.why_stopped, each.left) for each in results] == [(None, "", 0)] * len(rules)
    assert sum(each.written.total for each in results)
    return run


def undo(run):
    run.refresh_from_db()
    by, rules = runs.undo(run, using="default")
    by.refresh_from_db()
    return by, rules


def previewed(run):
    return runs.preview_undo(run, using="default")


def counts(written):
    return written.insert, written.update, written.delete


def left(rules):
    return [(each.key, each.why) for rule in rules for each in rule.conflicts]


def assert_identity(*rules):
    """Undo restores every table to the byte, and undoing that restores what the repair had made."""
    before = raw_tables()
    run = repair(*rules)
    repaired = raw_tables()
    assert repaired != before
    foreseen = previewed(run)
    assert raw_tables() == repaired
    by, undone = undo(run)
    assert raw_tables() == before
    assert [(each.left, each.why_stopped, each.incomplete) for each in undone] == [(0, "", False)] * len(
        undone
    )
    assert [counts(each.planned) for each in foreseen] == [counts(each.written) for each in undone]
    assert (by.state, by.kind, by.undoes_id) == (Run.State.FINISHED, Run.Kind.UNDO, run.pk)
    undo(by)
    assert raw_tables() == repaired
    undo(run)
    assert raw_tables() == before
    return undone


# What each remedy writes comes back.

BILL = Rule(
    name="bill", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("total")})
)  # fmt: skip


def test_inserted_rows_go():
    baskets = [Basket.objects.create(rate=0.1 + 0.2) for _ in range(5)]
    Bill.objects.create(basket_number=baskets[0].pk, amount=baskets[0].price * baskets[0].quantity)
    (undone,) = assert_identity(BILL)
    assert counts(undone.written) == (0, 0, 4)


def test_inserted_rows_with_very_many_columns_go_and_come_back():
    Team.objects.create(name="wide")
    assert_identity(Rule(name="blob", every=Team, must=HaveRow(Blob, link={"team": F("pk")})))


def test_rows_whose_keys_are_made_in_python_go_and_come_back_with_the_same_keys():
    Device.objects.bulk_create([Device(name=str(number)) for number in range(3)])
    assert_identity(Rule(name="badge", every=Device, must=HaveRow(Badge, link={"device": F("pk")}, values={"name": F("name")})))  # fmt: skip


def test_a_row_that_continues_one_of_another_table_goes_and_leaves_that():
    Vehicle.objects.create(wheels=6)
    must = HaveRow(Lorry, link={"vehicle_ptr": F("pk")}, values={"load": 9})
    assert_identity(Rule(name="lorry", every=Vehicle, must=must))


def test_rows_linked_by_a_text_key_go():
    Page.objects.create(code="Aé'\"\\")
    assert_identity(Rule(name="visit", every=Page, must=HaveRow(Visit, link={"page_code": F("pk")})))


def test_rows_that_python_derives_go():
    Note.objects.create(text="one two")
    Note.objects.create(text="two", details={"a": [1.5, None]})
    must = HaveRows(Mention, link={"note": F("pk")}, rows=str.split, reads=["text"], key=["user_name"])
    assert_identity(Rule(name="mentions", every=Note, must=must))


def test_updated_columns_have_their_old_values_again():
    Basket.objects.create(rate=0.1 + 0.2, price=Decimal("0.10"), note="", seen_at=timezone.now(), label="ü\n")
    Basket.objects.create(rate=-0.0, note=None, label="'\"\\", day=timezone.now().date())
    wanted = {
        "rate": 2.5,
        "price": Decimal("9.99"),
        "note": "new",
        "label": "l",
        "seen_at": None,
        "day": None,
    }
    (undone,) = assert_identity(Rule(name="values", every=Basket, must=HaveValues(**wanted)))
    assert counts(undone.written) == (0, 2, 0)


def test_updated_columns_of_every_kind_have_their_old_values_again():
    Note.objects.create(
        text="a", rank=None, rate=1e22, span=timedelta(days=-1, microseconds=3), raw=b"\x00\xff", details=None,
        loose={"b": 1, "a": [None, 0.1]}, token="a5e4b1d0-0000-4000-8000-000000000001", seen_at=timezone.now(),
    )  # fmt: skip
    Note.objects.create(text="b", rank=1, details=Value(None, Note._meta.get_field("details")))
    wanted = {"rank": 7, "rate": 0.5, "span": timedelta(1), "details": {"n": 1}, "loose": None, "token": None}
    assert_identity(Rule(name="values", every=Note, must=HaveValues(**wanted)))


def test_linked_rows_have_their_old_values_again():
    baskets = [Basket.objects.create() for _ in range(3)]
    Bill.objects.bulk_create([Bill(basket_number=each.pk, amount=Decimal("0.01")) for each in baskets])
    assert_identity(BILL)


def test_the_last_row_that_was_referred_to_before_is_referred_to_again():
    thread = Thread.objects.create()
    old, _new = (Reply.objects.create(thread=thread, at=an_hour_ago() + timedelta(hours)) for hours in (0, 1))
    Thread.objects.update(last_reply=old)
    Thread.objects.create()
    latest = Latest("replies", by=["-at", "-pk"])
    assert_identity(Rule(name="last", every=Thread, must=HaveValues(last_reply=latest, reply_count=Count("replies"))))  # fmt: skip


def test_values_that_python_computes_are_taken_back():
    Note.objects.create(text="A Title", slug="old")
    assert_identity(
        Rule(name="slug", every=Note, must=HaveValues(slug=FromPython(str.lower, reads=["text"])))
    )


def test_a_tree_that_was_repaired_level_by_level_is_as_it_was():
    top = Node.objects.create(name="a", path="wrong")
    for number in range(5):
        top = Node.objects.create(name=str(number), parent=top, size=number)
    path = Concat(Coalesce(F("parent__path"), Value("")), Value("/"), F("name"))
    assert_identity(
        Rule(name="path", every=Node, must=HaveValues(path=path)),
        Rule(name="size", every=Node, must=HaveValues(size=Sum("children__size") + 1)),
    )


def test_the_others_of_a_group_are_as_they_were():
    now = timezone.now()
    team = Team.objects.create(name="t")
    for hours in range(3):
        Contact.objects.create(team=team, is_default=True, updated_at=now - timedelta(hours=hours))
    must = BeUnique("team", keep=["-updated_at"], others={"is_default": False})
    assert_identity(Rule(name="default", every=Contact.objects.filter(is_default=True), must=must))


def test_deleted_rows_come_back_with_their_keys():
    for number in range(4):
        Contact.objects.create(email="a", code=str(number), details={"n": number}, spent=Decimal("0.30"))
    (undone,) = assert_identity(
        Rule(name="alike", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()})
    )
    assert counts(undone.written) == (3, 0, 0)
    assert Contact.objects.create(email="new").pk > max(Contact.objects.values_list("pk", flat=True)[:3])


def test_merged_rows_are_apart_again_and_what_referred_to_them_does_so_again():
    first, second, third = (
        Contact.objects.create(email="a", visits=number, spent=Decimal("0.10"), code=str(number)) for number in range(3)
    )  # fmt: skip
    Letter.objects.create(contact=second, copy_to=third)
    Letter.objects.create(contact=first)
    Card.objects.create(contact=third)
    Coupon.objects.create(contact=second)
    Contact.objects.create(email="b", parent=second)
    kind = ContentType.objects.get_for_model(Contact)
    Aside.objects.create(kind=kind, target_key=str(third.pk))
    tags = [Tag.objects.create(name=name) for name in "xyz"]
    first.tags.add(tags[0])
    second.tags.add(*tags[:2])
    third.tags.add(*tags[1:])
    merge = {"visits": "sum", "spent": "sum", "phone": "coalesce"}
    assert_identity(Rule(name="merged", every=Contact, must=BeUnique("email", merge=merge)))


def test_what_a_receiver_has_changed_on_a_record_is_taken_back():
    Parcel.objects.create(state="odd", price=Decimal("1.10"), extra={"a": 1})

    def handle(instance, **_):
        instance.state = "open"
        instance.price = Decimal("2.5")
        instance.extra["a"] = 2

    pre_save.connect(handle, sender=Parcel)
    try:
        assert_identity(
            Rule(name="resent", every=Parcel, must=Satisfy(Q(state="open")), remedies={STALE: Resend(handle)})
        )
    finally:
        pre_save.disconnect(handle, sender=Parcel)


def test_rules_that_write_the_same_rows_are_taken_back_in_reverse():
    Basket.objects.create(label="a")
    copied = Rule(name="copied", every=Basket, must=HaveValues(note=F("label")))
    labelled = Rule(name="labelled", every=Basket, must=HaveValues(label="b"))
    owed = Rule(name="owed", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
    scored = Rule(name="scored", every=Bill, must=HaveValues(score=3, kind="new"))
    undone = assert_identity(copied, labelled, owed, scored)
    assert {each.rule for each in undone} == {"copied", "labelled", "owed", "scored"}


def test_a_row_comes_back_after_the_one_that_it_refers_to():
    for _ in range(3):
        Player.objects.create(team=Team.objects.create(name="t"), age=30)
    players = Rule(name="a players", every=Player, must=BeUnique("age"), remedies={EXTRA: Delete()})
    teams = Rule(name="teams", every=Team, must=BeUnique("name"), remedies={EXTRA: Delete()})
    undone = assert_identity(players, teams)
    assert [counts(each.written) for each in undone] == [(2, 0, 0), (2, 0, 0)]


# Conflicts.


def test_a_row_that_was_changed_since_is_left_and_told():
    mine, theirs = Basket.objects.create(label="a"), Basket.objects.create(label="b")
    run = repair(Rule(name="values", every=Basket, must=HaveValues(label="new")))
    Basket.objects.filter(pk=theirs.pk).update(label="theirs")
    told = [(f"zoo.Basket {theirs.pk}", "The row has been changed since.")]
    assert left(previewed(run)) == told
    by, undone = undo(run)
    assert left(undone) == told
    assert (undone[0].left, undone[0].incomplete, by.state) == (1, True, Run.State.FINISHED)
    assert [*Basket.objects.order_by("pk").values_list("label", flat=True)] == ["a", "theirs"]
    assert mine.pk < theirs.pk


def test_another_column_that_was_changed_since_is_kept():
    basket = Basket.objects.create(label="a")
    run = repair(Rule(name="values", every=Basket, must=HaveValues(label="new")))
    Basket.objects.update(score=99)
    _, undone = undo(run)
    basket.refresh_from_db()
    assert (left(undone), basket.label, basket.score) == ([], "a", 99)


def test_an_updated_row_that_is_gone_is_told():
    basket = Basket.objects.create(label="a")
    run = repair(Rule(name="values", every=Basket, must=HaveValues(label="new")))
    Basket.objects.all().delete()
    assert left(previewed(run)) == left(undo(run)[1]) == [(f"zoo.Basket {basket.pk}", "The row is gone.")]


def test_an_inserted_row_that_was_changed_since_is_left():
    Basket.objects.create()
    run = repair(BILL)
    bill = Bill.objects.get()
    Bill.objects.update(printed_at=an_hour_ago())
    assert left(undo(run)[1]) == [(f"zoo.Bill {bill.pk}", "The row has been changed since.")]
    assert Bill.objects.exists()


def test_an_inserted_row_that_somebody_has_deleted_is_done():
    Basket.objects.create()
    run = repair(BILL)
    Bill.objects.all().delete()
    assert previewed(run)[0].planned.total == 0
    _, (undone,) = undo(run)
    assert (undone.left, undone.written.total, undone.incomplete) == (0, 0, False)


def test_an_inserted_row_that_others_refer_to_by_now_is_left():
    for _ in range(2):
        Device.objects.create(name="d")
    run = repair(
        Rule(name="badge", every=Device, must=HaveRow(Badge, link={"device": F("pk")}, values={"name": "b"}))
    )
    parcel = Parcel.objects.create()
    badge = Badge.objects.first()
    parcel.badges.add(badge)
    told = left(previewed(run))
    assert left(undo(run)[1]) == told
    ((key, why),) = told
    assert key.startswith("zoo.Badge ")
    assert "zoo.Parcel_badges by badge refers to it" in why
    assert [each.pk for each in Badge.objects.all()] == [badge.pk]


def deleted_contacts():
    for number in range(3):
        Contact.objects.create(email="a", code=str(number))
    keys = [*Contact.objects.order_by("pk").values_list("pk", flat=True)]
    return keys, repair(Rule(name="alike", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()}))


def test_a_deleted_row_whose_key_is_taken_is_told():
    keys, run = deleted_contacts()
    Contact.objects.create(pk=keys[1], email="other")
    assert left(previewed(run)) == [(f"zoo.Contact {keys[1]}", "A row of its key is there again.")]
    assert left(undo(run)[1]) == [(f"zoo.Contact {keys[1]}", "A row of its key is there again.")]
    assert Contact.objects.filter(pk=keys[2]).exists()


def test_a_deleted_row_that_is_there_again_as_it_was_is_done():
    before = [Contact.objects.create(email="a", code=str(number)) for number in range(3)]
    tables = raw_tables()
    run = repair(Rule(name="alike", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()}))
    before[1].save(force_insert=True)
    assert previewed(run)[0].planned.insert == 1
    _, (undone,) = undo(run)
    assert (undone.written.insert, undone.left) == (1, 0)
    assert raw_tables() == tables


def test_a_deleted_row_that_would_break_a_unique_constraint_is_left_alone_and_the_others_come_back():
    keys, run = deleted_contacts()
    Contact.objects.create(email="new", code="1")
    _, undone = undo(run)
    ((key, why),) = left(undone)
    assert key == f"zoo.Contact {keys[1]}"
    assert "unique" in why.lower() or "duplicate" in why.lower()
    assert [*Contact.objects.filter(email="a").values_list("pk", flat=True)] == [keys[0], keys[2]]


@pytest.mark.django_db(transaction=True)
def test_a_deleted_row_whose_parent_is_gone_is_left_alone_and_the_others_come_back():
    teams = [Team.objects.create(name=name) for name in "ab"]
    contacts = [Contact.objects.create(email="a", team=team) for team in (None, *teams)]
    run = repair(Rule(name="alike", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()}))
    teams[0].delete()
    _, undone = undo(run)
    ((key, why),) = left(undone)
    assert key == f"zoo.Contact {contacts[1].pk}"
    assert "foreign key" in why.lower()
    assert {*Contact.objects.values_list("pk", flat=True)} == {contacts[0].pk, contacts[2].pk}


def test_an_earlier_change_of_a_row_that_was_left_is_left_too():
    Basket.objects.create(label="a")
    first = Rule(name="first", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
    then = Rule(name="then", every=Bill, must=HaveValues(score=3))
    run = repair(first, then)
    Bill.objects.update(score=4)
    _, undone = undo(run)
    assert {rule.rule: [each.why for each in rule.conflicts] for rule in undone} == {
        "then": ["The row has been changed since."], "first": ["A later change of the row was left."],
    }  # fmt: skip
    assert Bill.objects.get().score == 4


def test_a_model_or_a_column_that_is_gone_is_told():
    Basket.objects.create(label="a")
    Basket.objects.create(label="b")
    run = repair(Rule(name="values", every=Basket, must=HaveValues(label="new", score=3)))
    gone, renamed = Change.objects.order_by("pk")
    Change.objects.filter(pk=gone.pk).update(model="zoo.Dodo")
    Change.objects.filter(pk=renamed.pk).update(before={"tail": 1}, after={"tail": 2})
    told = {why for _, why in left(previewed(run))}
    assert told == {"There is no model zoo.Dodo any more.", "zoo.Basket has no column 'tail' any more."}
    assert {why for _, why in left(undo(run)[1])} == told


# Runs.


def labelled(number=3):
    Basket.objects.bulk_create([Basket(label=f"a{each}") for each in range(number)])
    return repair(Rule(name="values", every=Basket, must=HaveValues(label="new")))


def test_a_run_that_was_undone_is_not_undone_again():
    run = labelled()
    by, _ = undo(run)
    with pytest.raises(UsageError, match=f"was undone by run {by}. To have its writes back, undo that"):
        undo(run)
    with pytest.raises(UsageError, match="was undone by run"):
        previewed(run)


def test_what_was_left_by_one_undo_is_tried_again_by_the_next():
    run = labelled(2)
    last = Basket.objects.last()
    Basket.objects.filter(pk=last.pk).update(label="theirs")
    undo(run)
    Basket.objects.filter(pk=last.pk).update(label="new")
    _, (again,) = undo(run)
    assert (again.left, again.written.update) == (0, 1)
    assert [*Basket.objects.order_by("pk").values_list("label", flat=True)] == ["a0", "a1"]


def test_a_run_that_wrote_nothing_is_refused():
    run, _ = runs.repair({BILL.name: BILL}, using="default")
    with pytest.raises(UsageError, match="has written no rows, so there is nothing to undo"):
        undo(run)


def test_a_run_that_goes_on_is_refused_and_one_whose_worker_is_dead_is_not():
    run = labelled()
    Run.objects.filter(pk=run.pk).update(state=Run.State.RUNNING)
    with pytest.raises(UsageError, match=r"goes on\. Pause or cancel it first: reconcile runs pause"):
        undo(run)
    Run.objects.update(started_at=timezone.now() - LEASE, heartbeat=timezone.now() - LEASE)
    WorkItem.objects.update(heartbeat=timezone.now() - LEASE)
    assert left(undo(run)[1]) == []


def test_a_rule_that_another_run_repairs_is_not_undone_meanwhile():
    run = labelled()
    other = Run.objects.create(kind="repair", now=timezone.now())
    outcome = Outcome.objects.create(run=other, rule="values", position=0, leased="values", state="repairing")
    WorkItem.objects.create(outcome=outcome, drift="stale", token=other.pk)
    before = raw_tables()
    with pytest.raises(LeaseHeldError, match="repairs values"):
        undo(run)
    assert raw_tables() == before
    assert not Outcome.objects.filter(run__undoes=run).exclude(leased=None).exists()


def test_what_functions_were_given_is_told_and_not_undone():
    Parcel.objects.create()
    Basket.objects.create(label="a")

    def label(records):
        Parcel.objects.filter(pk__in=[each.pk for each in records]).update(label="x")

    called = Rule(name="called", every=Parcel, must=Satisfy(Q(label="x")), remedies={STALE: Call(label)})
    with pytest.raises(UsageError, match=r"has written no rows.* It has handed [1-9]"):
        undo(repair(called))
    Parcel.objects.update(label="")
    run = repair(called, Rule(name="values", every=Basket, must=HaveValues(label="new")))
    told = {"called": (0, 1), "values": (1, 0)}
    assert {each.rule: (each.planned.update, each.outside.called) for each in previewed(run)} == told
    _, undone = undo(run)
    assert {each.rule: (each.written.update, each.outside.called) for each in undone} == told
    assert (Parcel.objects.get().label, Basket.objects.get().label) == ("x", "a")


class Killed(BaseException):
    """As a signal would end the worker."""


def kill_after(chunks):
    """A function that is told of progress, and ends the worker when so many chunks are done."""
    done = []

    def progress(_rule, _keys):
        done.append(1)
        if len(done) == chunks:
            raise Killed

    return progress


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_an_undo_that_was_killed_goes_on_where_it_was(chunks):
    Basket.objects.create(label="a")
    Basket.objects.create(label="b")
    rules = (
        Rule(name="owed", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")})),
        Rule(name="scored", every=Bill, must=HaveValues(score=3, kind="new")),
        Rule(name="values", every=Basket, must=HaveValues(label="new")),
    )
    there = raw_tables()
    run = repair(*rules)
    with pytest.raises(Killed):
        runs.undo(run, using="default", progress=kill_after(chunks))
    by = Run.objects.get(undoes=run)
    assert by.state == Run.State.STOPPED
    results = runs.advance_undo(restarted(by), using="default")
    assert raw_tables() == there
    assert not any(each.incomplete for each in results)
    by.refresh_from_db()
    assert by.state == Run.State.FINISHED


def restarted(run):
    Run.objects.filter(pk=run.pk).update(state=Run.State.RUNNING, why_stopped="")
    run.refresh_from_db()
    return run


class Writer:
    """Writes teams and players as a run of two rules would, with its journal."""

    def __init__(self):
        self.run = Run.objects.create(kind="repair", state="finished", now=timezone.now())
        self.journals = [self.journal(rule) for rule in ("one", "two")]

    def journal(self, rule):
        outcome = Outcome.objects.create(run=self.run, rule=rule, position=0, state="done")
        work_item = WorkItem.objects.create(outcome=outcome, drift="stale", token=self.run.pk, state="done")
        return ChunkJournal(work_item=work_item, chunk=1, using="default")

    def write(self, number, act, pick, value):
        """Do one thing to one row, if that can be done, and note it for one of the rules."""
        work_item = self.journals[number].work_item
        journal = ChunkJournal(work_item=work_item, chunk=Change.objects.count() + 1, using="default")
        model = (Team, Player)[pick % 2]
        rows = list(model.objects.order_by("pk"))
        row = rows[pick % len(rows)] if rows else None
        if act == "insert":
            teams = list(Team.objects.all())
            if model is Team or not teams:
                row = Team.objects.create(name=str(value), points=value)
            else:
                row = Player.objects.create(team=teams[pick % len(teams)], age=value)
            journal.record_inserts(type(row), type(row).objects.filter(pk=row.pk))
        elif row is not None and act == "delete" and not (model is Team and row.players.exists()):
            journal.record_deletes(model, model.objects.filter(pk=row.pk))
            model.objects.filter(pk=row.pk)._raw_delete("default")
        elif row is not None and act != "delete":
            names = {Team: {"a": "points", "b": "player_count"}, Player: {"a": "age", "b": "age"}}[model]
            fields = [model._meta.get_field(name) for name in dict.fromkeys(names[each] for each in act)]
            journal.record_before(model, fields, Keys([row.pk]))
            model.objects.filter(pk=row.pk).update(**{field.name: value for field in fields})
            journal.record_after(model, fields)


@given(
    writes=st.lists(
        st.tuples(
            st.integers(0, 1), st.sampled_from(["insert", "delete", "a", "b", "ab"]), st.integers(0, 5), st.integers(0, 3)
        ),
        min_size=1,
        max_size=14,
    ),
    size=st.integers(1, 4),
    kills=st.lists(st.integers(1, 3), max_size=2),
    again=st.booleans(),
)  # fmt: skip
@example(writes=[(0, "ab", 0, 1), (0, "a", 0, 0)], size=1, kills=[2], again=True)
@settings(
    deadline=None, max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_a_run_wrote_is_taken_back_however_often_its_undo_is_killed(writes, size, kills, again):
    for model in (Player, Team):
        model.objects.all()._raw_delete("default")
    for number in range(2):
        Player.objects.create(team=Team.objects.create(name=str(number)))
    before = raw_rows(Team), raw_rows(Player)
    writer = Writer()
    for each in writes:
        writer.write(*each)
    if not Change.objects.filter(work_item__outcome__run=writer.run).exists():
        return
    with override_settings(RECONCILE={"CHUNK": size}):
        by = undone_through(writer.run, kills, again=again)
    rules = runs.undo_results(by, using="default")
    assert (left(rules), raw_rows(Team), raw_rows(Player)) == ([], *before)


def undone_through(run, kills, *, again):
    """Undo the run by workers that are killed after so many chunks, and one that is not.

    `again`: what was set aside by one that was killed makes the next one look at the whole journal again.
    """
    by = None
    for chunks in [*kills, 0]:
        try:
            if by is None:
                by, _ = runs.undo(run, using="default", progress=kill_after(chunks))
            elif by.state != Run.State.FINISHED:
                runs.advance_undo(restarted(by), using="default", progress=kill_after(chunks))
        except Killed:
            by = Run.objects.get(undoes=run)
            WorkItem.objects.filter(outcome__run=by).update(quarantined=int(again))
    return by


def test_an_undo_that_was_interrupted_can_be_resumed():
    run = labelled()
    there = raw_tables()

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(StoppedError, match=r"Interrupted\. Go on with: reconcile runs resume"):
        runs.undo(run, using="default", progress=interrupt)
    by = Run.objects.get(undoes=run)
    assert raw_tables() != there
    runs.advance_undo(restarted(by), using="default")
    assert [*Basket.objects.order_by("pk").values_list("label", flat=True)] == ["a0", "a1", "a2"]


def test_conflicts_before_a_kill_are_told_after_it():
    run = labelled(2)
    top = Basket.objects.last()
    Basket.objects.filter(pk=top.pk).update(label="theirs")
    with pytest.raises(Killed):
        runs.undo(run, using="default", progress=kill_after(1))
    by = Run.objects.get(undoes=run)
    runs.advance_undo(restarted(by), using="default")
    assert left(runs.undo_results(by, using="default")) == [
        (f"zoo.Basket {top.pk}", "The row has been changed since.")
    ]


def test_an_undo_writes_as_many_statements_for_10_rows_as_for_1000():
    taken = []
    for number in (10, 1_000):
        Basket.objects.all().delete()
        run = labelled(number)
        with statements() as captured:
            undo(run)
        taken.append(len(captured))
    assert taken[0] == taken[1]


@contextmanager
def locked_by_another_session(row):
    """Another session has updated the row and not committed."""
    locked, done = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            type(row).objects.select_for_update().get(pk=row.pk)
            locked.set()
            assert done.wait(30)

    session = Session(hold)
    session.start()
    assert locked.wait(10)
    try:
        yield done
    finally:
        done.set()
        session.join()


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_row_that_another_session_holds_to_the_end_is_left_and_told():
    run = labelled(3)
    held = Basket.objects.order_by("pk")[1]
    with locked_by_another_session(held):
        _, undone = undo(run)
    assert left(undone) == [(f"zoo.Basket {held.pk}", "Another session holds the row.")]
    assert [*Basket.objects.order_by("pk").values_list("label", flat=True)] == ["a0", "new", "a2"]
    assert left(undo(run)[1]) == []
    assert [*Basket.objects.order_by("pk").values_list("label", flat=True)] == ["a0", "a1", "a2"]


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_earlier_changes_of_a_row_that_another_session_holds_wait_for_it():
    Basket.objects.create(label="a")
    owed = Rule(name="owed", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
    run = repair(owed, Rule(name="scored", every=Bill, must=HaveValues(score=3)))
    with locked_by_another_session(Bill.objects.get()):
        _, undone = undo(run)
    assert {why for _, why in left(undone)} == {"Another session holds the row."}
    undo(run)
    assert not Bill.objects.exists()
