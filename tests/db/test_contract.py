"""What a database must answer, whichever it is: each form is run on the database of this run.

Whoever adds a dialect begins with this file; the facts that it doesn't ask for are tested with what they are for.
"""

import inspect
import uuid
from contextlib import nullcontext
from datetime import date
from decimal import Decimal

import pytest
from django.db import Error, IntegrityError, connection, transaction
from django.db.models import (
    BooleanField,
    CharField,
    DateField,
    DateTimeField,
    DecimalField,
    F,
    FloatField,
    IntegerField,
    TextField,
    TimeField,
    Value,
)
from django.db.models.functions import Cast

from reconcile.db.columns import INTEGERS
from reconcile.db.comparisons import Among, AsStored, Beyond, Bytewise, Differs, PrefixOf, Same
from reconcile.db.dialects import Dialect, Failure, Forms, dialect_of, forms_of, spell
from reconcile.db.images import Columns, SameImage, image, value_from_image
from reconcile.db.strict_casts import StrictCast
from reconcile.db.text_keys import AsText, KeyOf, SameText
from reconcile.models import Change
from tests.zoo.models import Basket, Contact, Device, Page, Team

pytestmark = pytest.mark.django_db

TEXT, NUMBER = Contact._meta.get_field("email"), Contact._meta.get_field("visits")


def answer(expression, **annotations):
    """What the database makes of an expression, beside one row."""
    Team.objects.all().delete()
    Team.objects.create(name="x")
    return Team.objects.annotate(**annotations, _answer=expression).values_list("_answer", flat=True).get()


def texts(one, other):
    """Two texts in columns, so that the database compares as it compares columns."""
    Contact.objects.all().delete()
    Contact.objects.create(email=one, phone=other)
    return Contact.objects.all()


class TestComparisons:
    @pytest.mark.parametrize(
        ("one", "other", "differ"),
        [
            ("a", "a", False),
            ("a", "A", True),
            ("a", "a ", True),
            ("ß", "ss", True),
            ("é", "e", True),
            ("", "", False),
            ("", " ", True),
        ],
    )
    def test_texts_differ_to_the_character(self, one, other, differ):
        rows = texts(one, other)
        assert rows.filter(Differs(F("email"), F("phone"), field=TEXT)).exists() is differ
        assert rows.filter(Same(F("email"), F("phone"), field=TEXT)).exists() is not differ
        assert rows.filter(SameText(F("email"), F("phone"))).exists() is not differ
        assert rows.filter(Differs(F("email"), Value(other), field=TEXT)).exists() is differ

    def test_null_equals_null_where_it_is_asked_whether_values_differ(self):
        Basket.objects.create(note=None)
        Basket.objects.create(note="x")
        note = Basket._meta.get_field("note")
        for other, differing in (
            (Value(None, TextField()), 1),
            (Value("x"), 1),
            (Value("y"), 2),
            (F("note"), 0),
        ):
            assert Basket.objects.filter(Differs(F("note"), other, field=note)).count() == differing
        assert Basket.objects.filter(Same(F("note"), F("note"), field=note)).count() == 1

    @pytest.mark.parametrize(
        ("beginning", "whole", "begins"),
        [
            ("a", "abc", True),
            ("", "abc", True),
            ("A", "abc", False),
            ("a%", "abc", False),
            ("a_", "abc", False),
            ("abc", "ab", False),
            ("é", "éa", True),
        ],
    )
    def test_a_prefix_is_one_to_the_character(self, beginning, whole, begins):
        rows = texts(beginning, whole)
        assert rows.filter(PrefixOf(F("email"), F("phone"), field=TEXT)).exists() is begins

    def test_only_equal_texts_are_grouped(self):
        for text in ("a", "A", "a ", "a"):
            Contact.objects.create(email=text)
        groups = Contact.objects.annotate(exact=Bytewise(F("email"))).values("exact").distinct()
        assert groups.count() == 3

    def test_integers_differ_by_more_than_a_tolerance(self):
        for visits in (0, 3, 10):
            Contact.objects.create(email=str(visits), visits=visits)
        beyond = Beyond(F("visits"), Value(5), field=NUMBER, tolerance=3)
        assert list(Contact.objects.filter(beyond).order_by("visits").values_list("visits", flat=True)) == [
            0,
            10,
        ]

    def test_decimals_differ_by_more_than_a_tolerance(self):
        price = Basket._meta.get_field("price")
        for number in ("1.00", "1.30", "1.31"):
            Basket.objects.create(price=Decimal(number))
        beyond = Beyond(F("price"), Value(Decimal("1.00")), field=price, tolerance=Decimal("0.30"))
        assert [each.price for each in Basket.objects.filter(beyond)] == [Decimal("1.31")]


class TestKeys:
    @pytest.mark.parametrize("number", [1, 2, 5000])
    def test_keys_are_looked_up_in_one_statement(self, number):
        Contact.objects.bulk_create([Contact(email=str(n)) for n in range(number + 1)])
        keys = list(Contact.objects.order_by("pk").values_list("pk", flat=True))[:number]
        assert Contact.objects.filter(Among(F("pk"), keys)).count() == number

    def test_texts_and_uuids_are_keys(self):
        Page.objects.bulk_create([Page(code=code) for code in ("a", "b,c", "d'e", 'f"g', "h%")])
        assert Page.objects.filter(Among(F("pk"), ["a", "b,c", "d'e", 'f"g', "h%", "x"])).count() == 5
        devices = [Device.objects.create(name="x") for _ in range(3)]
        assert Device.objects.filter(Among(F("pk"), [each.pk for each in devices[:2]])).count() == 2

    @pytest.mark.parametrize(
        ("text", "key"),
        [
            ("7", 7),
            ("-7", -7),
            ("x", None),
            ("", None),
            ("7x", None),
            ("9" * 19, None),
            ("9" * 30, None),
            ("1.5", None),
            (" 7", None),
        ],
    )
    def test_a_text_leads_to_an_integer_or_to_nothing_and_never_fails(self, text, key):
        rows = texts(text, "").annotate(_key=KeyOf(F("email"), field=Team._meta.pk))
        found = rows.values_list("_key", flat=True).get()
        # It leads to the row's index; the exact comparison of texts has the last word.
        assert found == key or (key is None and str(found) != text)

    def test_a_text_leads_to_a_uuid_or_to_nothing_and_never_fails(self):
        key = uuid.uuid4()
        for text, expected in ((str(key), key), ("x", None), ("", None), (str(key)[:-1], None)):
            rows = texts(text, "").annotate(_key=KeyOf(F("email"), field=Device._meta.pk))
            same = Device.objects.filter(pk__in=rows.values("_key"))
            Device.objects.all().delete()
            Device.objects.create(pk=key, name="x")
            assert same.exists() is (expected is not None)

    def test_keys_are_written_as_text_as_django_writes_them(self):
        device = Device.objects.create(name="x")
        found = Device.objects.annotate(_text=AsText(F("pk"), field=Device._meta.pk)).values_list(
            "_text", flat=True
        )
        assert list(found) == [str(device.pk)]


class TestValues:
    @pytest.mark.parametrize(
        ("value", "field", "stored"),
        [
            (
                Value(Decimal("1.005"), DecimalField(max_digits=9, decimal_places=3)),
                DecimalField(max_digits=8, decimal_places=2),
                {Decimal("1.01"), Decimal("1.00")},
            ),
            (Value(2.6, FloatField()), IntegerField(), {3, 2}),
            (Value(7, IntegerField()), CharField(max_length=9), {"7"}),
            (Value(True, BooleanField()), IntegerField(), {1}),
            (Value(3, IntegerField()), BooleanField(), {True}),
            (Value(date(2026, 2, 28), DateField()), DateField(), {date(2026, 2, 28)}),
        ],
    )
    def test_a_value_is_what_the_column_would_keep(self, value, field, stored):
        column = Team._meta.get_field("player_count")
        typed = value if isinstance(value.output_field, BooleanField) else Cast(value, value.output_field)
        assert answer(AsStored(typed, field=field)) in stored
        assert column.get_internal_type() in INTEGERS

    @pytest.mark.parametrize(
        ("text", "field"),
        [
            ("x", IntegerField()),
            ("1.5x", FloatField()),
            ("2026-02-30", DateField()),
            ("25:00", TimeField()),
            ("no", DateTimeField()),
        ],
    )
    def test_a_text_that_is_none_of_the_type_is_an_error_of_the_record(self, text, field):
        rows = texts(text, "")
        with pytest.raises(Error) as raised, transaction.atomic():
            list(rows.annotate(_cast=StrictCast(F("email"), field)).values_list("_cast"))
        assert dialect_of("default").failure(raised.value) is Failure.RECORD

    @pytest.mark.parametrize(
        ("text", "field"), [("7", IntegerField()), ("1.5", FloatField()), ("2026-02-28", DateField())]
    )
    def test_a_text_of_the_type_is_cast(self, text, field):
        assert (
            texts(text, "")
            .annotate(_cast=StrictCast(F("email"), field))
            .values_list("_cast", flat=True)
            .get()
            is not None
        )


class TestImages:
    def test_an_image_has_all_columns_and_gives_them_back(self):
        basket = Basket.objects.create(label="a", note="b\n'\"%", rate=0.1 + 0.2)
        fields = [each for each in Basket._meta.concrete_fields if not each.generated]
        made = Basket.objects.annotate(_image=image(fields)).values_list("_image", flat=True).get()
        assert {*made} == {each.attname for each in fields}
        Change.objects.create(work_item_id=1, chunk=1, verb="delete", model="x", key="1", before=made)
        for name in ("note", "rate", "label", "seen_at"):
            field = Basket._meta.get_field(name)
            value = Change.objects.annotate(
                _value=Cast(value_from_image("before", field), field)
            ).values_list("_value", flat=True)
            assert value.get() == getattr(basket, name)
        assert {
            *Change.objects.annotate(_columns=Columns("before")).values_list("_columns", flat=True).get()
        } == {*made}

    def test_two_images_say_the_same_if_they_are_equal_and_never_if_one_is_null(self):
        for before, after, same in (
            ({"a": "x"}, {"a": "x"}, True),
            ({"a": "x"}, {"a": "X"}, False),
            (None, None, False),
            ({"a": 1}, None, False),
        ):
            Change.objects.all().delete()
            Change.objects.create(
                work_item_id=1, chunk=1, verb="x", model="x", key="1", before=before, after=after
            )
            found = (
                Change.objects.annotate(_same=SameImage(F("before"), F("after")))
                .values_list("_same", flat=True)
                .get()
            )
            assert bool(found) is same

    def test_many_columns_are_merged_from_several_objects(self):
        Basket.objects.create()
        fields = [each for each in Basket._meta.concrete_fields if not each.generated]
        some = (fields * 5)[:45]
        made = Basket.objects.annotate(_image=image(some)).values_list("_image", flat=True).get()
        assert {*made} == {each.attname for each in fields}

    def test_a_number_that_is_too_large_is_refused_or_the_dialect_says_that_it_is_kept(self):
        contact = Contact.objects.create()
        refuses = dialect_of("default").refuses_large_numbers
        with pytest.raises(Error) if refuses else nullcontext(), transaction.atomic():
            Contact.objects.filter(pk=contact.pk).update(spent=F("spent") + Decimal(123456789012))
        kept = (
            Contact.objects.annotate(_spent=Cast("spent", FloatField()))
            .values_list("_spent", flat=True)
            .get()
        )
        assert (kept < 1) is refuses


class TestSessions:
    def test_it_can_be_asked_whether_other_sessions_are_at_work(self):
        dialect = dialect_of("default")
        _, mark = dialect.look_for_sessions(0)
        busy, again = dialect.look_for_sessions(mark)
        assert (type(busy), type(again)) == (bool, int)

    def test_a_transaction_of_its_own_can_be_begun(self):
        with dialect_of("default").transaction():
            Page.objects.create(code="a")
        assert Page.objects.filter(code="a").exists()


class TestFailures:
    def test_a_unique_value_that_is_taken_is_the_record_s_failure(self):
        Page.objects.create(code="a")
        with pytest.raises(IntegrityError) as raised, transaction.atomic():
            Page.objects.create(code="a", visits=2)
        dialect = dialect_of("default")
        assert dialect.is_taken(raised.value)
        assert not dialect.is_lost(raised.value)

    def test_a_table_that_is_not_there_is_the_statement_s_failure(self):
        with pytest.raises(Error) as raised, transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT * FROM no_such_table")
        dialect = dialect_of("default")
        assert dialect.failure(raised.value) is Failure.STATEMENT
        assert dialect.lacks_table(raised.value)
        assert not dialect.is_transient(raised.value)


class TestTables:
    def test_a_table_is_read_with_its_unique_indexes_and_who_refers_to_it(self):
        dialect = dialect_of("default")
        table = dialect.read_table("zoo_page")
        assert table is not None
        assert any([*each.columns] == ["code"] for each in table.uniques)
        assert dialect.read_table("zoo_no_such_table") is None
        assert any("zoo_player" in each.table for each in dialect.read_foreign_keys_into("zoo_team"))

    def test_locked_rows_are_those_that_are_asked_for(self):
        made = [Team.objects.create() for _ in range(3)]
        with transaction.atomic():
            locked = dialect_of("default").lock_free_rows(
                Team.objects.filter(pk__in=[made[0].pk, made[2].pk])
            )
            assert {each.pk for each in locked} == {made[0].pk, made[2].pk}


def _answered(base, own):
    """The members of the base class that raise NotImplementedError there, and those of them that `own` answers."""
    asked = {
        name
        for name, member in vars(base).items()
        if inspect.isfunction(member) and "raise NotImplementedError" in inspect.getsource(member)
    }
    return asked, {name for name in asked if getattr(own, name) is not getattr(base, name)}


def test_the_dialect_answers_all_that_the_base_leaves_open():
    dialect = dialect_of("default")
    asked, answered = _answered(Dialect, type(dialect))
    # What only a database needs whose readers wait for locks.
    open_ones = set() if dialect.waits_for_locks else {"_read_lock_wait", "_set_lock_wait"}
    assert asked - answered == open_ones
    asked, answered = _answered(Forms, type(forms_of(connection)))
    assert asked == answered
    assert forms_of(connection).title


def test_a_form_has_its_parts_in_their_order_with_their_parameters():
    one, other = ("a = %s", (1,)), ("b", (2, 3))
    assert spell("({x} AND {y} AND {x})", x=one, y=other) == ("(a = %s AND b AND a = %s)", (1, 2, 3, 1))
    assert spell("'{{}}' {x}", x=one) == ("'{}' a = %s", (1,))
