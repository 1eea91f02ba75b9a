import uuid
from datetime import date, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.db.models import F, OuterRef, Subquery, Value
from django.db.models.functions import Repeat
from django.utils import timezone

from reconcile.db.statements import KEY, WANTED, batches, select_constants, update_from
from tests.helpers import statements
from tests.zoo.models import Device, Note, Page

OF_EACH_KIND = {
    "text": 'it\'s 100 % \\ "so"\n\N{SNOWMAN}\N{GRINNING FACE}',
    "slug": "Straße",
    "rank": -7,
    "price": Decimal("123456789012345678.05"),
    "rate": 0.1 + 0.2,
    "flag": True,
    "seen_at": timezone.now().replace(microsecond=120),
    "day": date(2026, 2, 28),
    "span": timedelta(days=-3, microseconds=5),
    "raw": b"\x00\xff'\\%s",
    "token": uuid.UUID(int=2**127 + 1),
    "details": {"a": [1, None, "é\"'"], "b": {"c": 1.5}},
    "loose": [],
}


def copying(names, source):
    """The SELECT that gives each note but `source` its values."""
    rows = Note.objects.filter(pk=OuterRef("source"))
    values = {WANTED.format(name): Subquery(rows.values(name)[:1]) for name in names}
    notes = Note.objects.exclude(pk=source.pk).annotate(**{KEY: F("pk")}, source=Value(source.pk))
    return notes.annotate(**values).values_list(KEY, *values)


def fields_of(model, names):
    return [model._meta.get_field(name) for name in names]


@pytest.mark.parametrize("values", [OF_EACH_KIND, {}], ids=["each kind", "mostly NULL"])
@pytest.mark.django_db
def test_a_value_of_each_kind_arrives_as_it_was_read(values):
    source, *others = [
        Note.objects.create(**values), Note.objects.create(),
        Note.objects.create(**{**OF_EACH_KIND, "rank": 2**31 - 1, "details": None}),
    ]  # fmt: skip
    stored = Note.objects.filter(pk=source.pk).values(*OF_EACH_KIND).get()
    assert update_from(Note, fields_of(Note, OF_EACH_KIND), copying(OF_EACH_KIND, source)) == len(others)
    for other in others:
        assert Note.objects.filter(pk=other.pk).values(*OF_EACH_KIND).get() == stored


@pytest.mark.parametrize("collation", ["utf8mb4_general_ci", "utf8mb4_bin"])
@pytest.mark.mariadb
@pytest.mark.django_db
def test_rows_with_text_keys_are_found_under_any_collation_of_the_connection(collation):
    Page.objects.bulk_create([Page(code="é-1"), Page(code="b"), Page(code="c", visits=5)])
    with connection.cursor() as cursor:
        cursor.execute(f"SET NAMES utf8mb4 COLLATE {collation}")
    rows = Page.objects.exclude(code="c").annotate(**{KEY: F("pk"), WANTED.format("visits"): Value(9)})
    try:
        written = update_from(
            Page, fields_of(Page, ["visits"]), rows.values_list(KEY, WANTED.format("visits"))
        )
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SET NAMES utf8mb4")
    assert written == 2
    assert dict(Page.objects.values_list("code", "visits")) == {"é-1": 9, "b": 9, "c": 5}


@pytest.mark.django_db
def test_rows_with_uuids_as_keys_are_written_and_the_others_left():
    Device.objects.bulk_create([Device(name="a"), Device(name="b"), Device(name="a")])
    rows = Device.objects.filter(name="a").annotate(
        **{KEY: F("pk"), WANTED.format("name"): Repeat(F("name"), 3)}
    )
    written = update_from(Device, fields_of(Device, ["name"]), rows.values_list(KEY, WANTED.format("name")))
    assert written == 2
    assert sorted(Device.objects.values_list("name", flat=True)) == ["aaa", "aaa", "b"]


@pytest.mark.mariadb
@pytest.mark.django_db
def test_many_rows_are_read_once_and_written_5000_at_a_time():
    Note.objects.bulk_create([Note() for _ in range(5_001)])
    rows = Note.objects.annotate(**{KEY: F("pk"), WANTED.format("rank"): F("pk") * 2})
    with statements() as sent:
        written = update_from(Note, fields_of(Note, ["rank"]), rows.values_list(KEY, WANTED.format("rank")))
    assert (written, len(sent)) == (5_001, 3)
    assert not Note.objects.exclude(rank=F("pk") * 2).exists()


@pytest.mark.django_db
def test_nothing_to_write_is_no_row():
    rows = Note.objects.annotate(**{KEY: F("pk"), WANTED.format("rank"): Value(1)})
    assert update_from(Note, fields_of(Note, ["rank"]), rows.values_list(KEY, WANTED.format("rank"))) == 0


def test_batches_are_cut_by_rows_and_by_characters():
    rows = [(number, "x" * 4) for number in range(7)]
    assert [len(each) for each in batches(rows, most=3)] == [3, 3, 1]
    assert [len(each) for each in batches(rows, long=8)] == [2, 2, 2, 1]
    assert [len(each) for each in batches(rows, long=3)] == [1] * 7
    assert [row for each in batches(rows, most=2, long=100) for row in each] == rows
    assert list(batches([])) == []


def test_bytes_count_as_characters_and_numbers_don_t():
    assert [len(each) for each in batches([(1, b"xxx"), (2, None), (3, b"xxx")], long=5)] == [2, 1]


def test_constants_are_parameters_below_the_types_of_their_columns():
    sql, params = select_constants(
        [(1, "a"), (2, None)], table="`t`", columns=[("`id`", "`k`"), ("`n`", "`v`")]
    )
    assert sql == (
        "SELECT `t`.`id` AS `k`, `t`.`n` AS `v` FROM `t` WHERE FALSE UNION ALL VALUES (%s, %s), (%s, %s)"
    )
    assert params == (1, "a", 2, None)
