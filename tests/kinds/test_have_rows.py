import json
import re
import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from reconcile import EXTRA, HaveRows, HaveValues, Rule, Settle
from reconcile.core.drift import Guarantee, Status
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
    mendable,
    repaired,
    statements,
    unaddressed,
)
from tests.zoo.models import Bill, Device, Mention, Note, Page, Word

pytestmark = pytest.mark.django_db


def mentions_of(text):
    return sorted(set(re.findall(r"@(\w+)", text)))


def places_of(text):
    names = re.findall(r"@(\w+)", text)
    return [{"user_name": name, "position": names.index(name)} for name in dict.fromkeys(names)]


def words_of(text):
    return [{"word": word, "weight": Decimal(len(word)) / 3} for word in text.split()]


def rule(every=Note, model=Mention, **options):
    given = {"link": {"note": F("pk")}, "rows": mentions_of, "reads": ["text"], "key": ["user_name"]}
    return Rule(name="rows", every=every, must=HaveRows(model, **{**given, **options}))


PLACES = rule(rows=places_of, values=["position"])
WORDS = rule(model=Word, link={"number": F("pk")}, rows=words_of, key=["word"], values=["weight"])


def note(text="", *names, **columns):
    made = Note.objects.create(text=text, **columns)
    Mention.objects.bulk_create([Mention(note=made, user_name=name) for name in names])
    return made


def names(record):
    return sorted(Mention.objects.filter(note=record).values_list("user_name", flat=True))


def test_missing_rows_are_found_and_inserted():
    none, some = note("@ada and @bob"), note("@ada @cy", "ada")
    assert_finds(rule(), missing=[none, some])
    assert_repairs(rule(), insert=3)
    assert (names(none), names(some)) == (["ada", "bob"], ["ada", "cy"])


def test_the_rows_that_the_function_gives_are_not_found():
    note("@ada and @bob", "bob", "ada"), note("nobody")
    assert_clean(rule())


def test_rows_that_the_function_does_not_give_are_extra_and_left():
    made = note("@ada", "ada", "cy", "bob")
    assert_finds(rule(), extra=Mention.objects.exclude(user_name="ada"))
    assert_repairs(rule())
    assert len(names(made)) == 3


def test_rows_without_a_record_are_extra_wherever_they_are():
    first, last = note("@ada", "ada"), note("", "x")
    Mention.objects.bulk_create([Mention(note_id=key, user_name="y") for key in (first.pk, last.pk + 999)])
    Note.objects.filter(pk=last.pk).delete()
    Mention.objects.bulk_create([Mention(note_id=last.pk, user_name="z")])
    assert_finds(rule(), extra=Mention.objects.exclude(user_name="ada"))


def test_rows_are_extra_where_there_is_no_record_at_all():
    Mention.objects.bulk_create([Mention(note_id=5, user_name="ada")])
    assert_finds(rule(), extra=Mention.objects.all())


def test_rows_of_a_record_outside_every_are_extra():
    note("@ada", "ada", slug="draft")
    assert_finds(rule(Note.objects.exclude(slug="draft")), extra=Mention.objects.all())


def test_stale_rows_are_found_and_corrected():
    wrong, right = note("@ada @bob"), note("@ada")
    Mention.objects.bulk_create([Mention(note=wrong, user_name=name, position=1) for name in ("ada", "bob")])
    Mention.objects.create(note=right, user_name="ada")
    assert_finds(PLACES, stale=[wrong])
    assert_repairs(PLACES, update=1)
    assert list(Mention.objects.filter(note=wrong).order_by("pk").values_list("position", flat=True)) == [
        0,
        1,
    ]
    change = Change.objects.get()
    assert (change.model, change.before, change.after) == ("zoo.Mention", {"position": 1}, {"position": 0})


def test_missing_stale_and_extra_of_one_record():
    made = note("@ada @bob")
    Mention.objects.create(note=made, user_name="bob", position=7)
    extra = Mention.objects.create(note=made, user_name="cy")
    assert_finds(PLACES, missing=[made], stale=[made], extra=[extra])
    result = repaired(PLACES)
    assert (result.written.insert, result.written.update, result.left, mendable(result)) == (1, 1, 1, 0)
    assert_finds(PLACES, extra=[extra])


def test_of_two_rows_with_the_same_key_the_later_is_extra():
    made = note("a")
    first, second = (Word.objects.create(number=made.pk, word="a", weight=Decimal("0.33")) for _ in range(2))
    assert_finds(WORDS, extra=[second])
    assert first.pk < second.pk


def test_values_are_compared_as_the_column_stores_them():
    made = note("ab abcdefg")
    assert_repairs(WORDS, insert=2)
    assert set(Word.objects.filter(number=made.pk).values_list("word", "weight")) == {
        ("ab", Decimal("0.67")),
        ("abcdefg", Decimal("2.33")),
    }
    assert_clean(WORDS)


def test_keys_that_differ_only_in_case_or_a_trailing_space_are_two():
    made = note("a")
    for word in ("A", "a "):
        Word.objects.create(number=made.pk, word=word, weight=Decimal("0.33"))
    assert_finds(WORDS, missing=[made], extra=Word.objects.all())
    result = repaired(WORDS)
    assert result.written.insert == 1
    assert_finds(WORDS, extra=Word.objects.exclude(pk=Word.objects.latest("pk").pk))


def test_null_is_a_value_like_any_other():
    give = rule(
        model=Bill, link={"basket_number": F("pk")}, rows=lambda text: [{"kind": "a", "amount": 1}],
        key=["kind"], values=["amount"],
    )  # fmt: skip
    note("x"), Bill.objects.create(basket_number=None, kind="b")
    assert_repairs(give, insert=1)


def test_a_constant_in_the_link_says_which_rows_count():
    tagged = rule(
        model=Word, link={"number": F("pk"), "kind": "tag"}, rows=lambda text: text.split(), key=["word"]
    )
    made = note("a b")
    Word.objects.create(number=made.pk, kind="word", word="c")
    Word.objects.create(number=made.pk, kind="tag", word="a")
    assert_finds(tagged, missing=[made])
    assert_repairs(tagged, insert=1)
    assert Word.objects.get(word="b").kind == "tag"


def test_another_link_column_over_the_record_is_compared_and_written():
    linked = rule(
        model=Word, link={"number": F("pk"), "kind": F("slug")}, rows=lambda text: text.split(), key=["word"]
    )
    made = note("a b", slug="en")
    Word.objects.create(number=made.pk, kind="en", word="a")
    other = Word.objects.create(number=made.pk, kind="de", word="b")
    assert_finds(linked, missing=[made], extra=[other])
    assert repaired(linked).written.insert == 1
    assert_finds(linked, extra=[other])
    assert Word.objects.filter(number=made.pk, kind="en").count() == 2


def test_paths_over_foreign_keys_are_read():
    lamp = Device.objects.create(name="Lamp")
    made = note("x", author=lamp)
    named = rule(rows=lambda text, name: [name], reads=["text", "author__name"])
    assert_repairs(named, insert=1)
    assert names(made) == ["Lamp"]


def test_a_text_key_carries_the_range_too():
    spelled = rule(Page, Word, link={"page_code": F("pk")}, rows=list, reads=["code"], key=["word"])
    Page.objects.create(code="ab"), Page.objects.create(code="cd")
    Word.objects.create(page_code="ab", word="a"), Word.objects.create(page_code="AB", word="a")
    assert_finds(
        spelled,
        missing=["ab", "cd"],
        extra=Word.objects.filter(page_code__startswith="A", pk__gt=Word.objects.earliest("pk").pk),
    )
    result = repaired(spelled)
    assert (result.written.insert, mendable(result), result.error) == (3, 0, None)


def test_a_uuid_key_carries_the_range_too():
    notes = rule(Device, Note, link={"author": F("pk")}, rows=list, reads=["name"], key=["text"])
    one = Device.objects.create(name="ab")
    Device.objects.create(name="")
    Note.objects.create(author=one, text="b"), Note.objects.create(author=None, text="c")
    assert_finds(notes, missing=[one])
    assert_repairs(notes, insert=1)


def test_a_young_record_is_not_judged_and_its_rows_are_not_extra():
    young = Rule(name="young", every=Note, must=rule().must, settle=Settle("seen_at", minutes=15))
    old = note("@ada", seen_at=an_hour_ago())
    note("@ada", "cy", seen_at=timezone.now())
    assert_finds(young, missing=[old])
    assert checked(young).tally.settling == 1
    assert_repairs(young, insert=1)


def test_other_rows_stay_untouched_and_the_inserted_are_in_the_journal():
    made, _right = note("@ada"), note("@bob", "bob")
    Word.objects.create(word="x")
    before = everything()
    assert_repairs(rule(), insert=1)
    after = everything()
    assert {label for label in after if after[label] != before[label]} == {"zoo.Mention"}
    assert set(before["zoo.Mention"]) < set(after["zoo.Mention"])
    change = Change.objects.get()
    assert (change.verb, change.model, change.before) == ("insert", "zoo.Mention", None)
    assert (change.after["note_id"], change.after["user_name"]) == (made.pk, "ada")


def test_a_column_that_the_rule_does_not_name_gets_its_default():
    note("@ada")
    assert_repairs(rule(), insert=1)
    mention = Mention.objects.get()
    assert mention.position == 0
    assert abs(mention.made_at - timezone.now()) < timedelta(minutes=1)


def test_records_that_the_default_manager_hides_are_read_too():
    from tests.zoo.models import Shy

    Shy._base_manager.create(visible=False, value=3)
    shy = rule(
        Shy,
        Word,
        link={"number": F("pk")},
        rows=lambda value: ["x"] * bool(value),
        reads=["value"],
        key=["word"],
    )
    assert_repairs(shy, insert=1)


def failing(broken):
    result = check(broken, using="default", now=timezone.now())
    assert result.status is Status.ERROR
    assert repaired(broken).written.total == 0
    return result.error


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (lambda text: ["a", "b", "a"], {}, "gives the key 'a' twice"),
        (lambda text: text, {}, "not a list of rows"),
        (lambda text: None, {}, "NoneType"),
        (lambda text: 1 / 0, {}, "ZeroDivisionError"),
        (lambda text: (1 / 0 for _ in "a"), {}, "ZeroDivisionError"),
        (lambda text: [{"user_nam": "a"}], {}, "Did you mean 'user_name'?"),
        (lambda text: [{"user_name": "a", "made_at": 1}], {}, "Name it in values="),
        (lambda text: [{"user_name": "a"}], {"values": ["position"]}, "without 'position'"),
        (lambda text: ["a"], {"values": ["position"]}, "not a mapping of user_name, position"),
    ],
    ids=unaddressed,
)
def test_what_the_function_gives_wrongly_is_an_error_that_names_the_record(rows, options, said):
    made = note("text")
    error = failing(rule(rows=rows, **options))
    assert said in error
    assert f"zoo.Note {made.pk}" in error
    assert "<lambda>()" in error


def test_the_same_number_of_statements_at_10_and_1000_rows():
    """Of a check. A repair inserts 500 rows a statement, on SQLite fewer."""
    counts = []
    for number in (10, 1_000):
        Mention.objects.all().delete()
        Note.objects.all().delete()
        Note.objects.bulk_create([Note(text="@ada") for _ in range(number)])
        with statements() as captured:
            checked(PLACES, samples=0)
        counts.append(len(captured))
        assert repaired(rule()).written.insert == number
    assert counts[0] == counts[1]


def test_all_kinds_of_drift_come_of_two_statements_a_window():
    """The last window is open at its end for EXTRA, and so is read again."""
    note("@ada"), note("", "cy")
    with statements() as captured:
        checked(PLACES)
    sent = [
        each["sql"] for each in captured if not re.search("pragma|pg_class|information_schema", each["sql"])
    ]
    reading = [sql for sql in sent if "zoo_mention" in sql or "text" in sql]
    assert sum("SELECT" in sql for sql in reading) == 4


def test_a_rule_that_writes_what_the_function_reads_runs_first():
    from django.db.models.functions import Lower

    texts = Rule(name="texts", every=Note, must=HaveValues(text=Lower("text")))
    ordered = sort_rules({"rows": rule(), "texts": texts}, using="default", now=timezone.now()).rules
    assert [each.name for each in ordered] == ["texts", "rows"]


def test_the_sentence_names_rows_link_and_function():
    assert rule().sentence == (
        "Every zoo note must have exactly the mentions with note = pk that tests.kinds.test_have_rows.mentions_of(text) gives by user_name."
    )


def test_the_guarantee_is_constraint_where_one_covers_link_and_key():
    assert rule().guarantee("default") == Guarantee.CONSTRAINT
    assert WORDS.guarantee("default") == {"mysql": Guarantee.NONE}.get(connection.vendor, Guarantee.LOCK)


@pytest.mark.parametrize(
    ("options", "fault_id", "said"),
    [
        ({"rows": None}, "E012", "rows= is None"),
        ({"rows": "mentions_of"}, "E012", "Give a function"),
        ({"reads": ()}, "E012", "reads= is ()"),
        ({"reads": ["tex"]}, "E013", "Did you mean 'text'?"),
        ({"reads": ["text", "slug"]}, "E012", "can't take 2 columns"),
        ({"key": ()}, "E012", "key= is empty"),
        ({"key": "user_name"}, "E012", "Give a list of column names"),
        ({"key": ["user_nam"]}, "E013", "Did you mean 'user_name'?"),
        ({"values": ["posit"]}, "E013", "Did you mean 'position'?"),
        ({"values": [3]}, "E012", "Give a list of column names"),
        ({"values": ["user_name"]}, "E012", "named twice"),
        ({"key": ["note"]}, "E012", "named twice"),
        ({"link": {}}, "E012", "link= is empty"),
        ({"link": {"note": F("pkk")}}, "E013", "HaveRows(link="),
        ({"link": {"position": F("pk")}}, "E014", "no value for note"),
        ({"link": {"position": F("rank")}}, "E015", "holds the record's key"),
        ({"model": Word, "link": {"kind": F("slug")}, "key": ["word"]}, "E015", "holds the record's key"),
        ({"model": Bill, "link": {"basket_number": F("pk")}, "key": ["details"]}, "E015", "is no key"),
        ({"model": 3}, "E012", "not a model"),
    ],
    ids=repr,
)
def test_what_is_wrong_is_a_fault_with_the_way_out(options, fault_id, said):
    ((found, text),) = [(fault.id, str(fault)) for fault in rule(**options).faults()]
    assert found == f"reconcile.{fault_id}", text
    assert said in text


def test_a_declaration_without_fault():
    assert [str(fault) for each in (rule(), PLACES, WORDS) for fault in each.faults()] == []


def test_documents_among_the_values_are_compared_as_json():
    give = rule(
        model=Bill, link={"basket_number": F("pk")}, key=["kind"], values=["details"],
        rows=lambda text: [{"kind": "a", "details": {"length": len(text), "on": True}}],
    )  # fmt: skip
    made = note("abc")
    bill = Bill.objects.create(basket_number=made.pk, kind="a", details={"on": 1, "length": 3})
    assert_finds(give, stale=[made])
    assert_repairs(give, update=1)
    bill.refresh_from_db()
    assert bill.details == {"length": 3, "on": True}
    assert json.loads(Change.objects.get().before["details"]) == {"on": 1, "length": 3}


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_handler_in_flight_that_inserts_a_row_is_neither_doubled_nor_killed():
    records = [note("@ada @bob") for _ in range(3)]
    inserted, go_on = threading.Event(), threading.Event()

    def handler():
        with transaction.atomic():
            Mention.objects.bulk_create([Mention(note=records[1], user_name="bob")])
            inserted.set()
            assert go_on.wait(30)

    session, repair = Session(handler), Session(lambda: repaired(rule()))
    session.start()
    assert inserted.wait(30)
    repair.start()
    threading.Event().wait(0.2)
    go_on.set()
    session.join()
    result = repair.join()
    again = repaired(rule())
    assert (result.error, result.left + again.left, again.why_stopped) == (None, 0, "")
    assert [names(each) for each in records] == [["ada", "bob"]] * 3
    own = str(Mention.objects.get(note=records[1], user_name="bob").pk)
    journalled = set(Change.objects.values_list("key", flat=True))
    assert own not in journalled
    assert len(journalled) == 5


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_row_that_another_session_holds_is_left_and_the_others_are_corrected():
    records = [note("@ada @bob") for _ in range(3)]
    Mention.objects.bulk_create(
        [Mention(note=each, user_name=name, position=9) for each in records for name in ("ada", "bob")]
    )
    held, go_on = threading.Event(), threading.Event()

    def holder():
        with transaction.atomic():
            list(Mention.objects.select_for_update().filter(note=records[0], user_name="ada"))
            held.set()
            assert go_on.wait(60)

    session = Session(holder)
    session.start()
    assert held.wait(30)
    try:
        result = repaired(PLACES)
    finally:
        go_on.set()
        session.join()
    assert (result.written.update, result.left, result.skipped) == (5, 1, 1)
    assert repaired(PLACES).written.update == 1


def test_extra_rows_are_found_by_their_own_keys():
    made = note("@ada", "ada", "bob")
    compiled = rule().compile(using="default", now=timezone.now())
    finder = next(each for each in compiled.finders if each.drift is EXTRA)
    from reconcile.core.scopes import Keys

    ada, bob = (Mention.objects.get(note=made, user_name=name).pk for name in ("ada", "bob"))
    assert list(finder.keys(Keys([ada, bob]))) == [bob]
    assert list(finder.keys(Keys([ada]))) == []
    assert list(finder.find(Keys([ada, bob])).values_list("pk", flat=True)) == [bob]


def test_a_record_with_null_in_its_link_owes_no_rows():
    without, with_one = note("@a"), note("@b")
    Note.objects.filter(pk=with_one.pk).update(rank=3)
    Note.objects.filter(pk=without.pk).update(rank=None)
    placed = rule(link={"note": F("pk"), "position": F("rank")})
    assert_finds(placed, missing=[with_one])
    assert_repairs(placed, insert=1)
    assert_clean(placed)
    assert list(Mention.objects.values_list("note", "position")) == [(with_one.pk, 3)]
    assert placed.sentence.endswith("gives by user_name, if rank is not NULL.")


@pytest.mark.parametrize(
    ("value", "said"), [("a" * 41, "it has more than 40 characters"), (None, "the column can't be NULL")]
)
def test_a_key_that_cannot_be_stored_is_told_of_its_record(value, said):
    made = note("text")
    found = checked(rule(rows=lambda text: [value]))
    assert (found.tally.total, found.unrepairable) == (1, 1)
    assert said in found.notes[0]
    assert f"zoo.Note {made.pk}" in found.notes[0]


def test_a_record_with_a_row_that_cannot_be_stored_is_told_apart_and_the_others_are_repaired():
    heavy = rule(
        model=Word,
        link={"number": F("pk")},
        rows=lambda text: [
            {"word": word, "weight": "heavy" if word == "lead" else 1} for word in text.split()
        ],
        key=["word"],
        values=["weight"],
    )
    made = [note(text) for text in ("feather", "lead feather", "cork", "straw")]
    Word.objects.create(number=made[2].pk, word="cork", weight=5)
    Word.objects.create(number=made[1].pk, word="old", weight=5)
    found = checked(heavy)
    assert (found.tally.total, found.unrepairable) == (4, 1)
    assert str(made[1].pk) in {each.key for each in found.samples}
    assert "'heavy', which can't be stored in 'weight'" in found.notes[0]
    result = repaired(heavy)
    assert (result.written.insert, result.written.update, result.left, result.error) == (2, 1, 1, None)
    assert "'heavy', which can't be stored in 'weight'" in result.why_stopped
    assert repaired(heavy).written.total == 0


def test_rows_without_a_record_beside_one_that_fails_are_found():
    made = [note(text) for text in ("feather", "lead", "cork", "straw")]
    heavy = rule(
        every=Note.objects.exclude(text__in=["gone", "gone too"]), model=Word, link={"number": F("pk")}, key=["word"],
        rows=lambda text: [None if word == "lead" else word for word in text.split()],
    )  # fmt: skip
    Word.objects.bulk_create(Word(number=each.pk, word=each.text) for each in made)
    Note.objects.filter(pk__in=[made[0].pk, made[2].pk]).delete()
    Word.objects.create(number=made[3].pk + 50, word="late")
    found = checked(heavy)
    assert (found.tally[EXTRA], found.unrepairable) == (3, 1)
