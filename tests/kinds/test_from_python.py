import math
import threading
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.db.models import Count, F, Value
from django.db.models.functions import Lower, Upper
from django.db.models.signals import post_init
from django.utils import timezone

from reconcile import FromPython, HaveRow, HaveValues, Rule, Settle
from reconcile.core.drift import STALE, Guarantee, Status
from reconcile.core.finder import PAGE, read_pages
from reconcile.core.scopes import Window
from reconcile.detect.checking import check
from reconcile.models import Change
from reconcile.rules.order import sort_rules
from tests.helpers import (
    Session,
    an_hour_ago,
    assert_clean,
    assert_finds,
    assert_repairs,
    checked,
    everything,
    repaired,
    statements,
    unaddressed,
)
from tests.zoo.models import Device, Mention, Note, Page, Player, Shy, Team

pytestmark = pytest.mark.django_db


def slug_of(text):
    return text.strip().lower().replace(" ", "-")


SLUG = FromPython(slug_of, reads=["text"])


def rule(every=Note, **columns):
    return Rule(name="values", every=every, must=HaveValues(**columns))


def always(value):
    return FromPython(lambda _: value, reads=["text"])


def faults(**columns):
    return [(fault.id, str(fault)) for fault in rule(**columns).faults()]


def test_a_value_that_the_function_does_not_give_is_found_and_set():
    wrong, _right = Note.objects.create(text="A Title"), Note.objects.create(text="B", slug="b")
    assert_finds(rule(slug=SLUG), stale=[wrong])
    assert_repairs(rule(slug=SLUG), update=1)
    wrong.refresh_from_db()
    assert wrong.slug == "a-title"


def test_a_value_that_the_function_gives_is_not_found():
    Note.objects.create(text="Some Title", slug="some-title")
    assert_clean(rule(slug=SLUG))


def test_text_that_differs_only_in_case_or_a_trailing_space_is_found():
    for slug in ("TITLE", "title "):
        Note.objects.create(text="title", slug=slug)
    assert_finds(rule(slug=SLUG), stale=Note.objects.all())
    assert_repairs(rule(slug=SLUG), update=2)
    assert set(Note.objects.values_list("slug", flat=True)) == {"title"}


def test_paths_over_foreign_keys_are_read_and_missing_ones_are_none():
    lamp = Device.objects.create(name="Lamp")
    linked, unlinked = Note.objects.create(author=lamp, text="x"), Note.objects.create(text="x")

    def named(text, name):
        return f"{text}-{name or 'nobody'}"

    named_rule = rule(slug=FromPython(named, reads=["text", "author__name"]))
    assert_repairs(named_rule, update=2)
    linked.refresh_from_db(), unlinked.refresh_from_db()
    assert (linked.slug, unlinked.slug) == ("x-Lamp", "x-nobody")


def test_a_null_that_is_expected_equals_null_alone():
    Note.objects.create(rank=None)
    wrong = Note.objects.create(rank=0)
    assert_finds(rule(rank=always(None)), stale=[wrong])
    assert_repairs(rule(rank=always(None)), update=1)


@pytest.mark.parametrize(
    ("column", "value", "kept"),
    [
        ("text", 17, "17"),
        ("slug", "Ärger 😀"[:7], "Ärger 😀"),
        ("rank", "12", 12),
        ("rank", 3.0, 3),
        ("rank", True, 1),
        ("price", Decimal("1.005"), Decimal("1.01")),
        ("price", Decimal("-1.005"), Decimal("-1.01")),
        ("price", Decimal("2.675"), Decimal("2.68")),
        ("price", 0.1 + 0.2, Decimal("0.30")),
        ("price", 3, Decimal("3.00")),
        ("price", Decimal("1E+3"), Decimal("1000.00")),
        ("rate", 0.1 + 0.2, 0.1 + 0.2),
        ("rate", 1e-320, 1e-320),
        ("rate", 3, 3.0),
        ("flag", 1, True),
        ("seen_at", datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC), None),
        ("seen_at", "2026-03-01T12:00:00+02:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("day", datetime(2026, 3, 1, 12, tzinfo=UTC), date(2026, 3, 1)),
        ("span", timedelta(days=-3, microseconds=7), None),
        ("raw", bytearray(b"\x00\xff"), b"\x00\xff"),
        ("raw", b"", None),
        ("token", "12345678123456781234567812345678", uuid.UUID("12345678123456781234567812345678")),
    ],
    ids=repr,
)
def test_a_repaired_value_is_never_found_again(column, value, kept):
    Note.objects.create(flag=False, text="before")
    assert_repairs(rule(**{column: always(value)}), update=1)
    read = Note.objects.values_list(column, flat=True).get()
    assert (bytes(read) if column == "raw" else read) == (value if kept is None else kept)


def test_a_decimal_with_more_digits_than_sqlite_keeps_is_not_found_again():
    Note.objects.create()
    assert_repairs(rule(price=always(Decimal("123456789012345678.91"))), update=1)


def test_infinity_is_kept_where_the_database_knows_it():
    Note.objects.create()
    if connection.vendor == "postgresql":
        assert_repairs(rule(rate=always(math.inf)), update=1)
    else:
        assert "can't be stored" in remark_of(rule(rate=always(math.inf)))


def test_not_a_number_equals_itself_where_the_database_knows_it():
    Note.objects.create()
    if connection.vendor == "postgresql":
        assert_repairs(rule(rate=always(math.nan)), update=1)
    else:
        assert "can't be stored" in remark_of(rule(rate=always(math.nan)))


def remark_of(unstorable):
    """What a check says of the only record, whose value can't be stored: it drifts, and can't be repaired."""
    result = check(unstorable, using="default", now=timezone.now())
    assert (result.status, result.tally[STALE], result.error) == (Status.FAIL, 1, None)
    repair = repaired(unstorable)
    assert (repair.written.total, repair.left, repair.incomplete) == (0, 1, True)
    (remark,) = result.remarks
    assert remark.startswith("1 of the stale records can't be repaired. ")
    return remark


def checked_error(broken):
    result = check(broken, using="default", now=timezone.now())
    assert result.status is Status.ERROR
    assert result.tally.total == 0
    return result.error


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("slug", None, "can't be NULL"),
        ("slug", "x" * 21, "more than 20 characters"),
        ("slug", "\ud800", "surrogates"),
        ("slug", F("text"), "an expression"),
        ("rank", 2.5, "no whole number"),
        ("rank", "many", "integer"),
        ("rank", 2**70, "holds"),
        ("price", Decimal("1e18"), "more than 20 digits"),
        ("price", Decimal("NaN"), "decimal"),
        ("price", Decimal("Infinity"), "decimal"),
        ("price", "dear", "decimal"),
        ("flag", "perhaps", "True or False"),
        ("seen_at", datetime(2026, 3, 1), "no time zone"),  # noqa: DTZ001
        ("seen_at", date(2026, 3, 1), "without a time"),
        ("raw", "text", "not bytes"),
        ("token", "short", "UUID"),
    ],
    ids=repr,
)
def test_a_value_that_the_column_cannot_store_is_told_with_record_and_value(column, value, said):
    note = Note.objects.create()
    error = remark_of(rule(**{column: always(value)}))
    assert f"zoo.Note {note.pk}, which can't be stored in {column!r}" in error
    assert said in error


def test_an_exception_of_the_function_is_an_error_and_never_a_pass():
    note = Note.objects.create()

    def broken(text):
        raise KeyError(text)

    error = checked_error(rule(slug=FromPython(broken, reads=["text"])))
    assert error.startswith(f"broken() failed for zoo.Note {note.pk}: KeyError: ''.")
    result = repaired(rule(slug=FromPython(broken, reads=["text"])))
    assert result.status is Status.ERROR
    assert result.written.total == 0


def test_an_expression_of_the_database_beside_it_is_compared_and_written_too():
    lamp = Device.objects.create(name="LAMP")
    right = Note.objects.create(author=lamp, text="LAMP", slug="lamp")
    one = Note.objects.create(author=lamp, text="other", slug="lamp")
    two = Note.objects.create(author=lamp, text="LAMP", slug="x")
    both = rule(slug=FromPython(slug_of, reads=["author__name"]), text=Upper(F("author__name")))
    assert_finds(both, stale=[one, two])
    assert_repairs(both, update=2)
    assert Note.objects.filter(slug="lamp", text="LAMP").count() == 3
    assert not Change.objects.filter(key=str(right.pk)).exists()


def test_an_aggregate_of_the_database_beside_it_is_compared_and_written_too():
    team, full = Team.objects.create(name="Red"), Team.objects.create(name="blue", player_count=1)
    Player.objects.create(team=full)
    Player.objects.create(team=team)
    both = Rule(
        name="both",
        every=Team,
        must=HaveValues(name=FromPython(slug_of, reads=["name"]), player_count=Count("players")),
    )
    assert_finds(both, stale=[team])
    assert_repairs(both, update=1)
    team.refresh_from_db()
    assert (team.name, team.player_count) == ("red", 1)


def test_only_the_rule_s_columns_of_stale_rows_are_written():
    wrong, right = Note.objects.create(text="A", rank=3), Note.objects.create(text="b", slug="b")
    before = everything()
    assert_repairs(rule(slug=SLUG), update=1)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Note"}
    change = Change.objects.get()
    assert (change.key, change.before, change.after) == (str(wrong.pk), {"slug": ""}, {"slug": "a"})
    assert Note.objects.get(pk=right.pk).slug == "b"


def test_a_young_record_is_left_alone():
    old, _young = (Note.objects.create(text="x", seen_at=when) for when in (an_hour_ago(), timezone.now()))
    settling = Rule(
        name="young", every=Note, must=HaveValues(slug=SLUG), settle=Settle("seen_at", minutes=15)
    )
    assert_finds(settling, stale=[old])
    assert checked(settling).tally.settling == 1
    assert_repairs(settling, update=1)


def test_records_that_the_default_manager_hides_are_read_and_written_too():
    hidden = Shy._base_manager.create(visible=False, value=1)
    doubled = rule(Shy, value=FromPython(lambda visible: 2, reads=["visible"]))
    assert_finds(doubled, stale=[hidden])
    assert_repairs(doubled, update=1)


def test_a_text_key_and_a_uuid_key():
    Page.objects.create(code="a"), Page.objects.create(code="b", visits=1)
    visited = rule(Page, visits=FromPython(len, reads=["code"]))
    assert_finds(visited, stale=["a"])
    assert_repairs(visited, update=1)
    device = Device.objects.create(name="X")
    assert_finds(rule(Device, name=FromPython(slug_of, reads=["name"])), stale=[device])
    assert_repairs(rule(Device, name=FromPython(slug_of, reads=["name"])), update=1)


def test_a_foreign_key_is_given_as_a_record_or_as_its_key():
    lamp = Device.objects.create(name="Lamp")
    Note.objects.create()
    assert_repairs(rule(author=always(lamp)), update=1)
    assert_clean(rule(author=always(str(lamp.pk))))


@pytest.mark.parametrize("size", [1, 3, 9, 10, 11])
@pytest.mark.parametrize("bounds", [(None, None), (2, 9), (0, 10), (None, 10)])
def test_the_pages_are_the_scope_in_key_order(size, bounds):
    keys = [Note.objects.create().pk for _ in range(10)]
    after, upto = (None if bound is None else keys[0] - 1 + bound for bound in bounds)
    read = list(
        read_pages(
            lambda part: Note.objects.filter(part.on("pk")).values_list("pk"), Window(after, upto), size
        )
    )
    assert [key for _, page in read for (key,) in page] == keys[bounds[0] or 0 : bounds[1]]
    assert [part.after for part, _ in read] == [after, *(part.upto for part, _ in read[:-1])]
    assert read[-1][0].upto == upto
    assert all(len(page) <= size for _, page in read)


def test_more_records_than_one_page_holds():
    Note.objects.bulk_create([Note(text="x") for _ in range(PAGE + 1)], batch_size=2_000)
    assert checked(rule(slug=SLUG)).tally[STALE] == PAGE + 1


def test_the_same_number_of_statements_at_10_and_1000_rows():
    """Of a check. A repair writes 500 rows a statement, on SQLite 333: one or three statements more."""
    counts = []
    for number in (10, 1_000):
        Note.objects.all().delete()
        Note.objects.bulk_create([Note(text="x") for _ in range(number)])
        with statements() as captured:
            checked(rule(slug=SLUG))
        counts.append(len(captured))
        with statements() as captured:
            assert repaired(rule(slug=SLUG)).written.update == number
        counts.append(len(captured))
    assert counts[0] == counts[2]
    assert counts[3] - counts[1] <= 3


def test_a_check_builds_no_instance():
    Note.objects.create(text="x")
    built = []

    def note(sender, **_):
        built.append(sender)

    post_init.connect(note)
    try:
        assert checked(rule(slug=SLUG)).tally[STALE] == 1
    finally:
        post_init.disconnect(note)
    assert built == []


def test_a_rule_that_writes_what_the_function_reads_runs_first():
    slugs = Rule(name="slugs", every=Note, must=HaveValues(slug=SLUG))
    texts = Rule(name="texts", every=Note, must=HaveValues(text=Lower("text")))
    by_name = Rule(name="by_name", every=Note, must=HaveValues(rank=FromPython(len, reads=["author__name"])))
    names = Rule(name="names", every=Device, must=HaveValues(name=Lower("name")))
    rules = {each.name: each for each in (slugs, by_name, texts, names)}
    ordered = [each.name for each in sort_rules(rules, using="default", now=timezone.now()).rules]
    assert ordered.index("texts") < ordered.index("slugs")
    assert ordered.index("names") < ordered.index("by_name")


def test_the_sentence_names_function_and_columns():
    assert (
        rule(slug=SLUG).sentence
        == "Every zoo note must have slug = tests.kinds.test_from_python.slug_of(text)."
    )


def test_the_guarantee_is_constraint():
    assert rule(slug=SLUG).guarantee("default") == Guarantee.CONSTRAINT


async def later(text):
    return text


class Callable:
    def __call__(self, text):
        return text


@pytest.mark.parametrize(
    ("value", "fault_id", "said"),
    [
        (FromPython("slug_of", reads=["text"]), "E012", "'slug_of'. Give a function"),
        (FromPython(slug_of, reads="text"), "E012", "reads= is 'text'"),
        (FromPython(slug_of), "E012", "reads= is ()"),
        (FromPython(slug_of, reads=[3]), "E012", "reads= has 3"),
        (FromPython(slug_of, reads=["tex"]), "E013", "Did you mean 'text'?"),
        (FromPython(slug_of, reads=["author__nam"]), "E013", "Did you mean 'name'?"),
        (FromPython(slug_of, reads=["mentions__user_name"]), "E013", "leads to many rows"),
        (FromPython(slug_of, reads=["text", "slug"]), "E012", "can't take 2 columns"),
        (FromPython(lambda a, b: a, reads=["text"]), "E012", "can't take 1 columns"),
        (FromPython(later, reads=["text"]), "E015", "coroutine"),
    ],
    ids=unaddressed,
)
def test_what_is_wrong_is_a_fault_with_the_way_out(value, fault_id, said):
    ((found, text),) = faults(slug=value)
    assert found == f"reconcile.{fault_id}"
    assert said in text


def test_what_can_be_called_is_no_fault():
    assert faults(slug=SLUG, rank=FromPython(len, reads=["text"])) == []
    assert faults(slug=FromPython(Callable(), reads=["text"])) == []
    assert faults(slug=FromPython(lambda *columns: "", reads=["text", "author__name", "pk"])) == []


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"slag": SLUG}, "Did you mean 'slug'?"),
        ({"id": SLUG}, "primary key"),
        ({"slug__a": SLUG}, "no JSON column"),
        ({"author": SLUG, "author_id": SLUG}, "already says"),
    ],
    ids=unaddressed,
)
def test_a_column_that_cannot_be_written_is_a_fault(columns, said):
    found = faults(**columns)
    assert any(said in text for _, text in found), found


def test_the_value_of_a_row_is_none_for_have_row():
    must = HaveRow(Mention, link={"note": F("pk")}, values={"user_name": SLUG})
    (fault,) = Rule(name="row", every=Note, must=must).faults()
    assert fault.id == "reconcile.E012"
    assert "FromPython(…) is not served here" in fault.message


def test_a_constant_beside_it_is_set():
    Note.objects.create(text="x", slug="x", rank=1)
    assert_repairs(rule(slug=SLUG, rank=Value(2)), update=1)


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_the_value_is_computed_from_what_another_session_has_written_meanwhile():
    notes = [Note.objects.create(text="Old") for _ in range(3)]
    written, go_on = threading.Event(), threading.Event()

    def handler():
        with transaction.atomic():
            Note.objects.filter(pk=notes[1].pk).update(text="New")
            written.set()
            assert go_on.wait(30)

    session, repair = Session(handler), Session(lambda: repaired(rule(slug=SLUG)))
    session.start()
    assert written.wait(30)
    repair.start()
    threading.Event().wait(0.3)
    go_on.set()
    session.join()
    result = repair.join()
    repaired(rule(slug=SLUG))
    assert result.error is None
    assert list(Note.objects.order_by("pk").values_list("slug", flat=True)) == ["old", "new", "old"]


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_two_repairs_at_once_write_each_record_once():
    Note.objects.bulk_create([Note(text="Title") for _ in range(300)])
    compiled = [rule(slug=SLUG).compile(using="default", now=timezone.now()) for _ in range(2)]
    assert [each.finders[0].count(Window()) for each in compiled] == [300, 300]
    sessions = [Session(lambda: repaired(rule(slug=SLUG))) for _ in range(2)]
    for each in sessions:
        each.start()
    for each in sessions:
        each.join()
    assert Note.objects.filter(slug="title").count() == 300
    assert Change.objects.count() == 300


@pytest.mark.django_db(databases=["default"])
def test_finder_and_remedy_speak_to_the_database_of_the_run():
    compiled = rule(slug=SLUG).compile(using="default", now=timezone.now())
    assert compiled.finders[0].using == "default"
    assert compiled.finders[0].reads(Window()).db == "default"
