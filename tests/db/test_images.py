"""A row goes into its image and comes back out of it as it was, to the byte."""

import json
import uuid
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.db.models import F, Subquery, Value
from django.utils import timezone
from hypothesis import HealthCheck, given, settings, strategies as st

from reconcile.core.scopes import Keys
from reconcile.db.images import Columns, SameImage, image, is_writable, value_from_image
from reconcile.db.statements import KEY, WANTED, execute_select_into, update_from
from reconcile.db.text_keys import key_from_text
from reconcile.models import Change, Outcome, Run, WorkItem
from reconcile.repair.journal import ChunkJournal
from tests.helpers import examples, raw_rows
from tests.zoo import models as zoo
from tests.zoo.models import Basket, Blob, Note, Sheet, Team

pytestmark = pytest.mark.django_db

UNLIMITED = settings(
    deadline=None, max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def new_journal():
    run = Run.objects.create(kind="repair", now=timezone.now())
    outcome = Outcome.objects.create(run=run, rule="images", position=0)
    work_item = WorkItem.objects.create(outcome=outcome, drift="extra", token=uuid.uuid4())
    return ChunkJournal(work_item=work_item, chunk=1, using="default")


def put_back(model, columns=None):
    """Note all rows as deleted, take them away, and write them from their images."""
    journal = new_journal()
    journal.record_deletes(model, model._base_manager.all())
    changes = Change.objects.filter(work_item=journal.work_item)
    model._base_manager.all()._raw_delete("default")
    assert not raw_rows(model)
    fields = [each for each in model._meta.local_concrete_fields if is_writable(each)]
    values = {f"_{each.attname}": value_from_image("before", each) for each in fields}
    execute_select_into(model, fields, changes.annotate(**values).values_list(*values))
    return changes


def assert_comes_back(model):
    """Deleted rows are written from their images, overwritten ones too; the table is as it was."""
    there = raw_rows(model)
    assert there
    put_back(model)
    assert raw_rows(model) == there
    journal = new_journal()
    fields = [
        each for each in model._meta.local_concrete_fields if is_writable(each) and not each.primary_key
    ]
    every = Keys(list(model._base_manager.values_list("pk", flat=True)))
    journal.record_before(model, fields, every)
    nulls = {each.attname: Value(None, each) for each in fields if each.null and not each.remote_field}
    if nulls:
        model._base_manager.update(**nulls)
    changes = Change.objects.filter(work_item=journal.work_item)
    wanted = {KEY: key_from_text(model, F("key"))}
    wanted |= {WANTED.format(each.attname): value_from_image("before", each) for each in fields}
    assert update_from(model, fields, changes.annotate(**wanted).values_list(*wanted)) == len(there)
    assert raw_rows(model) == there


@contextmanager
def taken_back():
    """An example of a property leaves nothing behind, nor a broken transaction."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="" if connection.vendor != "postgresql" else "\0"),
    max_size=12,
)  # fmt: skip
MOMENTS = st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
SPANS = st.timedeltas(timedelta(days=-90_000), timedelta(days=90_000))
FLOATS = st.floats(allow_nan=False, allow_infinity=connection.vendor != "mysql")
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS.filter(lambda text: "\0" not in text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab c\"'\\é€", max_size=4), inner, max_size=3),
)  # fmt: skip


def decimals(digits, places):
    limit = Decimal(10) ** (digits - places) - 1
    return st.decimals(-limit, limit, places=places)


@given(
    flag=st.booleans(),
    maybe=st.none() | st.booleans(),
    word=TEXTS,
    word_too=st.none() | TEXTS,
    prose=TEXTS,
    small=st.integers(-(2**15), 2**15 - 1),
    number=st.integers(-(2**31), 2**31 - 1),
    number_too=st.none() | st.integers(-(2**31), 2**31 - 1),
    large=st.integers(-(2**63), 2**63 - 1),
    natural=st.integers(0, 2**31 - 1),
    ratio=FLOATS,
    money=decimals(8, 2),
    fine=st.none() | decimals(9, 4),
    day=st.none() | st.dates(date(1000, 1, 1)),
    moment=st.none() | MOMENTS,
    hour=st.none() | st.times(),
    span=st.none() | SPANS,
    token=st.none() | st.uuids(version=4),
    address=st.none() | st.ip_addresses().map(str),
)
@UNLIMITED
def test_a_row_of_every_type_comes_back_as_it_was(**values):
    with taken_back():
        Sheet.objects.create(**values)
        assert_comes_back(Sheet)


@given(
    text=TEXTS,
    rate=st.none() | FLOATS,
    price=st.none() | decimals(15, 2),
    raw=st.none() | st.binary(max_size=12),
    details=st.none() | JSONS,
    loose=JSONS.map(lambda document: Value(document, Note._meta.get_field("loose"))),
)
@UNLIMITED
def test_texts_bytes_and_documents_come_back_as_they_were(**values):
    with taken_back():
        Note.objects.create(**values)
        assert_comes_back(Note)


@pytest.mark.parametrize(
    "number", [0.1 + 0.2, 1e22, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3, 2**53 + 1.0]
)
def test_a_real_number_keeps_each_of_its_digits(number):
    Note.objects.create(rate=number)
    assert_comes_back(Note)


def test_sql_null_and_the_document_null_stay_apart():
    Note.objects.create(details=None)
    Note.objects.create(details=Value(None, Note._meta.get_field("details")))
    assert_comes_back(Note)
    assert Note.objects.filter(details__isnull=True).count() == 1


def test_a_document_keeps_its_spaces_and_the_order_of_its_keys():
    note = Note.objects.create(details={})
    with connection.cursor() as cursor:
        cursor.execute("UPDATE zoo_note SET details = %s", ['{"b":  1.50, "a" : [ ], "c": "\\u00e9"}'])
    assert_comes_back(Note)
    assert json.loads(put_back(Note).get().before["details"]) == {"b": 1.5, "a": [], "c": "é"}
    assert Note.objects.get().pk == note.pk


def test_what_the_database_computes_is_in_the_image_and_is_not_written():
    Basket.objects.create(
        price=Decimal("1.25"), quantity=3, note="ü", seen_at=datetime(2026, 1, 2, tzinfo=UTC)
    )
    assert_comes_back(Basket)
    assert Decimal(Change.objects.order_by("pk").first().before["total"]) == Decimal("3.75")


def test_more_columns_than_one_json_object_takes_come_back():
    Blob.objects.create(team=Team.objects.create(name="wide"), content=bytes(range(256)), n0=None)
    assert_comes_back(Blob)


@pytest.mark.postgresql
def test_what_only_postgresql_has_comes_back():
    from django.db.backends.postgresql.psycopg_any import NumericRange

    zoo.Shelf.objects.create(labels=['a"b', "c,d", "", "{}", "\\"], span=NumericRange(1, None, "(]"))
    zoo.Shelf.objects.create(labels=[], span=NumericRange(empty=True))
    assert_comes_back(zoo.Shelf)


@pytest.mark.postgresql
def test_the_session_s_time_zone_does_not_change_an_image():
    Note.objects.create(seen_at=datetime(2026, 7, 1, 12, 30, 0, 123_456, tzinfo=UTC), rate=float("-inf"))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE zoo_note SET rate = 'NaN'")
        assert_comes_back(Note)
        fields = [Note._meta.get_field("seen_at")]
        here = Note.objects.annotate(now=image(fields)).values_list("now", flat=True)
        before = here.get()
        cursor.execute("SET LOCAL TIME ZONE 'Asia/Tokyo'")
        assert here.all().get() == before


def test_images_tell_a_changed_row_from_one_that_is_as_it_was():
    notes = [Note.objects.create(text=text, rank=rank) for text, rank in (("a", 1), ("A", 1), ("a", None))]
    fields = [Note._meta.get_field("text"), Note._meta.get_field("rank")]
    first = Note.objects.filter(pk=notes[0].pk)
    journal = new_journal()
    journal.record_before(Note, fields, Keys([each.pk for each in notes]))
    Note.objects.update(rank=1, text="a")
    now = first.annotate(now=image(fields)).values("now")[:1]
    found = Change.objects.annotate(same=SameImage(Subquery(now), F("before"))).order_by("pk")
    assert list(found.values_list("same", flat=True)) == [True, False, False]


def test_the_columns_of_an_image_are_told():
    journal = new_journal()
    note = Note.objects.create()
    journal.record_before(Note, [Note._meta.get_field("text"), Note._meta.get_field("rank")], Keys([note.pk]))
    assert sorted(Change.objects.annotate(names=Columns("before")).get().names) == ["rank", "text"]


def test_a_time_and_a_date_keep_their_microseconds_and_their_day():
    Sheet.objects.create(
        hour=time(23, 59, 59, 999_999),
        day=date(1, 1, 1) if connection.vendor != "mysql" else date(1000, 1, 1),
    )
    assert_comes_back(Sheet)
