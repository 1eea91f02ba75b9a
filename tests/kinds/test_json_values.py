import json
from datetime import date
from decimal import Decimal

import pytest
from django.db import connection
from django.db.models import Count, F, JSONField, Subquery, Value
from django.db.models.functions import Cast
from django.utils import timezone

from reconcile import FromPython, HaveKeys, HaveRow, HaveValues, Rule, runs
from reconcile.core.drift import Status
from reconcile.detect.checking import check
from reconcile.models import Change
from tests.helpers import assert_clean, assert_finds, assert_repairs, repaired, statements
from tests.zoo.models import Bill, Device, Mention, Note

pytestmark = pytest.mark.django_db


def rule(every=Note, **columns):
    return Rule(name="json", every=every, must=HaveValues(**columns))


def note(details=None, **columns):
    return Note.objects.create(details=details, **columns)


def details(row, column="details"):
    return Note.objects.values_list(column, flat=True).get(pk=row.pk)


@pytest.mark.parametrize(
    "there",
    [
        {"a": 2},
        {"a": True},
        {"a": "1"},
        {"a": None},
        {"a": [1]},
        {"a": 1, "b": 1},
        {},
        [],
        [{"a": 1}],
        "a",
        1,
        True,
        None,
    ],
    ids=repr,
)
def test_another_document_is_found_and_replaced(there):
    wrong = note(there)
    assert_finds(rule(details={"a": 1}), stale=[wrong])
    assert_repairs(rule(details={"a": 1}), update=1)
    assert details(wrong) == {"a": 1}


@pytest.mark.parametrize(
    ("there", "same"),
    [
        ({"a": 1, "b": [True, None]}, {"b": [True, None], "a": 1}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 0.1}, {"a": 0.1}),
        ({"ä": "Ü 😀 \\ \" '"}, {"ä": "Ü 😀 \\ \" '"}),
        ([1, [2]], (1, (2,))),
        ({"1": 2}, {1: 2}),
        ("a", "a"),
        (False, False),
        (0, 0),
        (10**20, 10**20),
    ],
    ids=repr,
)
def test_the_same_document_is_not_found(there, same):
    note(there)
    assert_clean(rule(details=Value(same, output_field=JSONField()) if there == 0 else same))


@pytest.mark.parametrize(
    ("there", "other"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 0}, {"a": False}),
        ([1, 2], [2, 1]),
        ("A", "a"),
        ("a ", "a"),
        (False, 0),
        ([], {}),
        ("", None),
        ({"a": None}, {}),
    ],
    ids=repr,
)
def test_a_document_of_another_type_order_or_case_is_found_and_replaced(there, other):
    wrong = note(there)
    assert_finds(rule(details=other), stale=[wrong])
    assert_repairs(rule(details=other), update=1)
    read = details(wrong)
    assert (read, type(read)) == (other, type(other))


def test_a_column_that_must_be_null_is_set_to_null_and_not_to_the_value_null():
    wrong = note({"a": 1})
    assert_repairs(rule(details=None), update=1)
    assert Note.objects.get(details__isnull=True) == wrong


def test_a_document_that_a_function_gives():
    wrong, right = note(text="a b"), note({"words": ["a"]}, text="a")
    words = rule(details=FromPython(lambda text: {"words": text.split()}, reads=["text"]))
    assert_finds(words, stale=[wrong])
    assert_repairs(words, update=1)
    assert [details(each) for each in (wrong, right)] == [{"words": ["a", "b"]}, {"words": ["a"]}]


def test_a_function_may_read_the_document_that_it_changes():
    wrong = note({"name": "Ada"})
    lowered = rule(details=FromPython(lambda read: {**read, "name": read["name"].lower()}, reads=["details"]))
    assert_repairs(lowered, update=1)
    assert details(wrong) == {"name": "ada"}


@pytest.mark.parametrize(
    ("there", "then"),
    [
        ({"theme": "light"}, {"theme": "dark"}),
        ({"theme": "DARK"}, {"theme": "dark"}),
        ({"theme": None, "lang": "en"}, {"theme": "dark", "lang": "en"}),
        ({"lang": "en"}, {"theme": "dark", "lang": "en"}),
        ({}, {"theme": "dark"}),
        (None, {"theme": "dark"}),
    ],
    ids=repr,
)
def test_one_key_is_set_and_the_others_are_left(there, then):
    wrong = note(there)
    assert_finds(rule(details__theme="dark"), stale=[wrong])
    assert_repairs(rule(details__theme="dark"), update=1)
    assert details(wrong) == then


def test_a_key_with_the_value_is_not_found():
    note({"theme": "dark", "lang": "en"})
    assert_clean(rule(details__theme="dark"))


@pytest.mark.parametrize(
    ("there", "then"),
    [
        (None, {"a": {"b": [1]}}),
        ({"a": None}, {"a": {"b": [1]}}),
        ({"a": {"c": 2}, "d": 3}, {"a": {"b": [1], "c": 2}, "d": 3}),
        ({"a": {"b": [True]}}, {"a": {"b": [1]}}),
    ],
    ids=repr,
)
def test_what_is_missing_on_the_way_to_a_deeper_key_is_made(there, then):
    wrong = note(there)
    assert_finds(rule(details__a__b=[1]), stale=[wrong])
    assert_repairs(rule(details__a__b=[1]), update=1)
    assert details(wrong) == then


def test_a_position_of_a_list_is_a_key_of_it():
    wrong, _right = note([{"a": 1}, {"a": 1}]), note([{}, {"a": 2}])
    second = rule(details__1__a=2)
    assert_finds(second, stale=[wrong])
    assert_repairs(second, update=1)
    assert details(wrong) == [{"a": 1}, {"a": 2}]


def test_a_key_that_must_be_null_has_to_be_there():
    missing, _null = note({}), note({"a": None})
    assert_finds(rule(details__a=None), stale=[missing])
    assert_repairs(rule(details__a=None), update=1)
    assert details(missing) == {"a": None}


@pytest.mark.parametrize("there", ["text", 3, True, []], ids=repr)
def test_what_is_no_object_is_not_overwritten_by_a_key(there):
    wrong, other = note({"a": there}), note({})
    assert_finds(rule(details__a__b=1), stale=[wrong, other])
    result = repaired(rule(details__a__b=1))
    assert (result.written.update, result.left, result.skipped) == (1, 1, 1)
    assert "stands where an object with the key 'b' is owed" in result.why_stopped
    assert [details(each) for each in (wrong, other)] == [{"a": there}, {"a": {"b": 1}}]


def test_a_key_has_the_value_that_the_database_computes():
    lamp = Device.objects.create(name="Lamp")
    wrong = note({"rank": 1, "name": "Lamp"}, rank=2, author=lamp)
    computed = rule(details__rank=F("rank") + 1, details__name=F("author__name"))
    assert_finds(computed, stale=[wrong])
    assert_repairs(computed, update=1)
    assert details(wrong) == {"rank": 3, "name": "Lamp"}


def test_a_key_has_the_number_of_related_rows():
    wrong = note({"mentions": 0})
    Mention.objects.create(note=wrong, user_name="ada")
    assert_repairs(rule(details__mentions=Count("mentions")), update=1)
    assert details(wrong) == {"mentions": 1}


def test_a_key_has_the_value_that_a_function_gives():
    wrong = note({"length": 1}, text="abc")
    measured = rule(details__length=FromPython(len, reads=["text"]))
    assert_repairs(measured, update=1)
    assert details(wrong) == {"length": 3}


def test_a_document_that_is_copied_from_another_column():
    wrong = note({"a": 1}, loose={"b": 2})
    assert_repairs(rule(details=F("loose")), update=1)
    assert details(wrong) == {"b": 2}


def test_missing_keys_get_their_value_and_present_ones_keep_theirs():
    keys = rule(details=HaveKeys({"theme": "light", "lang": "en"}))
    some, none, null, _all = (
        note({"theme": "dark", "x": 1}),
        note({}),
        note(None),
        note({"theme": None, "lang": 3}),
    )
    assert_finds(keys, stale=[some, none, null])
    assert_repairs(keys, update=3)
    assert details(some) == {"theme": "dark", "x": 1, "lang": "en"}
    assert details(none) == details(null) == {"theme": "light", "lang": "en"}


def test_exactly_these_keys_takes_others_away():
    keys = rule(details=HaveKeys({"theme": "light"}, exact=True))
    more, _right = note({"theme": "dark", "x": 1}), note({"theme": "x"})
    assert_finds(keys, stale=[more])
    assert_repairs(keys, update=1)
    assert details(more) == {"theme": "dark"}


def test_a_null_column_has_no_keys_and_needs_none():
    note(None), note({})
    assert_clean(rule(details=HaveKeys({}, exact=True)))


def test_keys_of_what_is_no_object_are_refused():
    wrong = note([1])
    assert_finds(rule(details=HaveKeys({"a": 1})), stale=[wrong])
    result = repaired(rule(details=HaveKeys({"a": 1})))
    assert (result.written.update, result.skipped) == (0, 1)
    assert "details: a list stands where an object is owed" in result.why_stopped


def test_keys_and_the_value_of_one_of_them():
    wrong = note({"theme": "x", "more": 1})
    both = rule(details=HaveKeys({"theme": "light", "lang": "en"}, exact=True), details__theme="dark")
    assert_repairs(both, update=1)
    assert details(wrong) == {"theme": "dark", "lang": "en"}


def test_an_encoder_makes_text_of_dates_and_decimals():
    wrong = note(loose={}, price=Decimal("1.50"))
    assert_repairs(rule(loose__day=date(2026, 3, 1), loose__price=F("price")), update=1)
    assert details(wrong, "loose") == {"day": "2026-03-01", "price": "1.50"}


def read(before_or_after):
    """The documents in an image, which holds them as the text that is stored."""
    return {name: None if held is None else json.loads(held) for name, held in before_or_after.items()}


def test_the_image_of_a_document_is_its_text():
    note({"a": {"b": [1, None, True]}, "c": 'it\'s "quoted" \\'}, loose=[1])
    assert_repairs(rule(details__a="x", loose=None), update=1)
    change = Change.objects.get()
    assert read(change.before) == {
        "details": {"a": {"b": [1, None, True]}, "c": 'it\'s "quoted" \\'}, "loose": [1],
    }  # fmt: skip
    assert read(change.after) == {"details": {"a": "x", "c": 'it\'s "quoted" \\'}, "loose": None}


@pytest.mark.parametrize("there", [None, "text", 3, True, [], {}], ids=repr)
def test_the_image_of_any_value_is_its_text(there):
    note(there)
    assert_repairs(rule(details={"new": 1}), update=1)
    assert read(Change.objects.get().before) == {"details": there}


def test_the_image_of_an_inserted_document_is_its_text():
    note()
    must = HaveRow(Bill, link={"basket_number": F("pk")})
    assert_repairs(Rule(name="bill", every=Note, must=must), insert=1)
    assert json.loads(Change.objects.get().after["details"]) == {}


def test_the_same_number_of_statements_at_10_and_1000_rows():
    counts = []
    for number in (10, 1_000):
        Note.objects.all().delete()
        Note.objects.bulk_create([Note(details={"a": 1}) for _ in range(number)])
        with statements() as captured:
            check(rule(details__a=2), using="default", now=timezone.now())
        counts.append(len(captured))
    assert counts[0] == counts[1]


def test_a_value_that_json_does_not_have_is_told():
    note(text="x")
    broken = rule(details__a=FromPython(lambda _: {1, 2}, reads=["text"]))
    result = check(broken, using="default", now=timezone.now())
    assert (result.status, result.tally.total) == (Status.FAIL, 1)
    assert "can't be stored in 'details'" in result.remarks[0]


def test_the_sentence_names_keys_and_path():
    said = rule(details__theme="dark").sentence
    assert said == "Every zoo note must have details.theme = 'dark'."
    said = rule(details=HaveKeys({"theme": "light"})).sentence
    assert (
        said == "Every zoo note must have details = an object with the key 'theme' (where missing: 'light')."
    )


@pytest.mark.parametrize(
    ("columns", "fault_id", "said"),
    [
        ({"details": {1, 2}}, "E012", "json.dumps"),
        ({"details": float("nan")}, "E012", "json.dumps"),
        ({"details__a": Decimal(1)}, "E012", "encoder="),
        ({"details__a": F("price")}, "E012", "no value for a DecimalField"),
        ({"details__a": F("prize")}, "E013", "Did you mean 'price'?"),
        ({"details__a": F("mentions__user_name")}, "E013", "leads to many rows"),
        ({"details__a": len}, "E012", "FromPython"),
        ({"details": HaveKeys(["a"])}, "E012", "Give a dictionary"),
        ({"details": HaveKeys({1: 2})}, "E012", "Give a dictionary"),
        ({"details": HaveKeys({"a": {1}})}, "E012", "json.dumps"),
        ({"details": HaveKeys({"a": 1}, exact="yes")}, "E012", "True or False"),
        ({"text": HaveKeys({"a": 1})}, "E012", "whole JSON column"),
        ({"details__a": HaveKeys({"a": 1})}, "E012", "whole JSON column"),
        ({"details": {}, "details__a": 1}, "E012", "already says"),
        ({"details__a": {}, "details__a__b": 1}, "E012", "already says"),
        ({"details": HaveKeys({"a": 1}, exact=True), "details__b": 1}, "E012", "already says"),
        ({"detail__a": 1}, "E013", "Did you mean 'details'?"),
        ({"details__": 1}, "E013", "empty key"),
    ],
    ids=repr,
)
def test_what_is_wrong_is_a_fault_with_the_way_out(columns, fault_id, said):
    ((found, text),) = [(fault.id, str(fault)) for fault in rule(**columns).faults()]
    assert found == f"reconcile.{fault_id}", text
    assert said in text


def test_a_document_that_cannot_be_null_is_a_fault():
    (fault,) = rule(Bill, details=None).faults()
    assert "can't be NULL" in fault.message


def test_values_of_a_row_may_not_be_json():
    must = HaveRow(Bill, link={"basket_number": F("pk")}, values={"details": {}})
    (fault,) = Rule(name="row", every=Note, must=must).faults()
    assert fault.id == "reconcile.E015"


def stored_null(row):
    """Whether the column is NULL, and whether it has the document null, as the database tells them apart."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT details IS NULL FROM zoo_note WHERE id = {row.pk}")
        is_null = bool(cursor.fetchone()[0])
    return is_null, not is_null and details(row) is None


def json_null():
    made = note({})
    Note.objects.filter(pk=made.pk).update(details=Cast(Value("null"), JSONField()))
    assert stored_null(made) == (False, True)
    return made


def test_the_document_null_is_not_a_column_without_a_document():
    without, null = note(None), json_null()
    assert stored_null(without) == (True, False)
    assert_finds(rule(details=None), stale=[null])
    assert_repairs(rule(details=None), update=1)
    assert stored_null(null) == (True, False)
    owed = rule(details=Value(None, JSONField()))
    assert_finds(owed, stale=[without, null])
    assert_repairs(owed, update=2)
    assert stored_null(without) == stored_null(null) == (False, True)


def test_it_is_told_apart_where_another_column_or_record_owes_it():
    null = json_null()
    other = note(None)
    copy = rule(
        Note.objects.filter(pk=other.pk),
        details=Subquery(Note.objects.filter(pk=null.pk).values("details")[:1]),
    )
    assert_finds(copy, stale=[other])
    assert_repairs(copy, update=1)
    assert stored_null(other) == (False, True)


def test_a_key_that_is_owed_is_put_into_the_document_null_too():
    null = json_null()
    assert_repairs(rule(details__a=1), update=1)
    assert details(null) == {"a": 1}


def test_an_undo_puts_the_document_null_back():
    null = json_null()
    run, _ = runs.repair({"json": rule(details={"a": 1})}, using="default")
    assert details(null) == {"a": 1}
    runs.undo(run, using="default")
    assert stored_null(null) == (False, True)
