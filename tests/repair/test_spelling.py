"""`repair --sql`: what is written for people to read is what a repair of these records then sends."""

import re
from contextlib import contextmanager
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.db.models import Count, F, Q, Value
from django.db.models.functions import Coalesce, Concat
from django.utils import timezone

from reconcile import (
    EXTRA,
    MISSING,
    STALE,
    BeUnique,
    Call,
    Delete,
    Enqueue,
    FromPython,
    HaveReceipt,
    HaveRow,
    HaveRows,
    HaveSource,
    HaveValues,
    Merge,
    Rule,
    Satisfy,
    Split,
    Update,
    runs,
)
from reconcile.core.drift import Drift, Sample
from reconcile.db.printing import executable_text
from reconcile.models import Change
from reconcile.repair.spelling import spell_chunks
from tests.helpers import everything, found_by_the_night
from tests.zoo.models import (
    Badge,
    Basket,
    Bill,
    Contact,
    Device,
    Letter,
    Memo,
    Mention,
    Node,
    Note,
    Page,
    Team,
)  # fmt: skip
from tests.zoo.tasks import greet

pytestmark = pytest.mark.django_db


def spelled(rule, drift, *records):
    """The only chunk for the records of one kind of drift; nothing is written by spelling it."""
    before = everything()
    samples = [Sample(drift, str(each.pk)) for each in records]
    (chunk,) = spell_chunks(rule, samples, using="default", now=timezone.now())
    assert everything() == before
    assert not Change.objects.exists()
    return chunk


def inline(sql):
    """In one line, without the time of day, which moves on."""
    return re.sub(r"\d\d:\d\d:\d\d\.\d+", "now", " ".join(sql.split()))


@contextmanager
def sent():
    """The statements that are sent, as texts to paste in one line."""
    found = []

    def record(execute, sql, params, many, context):
        result = execute(sql, params, many, context)
        if not many and not context["connection"].needs_rollback:
            found.append(inline(executable_text((sql, tuple(params or ())), using="default")))
        return result

    with connection.execute_wrapper(record):
        yield found


def assert_spells(rule, drift, *records):
    """Each statement of the chunk, its beginning apart, is sent by a repair of the same records. Returns the steps' words and SQL."""
    chunk = spelled(rule, drift, *records)
    if rule.remedy(drift).deletes:
        found_by_the_night(rule)
    with sent() as statements:
        _, (result,) = runs.repair(
            {rule.name: rule}, using="default", only={rule.name: [each.pk for each in records]}
        )
    assert result.written.total
    assert not result.why_stopped
    first = next(at for at, step in enumerate(chunk.steps) if step.words.startswith(("Lock", "Keep")))
    for step in chunk.steps[first:]:
        if step.sql is not None and not step.words.startswith("Verify"):
            like = [each for each in statements if each[:20] == inline(step.sql)[:20]]
            assert any(inline(step.sql) in each for each in statements), (step, like)
    return {step.words: step.sql for step in chunk.steps}


def sql_of(steps, words):
    (sql,) = [sql for said, sql in steps.items() if said.startswith(words)]
    return inline(sql)


def test_rows_to_insert():
    one, two = (Basket.objects.create(price=price) for price in (1, 2))
    rule = Rule(
        name="r",
        every=Basket,
        must=HaveRow(
            Bill,
            link={"basket_number": F("pk")},
            values={"amount": F("total")},
            create_only={"made_at": timezone.now(), "printed_at": timezone.now()},
        ),
    )
    steps = assert_spells(rule, MISSING, one, two)
    assert "INSERT INTO" in sql_of(steps, "Insert the rows that are owed")
    assert "zoo_bill" in sql_of(steps, "Insert the rows that are owed")
    assert sql_of(steps, "Verify").startswith("SELECT")


def test_values_that_python_makes_once_a_row_are_not_made():
    device = Device.objects.create(name="a")
    rule = Rule(
        name="r", every=Device, must=HaveRow(Badge, link={"device": F("pk")}, values={"name": F("name")})
    )
    chunk = spelled(rule, MISSING, device)
    (step,) = [each for each in chunk.steps if each.words.startswith("Read the rows that are owed")]
    assert "Python makes id, token for each" in step.words
    assert step.sql.startswith("SELECT")


def test_rows_that_python_derives():
    note = Note.objects.create(text="@ann @bob")
    must = HaveRows(
        Mention,
        link={"note": F("pk")},
        rows=lambda text: [each[1:] for each in text.split()],
        reads=["text"],
        key=["user_name"],
    )
    steps = assert_spells(Rule(name="r", every=Note, must=must), MISSING, note)
    assert "ann" in sql_of(steps, "Insert 2 rows that Python derives")


def test_columns_of_the_records_themselves():
    one, two = (Team.objects.create(name=name, player_count=7) for name in "ab")
    steps = assert_spells(
        Rule(name="r", every=Team, must=HaveValues(player_count=Count("players"))), STALE, one, two
    )
    assert sql_of(steps, "Update the rows to what they must be").startswith("UPDATE")
    if connection.vendor == "mysql":
        assert sql_of(steps, "Read what they must be").startswith("SELECT")
        assert "VALUES (" in sql_of(steps, "Update the rows to what they must be")


def test_stale_rows_that_are_not_the_records_are_locked():
    basket = Basket.objects.create()
    Bill.objects.create(basket_number=basket.pk, amount=99)
    must = HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("total")})
    steps = assert_spells(Rule(name="r", every=Basket, must=must), STALE, basket)
    lock = sql_of(steps, "Lock the stale rows")
    assert "zoo_bill" in lock
    assert ("SKIP LOCKED" in lock) == connection.features.has_select_for_update_skip_locked


def test_values_that_python_computes():
    page = Page.objects.create(code="Ab", visits=9)
    must = HaveValues(visits=FromPython(len, reads=["code"]))
    steps = assert_spells(Rule(name="r", every=Page, must=must), STALE, page)
    assert "CASE" in sql_of(steps, "Update 1 row to what Python computes")


def test_rows_to_delete():
    memo = Memo.objects.create(page_code="gone")
    must = HaveSource("page_code", model=Page, to="code")
    rule = Rule(name="r", every=Memo, must=must, remedies={EXTRA: Delete()}, max_repairs=5)
    steps = assert_spells(rule, EXTRA, memo)
    assert sql_of(steps, "Delete the rows").startswith("DELETE")
    assert any(words.startswith("Read whether a row refers to them") for words in steps)


def test_rows_to_merge():
    first, second = (Contact.objects.create(email="a", visits=visits) for visits in (1, 2))
    Letter.objects.create(contact=second)
    must = BeUnique("email", merge={"visits": "sum"})
    rule = Rule(name="r", every=Contact, must=must, remedies={EXTRA: Merge()})
    steps = assert_spells(rule, EXTRA, second)
    assert sql_of(steps, "Delete the rows").startswith("DELETE")
    assert "3" in sql_of(steps, "Update the rows that stay")
    (words,) = [each for each in steps if each.startswith("Read what refers to the rows that go")]
    assert "zoo.Letter by contact" in words
    assert Contact.objects.get() == first


def test_what_goes_one_by_one_and_what_goes_at_once():
    records = [Basket.objects.create(label=label) for label in ("", "", "special")]

    def mend(baskets):
        Basket.objects.filter(pk__in=[each.pk for each in baskets]).update(label="b")

    rule = Rule(
        name="r", every=Basket, must=HaveValues(label="b"),
        remedies={STALE: Split(when=Q(label="special"), each=Call(mend), rest=Update())},
    )  # fmt: skip
    steps = assert_spells(rule, STALE, *records)
    assert "Call mend() with the locked records. What it writes is its own." in steps
    assert sql_of(steps, "Update the rows").startswith("UPDATE")


def test_a_task_is_named_and_not_called():
    page = Page.objects.create(code="a")
    rule = Rule(name="r", every=Page, must=HaveReceipt("greeting"), remedies={MISSING: Enqueue(greet)})
    words = [each.words for each in spelled(rule, MISSING, page).steps]
    (said,) = [each for each in words if "task" in each]
    assert said.startswith(
        "Promise the receipts that the records owe. After COMMIT, send the keys to the task "
    )
    assert not any(each.startswith("Verify") for each in words)


def test_a_chunk_begins_as_its_database_asks_for_it():
    page = Page.objects.create(code="a", visits=1)
    chunk = spelled(Rule(name="r", every=Page, must=HaveValues(visits=0)), STALE, page)
    begins = {
        "sqlite": "BEGIN IMMEDIATE",
        "postgresql": "BEGIN",
        "mysql": "SET SESSION innodb_lock_wait_timeout = 0",
    }
    assert chunk.steps[0].sql == begins[connection.vendor]
    if connection.vendor == "postgresql":
        assert "set_config('lock_timeout', '300ms', true)" in inline(chunk.steps[1].sql)


def test_what_only_people_mend_is_not_spelled():
    page = Page.objects.create(code="a", visits=1)
    rule = Rule(name="r", every=Page, must=Satisfy(Q(visits=0)))
    assert spell_chunks(rule, [Sample(Drift.STALE, page.pk)], using="default", now=timezone.now()) == []


def test_a_table_is_locked_where_no_row_lock_keeps_others_from_inserting():
    basket = Basket.objects.create()
    rule = Rule(name="r", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))
    said = [each.words for each in spelled(rule, MISSING, basket).steps]
    locks = "Keep other sessions from inserting the same rows, which no row lock does." in said
    assert locks == (connection.vendor == "postgresql")


def test_of_a_tree_the_first_level_is_spelled():
    """What is computed from a drifted record has another value by the time its turn comes."""
    root = Node.objects.create(name="a", path="bad")
    child = Node.objects.create(name="b", path="bad", parent=root)
    path = Concat(Coalesce(F("parent__path"), Value("")), Value("/"), F("name"))
    rule = Rule(name="r", every=Node, must=HaveValues(path=path))
    chunk = spelled(rule, STALE, root, child)
    assert chunk.records == 1
    lock = next(each.sql for each in chunk.steps if each.words.startswith("Lock the records"))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(lock, None)
        assert [*cursor.fetchall()] == [(root.pk,)]
    assert any(each.startswith("Level by level") for each in chunk.remarks)


def test_of_a_circle_nothing_is_spelled():
    one, two = (Node.objects.create(name=name, depth=7) for name in "ab")
    Node.objects.filter(pk=one.pk).update(parent=two)
    Node.objects.filter(pk=two.pk).update(parent=one)
    rule = Rule(name="r", every=Node, must=HaveValues(depth=F("parent__depth") + 1))
    assert spelled(rule, STALE, one, two).steps == []
    assert runs.preview({"r": rule}, using="default", now=timezone.now())[0].planned.total == 0


def test_each_statement_of_many_rows_is_spelled():
    notes = [Note.objects.create(text=" ".join(f"@{name}{number}" for number in range(400))) for name in "ab"]
    must = HaveRows(Mention, link={"note": F("pk")}, rows=names_in, reads=["text"], key=["user_name"])
    steps = spelled(Rule(name="r", every=Note, must=must), MISSING, *notes).steps
    inserts = [each for each in steps if each.sql and each.sql.startswith("INSERT")]
    assert len(inserts) >= 2
    assert sum(each.sql.count("@") or each.sql.count("a3") for each in inserts)
    assert inserts[0].words == "Insert 800 rows that Python derives from the records."
    assert all(f"b{number}" in " ".join(each.sql for each in inserts) for number in range(400))


def names_in(text):
    return [each[1:] for each in text.split()]


def test_rows_of_which_a_record_owes_several_are_said_to_be_inserted_so_often():
    basket = Basket.objects.create()
    rule = Rule(name="r", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}, count=3))
    (step,) = [each for each in spelled(rule, MISSING, basket).steps if each.words.startswith("Insert")]
    assert "3 times, each time one row" in step.words


def test_a_row_that_others_refer_to_is_not_in_the_delete():
    first, second, third = (Contact.objects.create(email="a") for _ in range(3))
    Letter.objects.create(contact=second)
    rule = Rule(name="r", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()})
    steps = {each.words: each.sql for each in spelled(rule, EXTRA, second, third).steps}
    delete = sql_of(steps, "Delete the rows")
    assert (str(second.pk) in delete.replace(str(third.pk), ""), str(third.pk) in delete) == (False, True)
    assert any(
        each.startswith(f"{second.pk} is left alone: zoo.Letter by contact refers to it") for each in steps
    )
    assert sql_of(steps, "Read which of them are extra still").startswith("SELECT")
    assert first.pk


def test_a_group_that_can_not_be_merged_is_not_in_the_statements():
    first, second = (Contact.objects.create(email="a", spent=Decimal("999999.99")) for _ in range(2))
    rule = Rule(
        name="r", every=Contact, must=BeUnique("email", merge={"spent": "sum"}), remedies={EXTRA: Merge()}
    )
    steps = spelled(rule, EXTRA, second).steps
    assert any(
        each.words.startswith(f"{second.pk} is left alone: The merged value is too large") for each in steps
    )
    assert not [each for each in steps if each.sql and each.sql.startswith(("DELETE", "UPDATE"))]
    (planned,) = runs.preview({"r": rule}, using="default", now=timezone.now())
    assert (planned.planned.total, planned.skipped) == (0, 1)
    assert first.pk


@pytest.mark.parametrize("key", ["k\x1b[31mred", "a\nb", "it's", 'q"u', "back\\slash", "per%cent", "☃"])
def test_no_character_that_a_terminal_would_not_print_stands_in_it(key):
    page = Page.objects.create(code=key, visits=9)
    chunk = spelled(Rule(name="r", every=Page, must=HaveValues(visits=0)), STALE, page)
    text = "".join(each.sql or "" for each in chunk.steps).replace("\n", "")
    assert text.isprintable()
    with connection.cursor() as cursor:
        cursor.execute(next(each.sql for each in chunk.steps if each.words.startswith("Verify")), None)
        assert [*cursor.fetchall()] == [(key,)]
