"""Undo at its edges: rows with several changes, rows that refer to each other, and columns that aren't what they seem."""

from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from django.apps import apps
from django.db import connection, models
from django.db.models import F, Value
from django.test import override_settings

from reconcile import EXTRA, BeUnique, Delete, HaveRow, HaveValues, Rule
from reconcile.errors import UsageError
from reconcile.models import Change
from reconcile.undo.changes import read_changes
from reconcile.undo.groups import group_changes
from reconcile.undo.taking_back import UndoWork
from tests.helpers import raw_rows, raw_tables, statements
from tests.undo.test_undoing import counts, left, previewed, repair, undo
from tests.zoo.models import Basket, Bill, Contact, Node, Page, Parcel, ParcelProxy, Player, Tag, Team

CHANGED = "The row has been changed since."

LATER = "A later change of the row was left."

# One run writes a row twice by rules in turn: what the second writes takes the row out of the first.
LABELLED = Rule(name="labelled", every=Basket.objects.exclude(label="newer"), must=HaveValues(label="new"))

SCORED = Rule(name="scored", every=Basket, must=HaveValues(score=2))

BOTH = Rule(name="both", every=Basket, must=HaveValues(label=Value("newer"), score=2))

OWED = Rule(name="owed", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}))

on_tables_of_their_own = pytest.mark.django_db(transaction=True)


@contextmanager
def table(name, **fields):
    """A model of this name with a table, for a while."""
    options = {
        "managed": fields.pop("managed", True),
        "app_label": "zoo",
        "db_table": f"zoo_{name.lower()}",
    }
    meta = type("Meta", (), options)
    model = type(name, (models.Model,), {"__module__": "tests.zoo.models", "Meta": meta, **fields})
    try:
        if options["managed"]:
            with connection.schema_editor() as editor:
                editor.create_model(model)
        yield model
    finally:
        if options["managed"]:
            with connection.schema_editor() as editor:
                editor.delete_model(model)
        apps.all_models["zoo"].pop(model._meta.model_name)
        apps.clear_cache()


def only_one(model):
    """A rule that deletes all rows but one."""
    return Rule(
        name="one", every=model, must=BeUnique("number"), remedies={EXTRA: Delete()}, max_deletes=None
    )


def assert_comes_back(rule):
    there = raw_rows(rule.model)
    run = repair(rule)
    assert raw_rows(rule.model) != there
    assert left(previewed(run)) == []
    assert left(undo(run)[1]) == []
    assert raw_rows(rule.model) == there


def assert_foreseen(run):
    """The preview says what the undo then does; what was left."""
    foreseen = previewed(run)
    _, done = undo(run)
    assert [(counts(each.planned), each.conflicts) for each in foreseen] == [
        (counts(each.written), each.conflicts) for each in done
    ]
    return left(done)


# Rows with several changes.


@pytest.mark.django_db
def test_another_row_of_a_deleted_one_s_key_is_told_though_it_shares_what_was_updated_before():
    first = Contact.objects.create(email="a", visits=0, phone="1")
    second = Contact.objects.create(email="a", visits=0, phone="2")
    run = repair(
        Rule(name="visited", every=Contact, must=HaveValues(visits=5)),
        Rule(
            name="alike",
            every=Contact.objects.filter(visits__gte=0),
            must=BeUnique("email"),
            remedies={EXTRA: Delete()},
        ),
    )
    Contact.objects.create(pk=second.pk, email="other", visits=0, phone="theirs")
    said = {why for key, why in assert_foreseen(run) if key == f"zoo.Contact {second.pk}"}
    assert said == {"A row of its key is there again.", LATER}
    assert Contact.objects.get(pk=second.pk).phone == "theirs"
    assert Contact.objects.get(pk=first.pk).visits == 0


@pytest.mark.django_db
def test_a_column_that_was_changed_since_is_told_though_another_has_its_old_value_by_chance():
    basket = Basket.objects.create(label="a", score=1)
    run = repair(LABELLED, SCORED)
    Basket.objects.update(label="a", score=99)
    assert assert_foreseen(run) == [(f"zoo.Basket {basket.pk}", CHANGED)]
    assert Basket.objects.get().score == 99


@pytest.mark.django_db
def test_a_row_that_is_as_an_earlier_change_found_it_in_all_columns_was_taken_back_already():
    Basket.objects.create(label="a", score=1)
    run = repair(LABELLED, BOTH)
    Basket.objects.update(label="a", score=1)
    assert assert_foreseen(run) == []


@pytest.mark.django_db
def test_a_row_that_was_put_back_before_its_deletion_and_an_update_is_done():
    contacts = [Contact.objects.create(email="a", visits=0, phone=str(number)) for number in range(3)]
    there = raw_rows(Contact)
    run = repair(
        Rule(name="visited", every=Contact, must=HaveValues(visits=5)),
        Rule(
            name="alike",
            every=Contact.objects.filter(visits__gte=0),
            must=BeUnique("email"),
            remedies={EXTRA: Delete()},
        ),
    )
    Contact.objects.filter(pk=contacts[0].pk).update(visits=7)
    assert left(undo(run)[1]) == [(f"zoo.Contact {contacts[0].pk}", CHANGED)]
    Contact.objects.filter(pk=contacts[0].pk).update(visits=5)
    assert assert_foreseen(run) == []
    assert raw_rows(Contact) == there


@pytest.mark.django_db
def test_the_preview_leaves_earlier_changes_of_a_row_whose_later_one_is_left():
    basket = Basket.objects.create(label="a", score=1)
    run = repair(LABELLED, BOTH)
    Basket.objects.update(label="mine")
    assert assert_foreseen(run) == [(f"zoo.Basket {basket.pk}", CHANGED), (f"zoo.Basket {basket.pk}", LATER)]


@pytest.mark.django_db
def test_the_preview_counts_only_what_an_undo_before_has_left():
    for _ in range(2):
        Basket.objects.create(label="a", score=1)
    run = repair(LABELLED, BOTH)
    last = Basket.objects.filter(pk=Basket.objects.last().pk)
    last.update(label="mine")
    undo(run)
    last.update(label="newer")
    assert assert_foreseen(run) == []
    assert {*Basket.objects.values_list("label", "score")} == {("a", 1)}


@pytest.mark.django_db
def test_a_number_that_only_looks_like_an_earlier_one_was_changed_since():
    basket = Basket.objects.create(rate=0.1 + 0.2, score=1)
    run = repair(
        Rule(name="rated", every=Basket.objects.exclude(rate=2.5), must=HaveValues(rate=1.5)),
        Rule(name="rated again", every=Basket, must=HaveValues(rate=Value(2.5), score=2)),
    )
    Basket.objects.update(rate=0.3, score=1)
    assert assert_foreseen(run) == [(f"zoo.Basket {basket.pk}", CHANGED), (f"zoo.Basket {basket.pk}", LATER)]


@pytest.mark.django_db
def test_many_conflicts_pass_over_the_journal_once():
    taken = []
    for number in (40, 120):
        Basket.objects.all().delete()
        Basket.objects.bulk_create([Basket(label="a") for _ in range(number)])
        run = repair(LABELLED)
        Basket.objects.update(label="theirs")
        with override_settings(RECONCILE={"CHUNK": 20}), statements() as captured:
            assert len(left(undo(run)[1])) == min(number, 100)
        taken.append(sum("OVER (PARTITION BY" in each["sql"] for each in captured))
    assert taken == [1, 1]


# Rows that refer to each other.


@pytest.mark.django_db
def test_the_preview_knows_that_what_refers_to_a_row_goes_first():
    Tag.objects.create(name="x")
    run = repair(
        Rule(name="teams", every=Tag, must=HaveRow(Team, link={"name": F("name")})),
        Rule(name="players", every=Team, must=HaveRow(Player, link={"team": F("pk")})),
    )
    assert assert_foreseen(run) == []
    assert not Team.objects.exists()


@pytest.mark.django_db
def test_the_preview_knows_that_what_the_run_made_refer_to_a_row_will_not_when_it_goes():
    Tag.objects.create(name="x")
    run = repair(
        Rule(name="teams", every=Tag, must=HaveRow(Team, link={"name": F("name")})),
        Rule(name="alternates", every=Team, must=HaveValues(alternate=F("pk"))),
    )
    assert assert_foreseen(run) == []
    assert not Team.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("number", [2, 4])
def test_the_undo_of_an_undo_deletes_rows_that_refer_to_each_other(size, number):
    nodes = [Node.objects.create(name="same") for _ in range(number)]
    for child, parent in pairwise(nodes):
        Node.objects.filter(pk=child.pk).update(parent=parent)
    Node.objects.create(name="same", depth=-1)
    before = raw_tables()
    rule = Rule(
        name="alike", every=Node, must=BeUnique("name", keep=["depth"]), remedies={EXTRA: Delete()}, max_deletes=None
    )  # fmt: skip
    with override_settings(RECONCILE={"CHUNK": 1}):
        run = repair(rule)
    assert Node.objects.count() == 1
    repaired = raw_tables()
    with override_settings(RECONCILE={"CHUNK": size}):
        by, done = undo(run)
        assert (left(done), raw_tables()) == ([], before)
        assert left(previewed(by)) == []
        _, again = undo(by)
    assert (left(again), raw_tables()) == ([], repaired)


@pytest.mark.django_db
def test_rows_that_refer_to_each_other_stay_where_another_refers_to_the_last():
    child = Node.objects.create(name="same")
    parent = Node.objects.create(name="same")
    Node.objects.filter(pk=child.pk).update(parent=parent)
    Node.objects.create(name="same", depth=-1)
    rule = Rule(
        name="alike", every=Node, must=BeUnique("name", keep=["depth"]), remedies={EXTRA: Delete()}, max_deletes=None
    )  # fmt: skip
    with override_settings(RECONCILE={"CHUNK": 1}):
        by, _ = undo(repair(rule))
    Node.objects.create(name="theirs", parent=child)
    why = "zoo.Node by parent refers to it. Delete that first, or leave this one."
    assert {*assert_foreseen(by)} == {(f"zoo.Node {child.pk}", why), (f"zoo.Node {parent.pk}", why)}
    assert Node.objects.count() == 4


@on_tables_of_their_own
def test_a_view_of_the_rows_does_not_keep_them():
    key = models.OneToOneField(Bill, models.DO_NOTHING, primary_key=True, related_name="+")
    with connection.cursor() as cursor:
        cursor.execute("CREATE VIEW zoo_billview AS SELECT id AS bill_id FROM zoo_bill")
    try:
        with table("BillView", bill=key, managed=False) as view:
            Basket.objects.create()
            run = repair(OWED)
            assert view.objects.count() == 1
            assert assert_foreseen(run) == []
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP VIEW zoo_billview")


# Which row it is.


@pytest.mark.django_db
def test_a_row_that_was_written_through_a_proxy_is_the_same_one():
    Parcel.objects.create(label="a")
    there = raw_rows(Parcel)
    run = repair(
        Rule(name="through", every=ParcelProxy.objects.exclude(label="y"), must=HaveValues(label="x")),
        Rule(name="itself", every=Parcel, must=HaveValues(label=Value("y"))),
    )
    assert {*Change.objects.values_list("model", flat=True)} == {"zoo.Parcel"}
    assert assert_foreseen(run) == []
    assert raw_rows(Parcel) == there


@pytest.mark.django_db
def test_a_journal_that_names_the_proxy_is_read_as_its_model_s():
    Parcel.objects.create(label="a")
    there = raw_rows(Parcel)
    run = repair(
        Rule(name="through", every=ParcelProxy.objects.exclude(label="y"), must=HaveValues(label="x")),
        Rule(name="itself", every=Parcel, must=HaveValues(label=Value("y"))),
    )
    Change.objects.filter(work_item__outcome__rule="through").update(model="zoo.ParcelProxy")
    assert assert_foreseen(run) == []
    assert raw_rows(Parcel) == there


@pytest.mark.django_db
def test_a_text_key_that_changed_its_case_names_another_row():
    Page.objects.create(code="ABC", visits=1)
    Page.objects.create(code="other", visits=1)
    run = repair(Rule(name="visited", every=Page, must=HaveValues(visits=7)))
    Page.objects.filter(code="ABC").update(code="abc")
    assert assert_foreseen(run) == [("zoo.Page ABC", "The row is gone.")]
    assert dict(Page.objects.values_list("code", "visits")) == {"abc": 7, "other": 1}


@pytest.mark.mariadb
@pytest.mark.django_db
def test_a_row_whose_key_the_collation_takes_for_a_deleted_one_s_is_in_its_way():
    Page.objects.create(code="ABC", visits=1)
    Page.objects.create(code="keep", visits=1)
    rule = Rule(name="one", every=Page, must=BeUnique("visits", keep=["-code"]), remedies={EXTRA: Delete()})
    run = repair(rule)
    Page.objects.create(code="abc", visits=9)
    assert assert_foreseen(run) == [("zoo.Page ABC", "A row of its key is there again.")]
    assert Page.objects.get(code="abc").visits == 9


@on_tables_of_their_own
def test_a_text_key_of_another_collation_than_the_journal_s_is_found():
    collation = {"mysql": "utf8mb4_unicode_ci", "sqlite": "NOCASE", "postgresql": "C"}[connection.vendor]
    code = models.CharField(max_length=20, primary_key=True, db_collation=collation)
    with table("Collated", code=code, visits=models.IntegerField(default=0)) as model:
        for each in ("A", "b", 'c"\\é'):
            model.objects.create(code=each)
        assert_comes_back(Rule(name="visited", every=model, must=HaveValues(visits=7)))


@on_tables_of_their_own
@pytest.mark.parametrize(
    ("key", "value"),
    [
        (models.DateTimeField(primary_key=True), datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)),
        (models.DateField(primary_key=True), datetime(2026, 1, 2, tzinfo=UTC).date()),
    ],
)
def test_a_day_or_a_moment_can_be_a_key(key, value):
    with table("Day", at=key.clone(), visits=models.IntegerField(default=0)) as model:
        model.objects.create(at=value)
        assert_comes_back(Rule(name="visited", every=model, must=HaveValues(visits=7)))
        assert_comes_back(Rule(name="none", every=model, must=HaveValues(visits=8)))


class Returning(UndoWork):
    """Work beside which another session writes a row again, as soon as it was found to be gone."""

    def __init__(self, row, **options):
        super().__init__(**options)
        self.row = row

    def _lock(self, group, changes):
        found = super()._lock(group, changes)
        self.row.save(force_insert=True)
        return found


@pytest.mark.django_db
def test_a_row_that_comes_back_after_the_locks_were_taken_is_left_for_later():
    Basket.objects.create(label="a")
    run = repair(LABELLED)
    basket = Basket.objects.get()
    Basket.objects.all().delete()
    journal = Change.objects.filter(work_item__outcome__run=run)
    (group,) = group_changes(read_changes(journal), "default")
    work = Returning(basket, journal=journal, using="default")
    assert work._choose(group) == ([], 1)
    assert work.conflicts == {}
    assert work.locked_rows == {("zoo.Basket", str(basket.pk)): group.changes[0].id}


# Columns that aren't what they seem.


class BytesText(models.TextField):
    """Text, in a column of bytes."""

    def db_type(self, connection):
        return {"postgresql": "bytea", "mysql": "longblob", "sqlite": "blob"}[connection.vendor]

    def get_db_prep_value(self, value, connection, prepared=False):
        return None if value is None else value.encode("utf-16")

    def from_db_value(self, value, expression, connection):
        return None if value is None else bytes(value).decode("utf-16")


class MoodField(models.CharField):
    """Text, in a column of a type of its own."""

    def db_type(self, connection):
        return "zoo_mood"


@on_tables_of_their_own
def test_a_text_field_s_bytes_come_back():
    with table("Secret", text=BytesText(), number=models.IntegerField(default=0)) as model:
        for text in ("é", "ü€"):
            model.objects.create(text=text)
        assert_comes_back(only_one(model))


@pytest.mark.postgresql
@on_tables_of_their_own
def test_a_text_field_s_enumeration_comes_back():
    with connection.cursor() as cursor:
        cursor.execute("CREATE TYPE zoo_mood AS ENUM ('sad', 'ok')")
    try:
        with table("Moody", mood=MoodField(max_length=5), number=models.IntegerField(default=0)) as model:
            for mood in ("ok", "sad"):
                model.objects.create(mood=mood)
            assert_comes_back(only_one(model))
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TYPE zoo_mood")


@pytest.mark.postgresql
@on_tables_of_their_own
def test_a_deleted_row_comes_back_with_its_key_where_the_database_makes_all_keys():
    with table("Ticketed", number=models.IntegerField(default=0)) as model, connection.cursor() as cursor:
        name = model._meta.db_table
        cursor.execute(f"ALTER TABLE {name} ALTER id DROP IDENTITY IF EXISTS")
        cursor.execute(f"ALTER TABLE {name} ALTER id ADD GENERATED ALWAYS AS IDENTITY")
        for _ in range(2):
            model.objects.create()
        assert_comes_back(only_one(model))


@pytest.mark.postgresql
@on_tables_of_their_own
def test_images_do_not_depend_on_how_the_session_writes_numbers():
    Basket.objects.create(rate=0.1 + 0.2, label="a")
    there = raw_rows(Basket)
    with connection.cursor() as cursor:
        cursor.execute("SET extra_float_digits = 0")
        run = repair(Rule(name="rated", every=Basket, must=HaveValues(rate=2.5)))
        cursor.execute("SET extra_float_digits = -5")
        try:
            assert assert_foreseen(run) == []
        finally:
            cursor.execute("RESET extra_float_digits")
    assert raw_rows(Basket) == there


@contextmanager
def moments(rows):
    """A model of moments in arrays and ranges, and these rows of it."""
    from django.contrib.postgres.fields import ArrayField, DateTimeRangeField

    fields = {
        "number": models.IntegerField(default=0),
        "at": ArrayField(models.DateTimeField(null=True), null=True),
        "span": DateTimeRangeField(null=True),
    }
    with table("Moments", **fields) as model, connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO zoo_moments (number, at, span) VALUES {rows}")
        yield model


@pytest.mark.postgresql
@on_tables_of_their_own
def test_moments_in_arrays_and_ranges_do_not_depend_on_the_session_s_time_zone():
    rows = (
        "(0, ARRAY[NOW(), NOW() - INTERVAL '1 month'], TSTZRANGE(NOW(), NULL, '(]')), (0, NULL, NULL), (0, '{}', 'empty'), "
        "(0, '{infinity,NULL}', '[-infinity,2026-01-01 00:00+00)'), (0, NULL, '(,)')"
    )
    with moments(rows) as model, connection.cursor() as cursor:
        there = texts(cursor)
        run = repair(only_one(model))
        assert len(texts(cursor)) == 1
        cursor.execute("SET TIME ZONE 'Asia/Tokyo'")
        try:
            by, done = undo(run)
            cursor.execute("SET TIME ZONE 'America/Lima'")
            assert (left(done), left(previewed(by))) == ([], [])
        finally:
            cursor.execute("SET TIME ZONE 'UTC'")
        assert texts(cursor) == there


@pytest.mark.postgresql
@on_tables_of_their_own
def test_moments_in_arrays_of_several_dimensions_or_other_bounds_come_back():
    rows = (
        "(0, '{{2026-01-01 00:00+00,2026-01-02 00:00+00}}', NULL), (0, '[2:2]={2026-01-01 00:00+00}', NULL)"
    )
    with moments(f"{rows}, (0, NULL, NULL)") as model, connection.cursor() as cursor:
        there = texts(cursor)
        run = repair(
            Rule(name="none", every=model, must=HaveValues(at=Value(None, model._meta.get_field("at"))))
        )
        assert texts(cursor) != there
        assert assert_foreseen(run) == []
        assert texts(cursor) == there


def texts(cursor):
    cursor.execute("SELECT id, at::text, span::text FROM zoo_moments ORDER BY id")
    return cursor.fetchall()


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "sqlite", reason="elsewhere a column holds its type alone")
@pytest.mark.parametrize("value", ["0.1 + 0.2", "9e999", "'x'", "x'00ff'"])
def test_what_sqlite_keeps_in_an_integer_column_comes_back(value):
    Basket.objects.create()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE zoo_basket SET score = {value}")
    assert_comes_back(Rule(name="scored", every=Basket, must=HaveValues(score=2)))


# What is said.


@pytest.mark.django_db
def test_of_several_undos_the_one_that_wrote_is_named():
    for _ in range(2):
        Basket.objects.create(label="a")
    run = repair(LABELLED)
    last = Basket.objects.filter(pk=Basket.objects.last().pk)
    last.update(label="theirs")
    wrote, _ = undo(run)
    last.update(label="a")
    undo(run)
    with pytest.raises(UsageError, match=f"To have its writes back, undo that: reconcile undo {wrote}$"):
        undo(run)
    assert left(undo(wrote)[1]) == []


@pytest.mark.django_db
def test_an_undo_that_had_nothing_to_write_is_not_offered():
    Basket.objects.create(label="a")
    run = repair(LABELLED)
    Basket.objects.update(label="a")
    undo(run)
    with pytest.raises(UsageError, match="That found them taken back already"):
        undo(run)
