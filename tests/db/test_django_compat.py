"""What we rely on of each name that Django's documentation doesn't describe, and that it is taken from one module alone."""

import ast
from datetime import timedelta
from pathlib import Path

import django
import pytest
from django.contrib.auth.models import Group
from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import FieldError
from django.db import connection, models, transaction
from django.db.models import (
    Count,
    Exists,
    F,
    FilteredRelation,
    Index,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    Window,
)
from django.db.models.functions import Concat, Lower, RowNumber
from django.db.models.signals import post_delete, post_save, pre_delete
from django.dispatch import Signal
from django.test.utils import CaptureQueriesContext, isolate_apps

import reconcile
from reconcile.db import django_compat as compat
from reconcile.db.comparisons import Among, AmongRows, AsStored, Beyond, Bytewise, Differs, PrefixOf, Same
from reconcile.db.conditions import Fails
from reconcile.db.expressions import nodes_in
from reconcile.db.images import image, value_from_image
from reconcile.db.placeholders import PlaceholderValue
from reconcile.db.text_keys import AsText, KeyOf, SameText
from tests.zoo.models import (
    Car,
    Contact,
    Letter,
    Memo,
    NamedTeam,
    Parcel,
    Player,
    Seat,
    Stamp,
    Tag,
    Team,
    Ticket,
    Trailer,
    Vehicle,
)

PACKAGE = Path(reconcile.__file__).parent

pytestmark = pytest.mark.django_db


def compiler(queryset):
    return compat.compiler_of(queryset.query, connection)


def resolved(queryset, name="x"):
    return compat.annotations_of(queryset.query)[name]


# Classes and constants.


def test_and_is_how_filters_are_connected():
    assert compat.where_of(Team.objects.filter(pk=1).filter(name="a").query).connector == compat.AND
    (either,) = compat.where_of(Team.objects.filter(Q(pk=1) | Q(name="a")).query).children
    assert either.connector == "OR"


NAME = Team._meta.get_field("name")
KEY = Team._meta.get_field("id")

MADE = {
    "AsStored": lambda: AsStored(Concat("name", Value("a")), field=NAME),
    "Differs": lambda: Differs(F("name"), Value("a"), field=NAME),
    "Same": lambda: Same(F("name"), Value("a"), field=NAME),
    "Among": lambda: Among(F("id"), [1, 2]),
    "Beyond": lambda: Beyond(F("id"), Value(3), field=KEY, tolerance=1),
    "PrefixOf": lambda: PrefixOf(F("name"), Value("ab"), field=NAME),
    "Fails": lambda: Fails(Q(name="a")),
    "Bytewise": lambda: Bytewise(Lower("name")),
    "AmongRows": lambda: AmongRows([F("id"), F("name")], Team.objects.filter(name="a").values("id", "name")),
    "AsText": lambda: AsText(F("id"), field=KEY),
    "KeyOf": lambda: KeyOf(Value("1"), field=KEY),
    "SameText": lambda: SameText(F("name"), Value("a")),
    "PlaceholderValue": lambda: PlaceholderValue("later", models.CharField()),
    "image": lambda: image([KEY, NAME]),
    "imaged": lambda: value_from_image("name", NAME),
}


@pytest.mark.parametrize("name", MADE)
def test_sql_of_our_own_expressions_holds_a_tuple(name):
    rows = Team.objects.annotate(x=MADE[name]())
    made = compiler(rows)
    made.setup_query()
    expression = resolved(rows)
    if name == "image":
        expression = expression.get_source_expressions()[1]
    kind = next(
        kind
        for kind in type(expression).__mro__
        if f"as_{connection.vendor}" in vars(kind) or "as_sql" in vars(kind)
    )
    assert kind.__module__.startswith("reconcile.")
    as_sql = getattr(expression, f"as_{connection.vendor}", expression.as_sql)
    sql, params = as_sql(made, connection)
    assert isinstance(params, tuple)
    assert sql.replace("%%", "").count("%s") == len(params)


def test_louter_is_a_left_join():
    assert compat.LOUTER == "LEFT OUTER JOIN"
    assert str(Player.objects.filter(team__alternate__name=None).query).count(compat.LOUTER) == 1


def test_lookup_sep_leads_over_a_relation():
    assert Player.objects.filter(**{f"team{compat.LOOKUP_SEP}name": "a"}).count() == 0


def test_not_provided_is_what_a_field_without_db_default_has():
    assert models.IntegerField().db_default is compat.NOT_PROVIDED
    assert models.IntegerField(db_default=1).db_default is not compat.NOT_PROVIDED


def test_basedatabasewrapper_is_the_type_of_a_connection():
    # `connection` itself hands on to the thread's own.
    assert isinstance(transaction.get_connection(), compat.BaseDatabaseWrapper)


def test_sqlcompiler_is_the_type_of_a_compiler():
    assert isinstance(compiler(Team.objects.all()), compat.SQLCompiler)


def test_query_is_what_querysets_and_subqueries_hold():
    assert isinstance(Team.objects.all().query, compat.Query)
    assert isinstance(Exists(Team.objects.all()).query, compat.Query)
    assert any(isinstance(each, compat.Query) for each in Exists(Team.objects.all()).get_source_expressions())


def test_wherenode_is_a_filter_with_its_parts():
    where = compat.where_of(Team.objects.exclude(pk=1).query)
    (inner,) = where.children
    assert isinstance(where, compat.WhereNode)
    assert isinstance(inner, compat.WhereNode)
    assert (where.negated, inner.negated) == (False, True)
    assert (
        where
        == compat.where_of(Team.objects.exclude(pk=1).query)
        != compat.where_of(Team.objects.exclude(pk=2).query)
    )
    assert not compat.where_of(Team.objects.all().query)
    assert compat.where_of(Player.objects.annotate(n=Count("pk")).filter(n=1).query).contains_aggregate


def test_nothingnode_is_the_filter_of_none():
    assert isinstance(compat.where_of(Team.objects.none().query).children[0], compat.NothingNode)


def test_col_is_a_resolved_column():
    column = resolved(Team.objects.annotate(x=F("name")))
    assert isinstance(column, compat.Col)
    assert column.target is Team._meta.get_field("name")
    assert column.alias == Team._meta.db_table
    # What a derived table's column puts its own name into.
    assert column == resolved(Team.objects.annotate(x=F("name")))
    assert hash(column) == hash(column.identity)


def test_combinedexpression_is_arithmetic():
    both = F("pk") + Value(1)
    assert isinstance(both, compat.CombinedExpression)
    assert (both.lhs.name, both.connector, both.rhs.value) == ("pk", "+", 1)


def test_negatedexpression_is_a_negated_exists():
    there = Exists(Team.objects.all())
    assert isinstance(~there, compat.NegatedExpression)
    assert (~there).get_source_expressions() == [there]


def test_sliced_is_a_slice_of_a_reference():
    assert isinstance(F("name")[1:3], compat.Sliced)


@pytest.mark.parametrize(
    ("reference", "found"), [(F("name")[1:3], (1, 3)), (F("name")[2:], (2, None)), (F("name")[0], (0, 1))]
)
def test_slice_of_counts_from_0(reference, found):
    whole, *place = compat.slice_of(reference)
    assert (whole, tuple(place)) == (F("name"), found)


def test_column_of_outer_query_is_known_before_that_query_is():
    (lookup,) = compat.where_of(Team.objects.filter(pk=OuterRef("team")).query).children
    assert compat.column_of_outer_query(lookup.rhs)
    assert not compat.column_of_outer_query(F("team"))


def test_output_field_of_an_expression_without_one_is_none():
    assert compat.output_field_of(Value([])) is None
    assert isinstance(compat.output_field_of(Value(1)), models.IntegerField)


def test_extra_sql_is_told_with_its_parameters():
    (node,) = compat.where_of(Team.objects.extra(where=["points > %s"], params=[3]).query).children
    assert compat.extra_sql(node) == (["points > %s"], [3])
    assert compat.extra_sql(Q(pk=1)) is None


@pytest.mark.postgresql
def test_write_in_values_gives_a_statement_without_parameters():
    assert compat.write_in_values(connection, "SELECT %s, '100%%'", ["it's"]) == "SELECT 'it''s', '100%'"


@isolate_apps("tests.zoo")
def test_is_generic_relation_tells_it_from_a_foreign_key():
    class Noted(models.Model):
        memos = GenericRelation(Memo)

        class Meta:
            app_label = "zoo"

    assert compat.is_generic_relation(Noted._meta.get_field("memos"))
    assert not compat.is_generic_relation(Player._meta.get_field("team"))


def test_managers_of_a_model_are_those_by_which_its_rows_are_had():
    assert Team.objects in compat.managers_of(Team)


def test_reverse_name_is_what_a_path_from_the_other_side_has():
    assert compat.reverse_name(Player._meta.get_field("team")) == "players"


def test_accessor_of_a_relation_is_the_attribute_that_leads_over_it():
    names = {compat.accessor_of(each) for each in Team._meta.get_fields()}
    assert "players" in names
    assert compat.accessor_of(Player._meta.get_field("team")) == "team"


def test_flat_choices_are_out_of_their_groups():
    grouped = models.CharField(choices=[("Some", [("a", "A")]), ("b", "B")])
    assert list(compat.flat_choices(grouped)) == [("a", "A"), ("b", "B")]
    assert not compat.flat_choices(NAME)
    assert not compat.flat_choices(None)


def test_filtered_relation_of_a_plain_join_is_none():
    assert compat.filtered_relation_of(filtered_players()).relation_name == "players"
    assert compat.filtered_relation_of(joined_team()) is None
    assert compat.filtered_relation_of(own_table()) is None


def test_selection_of_a_plain_query_is_empty():
    assert compat.selection_of(Team.objects.all().query) == compat.Selection(
        low=0, high=None, distinct=False, distinct_on=(), columns=(), groups=(), order=(), joined_by="", parts=(), extra={}, tables=(),
    )  # fmt: skip


def test_selection_of_tells_each_thing():
    told = compat.selection_of(Team.objects.order_by("-name").distinct().values("name")[1:3].query)
    assert (told.low, told.high, told.distinct, told.order) == (1, 3, True, ("-name",))
    assert [each.target.name for each in told.columns] == ["name"]
    grouped = compat.selection_of(Team.objects.values("name").annotate(n=Count("pk")).order_by("n").query)
    assert ([each.target.name for each in grouped.groups], type(grouped.order[0].expression)) == (
        ["name"],
        Count,
    )
    both = compat.selection_of(Team.objects.all().union(Team.objects.filter(pk=1)).query)
    assert (both.joined_by, len(both.parts)) == ("union", 2)
    every = compat.selection_of(Team.objects.all().union(Team.objects.all(), all=True).query)
    assert every.joined_by == "union all"
    assert compat.selection_of(Team.objects.extra(tables=["zoo_page"]).query).tables == ("zoo_page",)
    turned = compat.selection_of(Team.objects.order_by("-name", F("points").desc()).reverse().query)
    assert (turned.order[0], turned.order[1].descending) == ("name", False)


def test_concatpair_is_inside_of_a_concat():
    (pair,) = Concat("name", Value("a"), "name").get_source_expressions()
    assert isinstance(pair, compat.ConcatPair)
    assert isinstance(pair.get_source_expressions()[1], compat.ConcatPair)


def test_manytoonerel_is_the_other_side_of_a_foreign_key():
    relation = Team._meta.get_field("players")
    assert isinstance(relation, compat.ManyToOneRel)
    assert relation.field is Player._meta.get_field("team")
    assert relation.related_model is Player
    assert not isinstance(Tag._meta.get_field("contacts"), compat.ManyToOneRel)


@pytest.mark.parametrize("is_debugged", [True, False])
def test_cursorwrapper_runs_each_statement_of_the_orm_and_of_a_project(monkeypatch, settings, is_debugged):
    settings.DEBUG = is_debugged
    seen = []
    for name in ("execute", "executemany"):
        original = getattr(compat.CursorWrapper, name)

        def note(self, sql, params=None, original=original):
            seen.append(sql)
            return original(self, sql, params)

        monkeypatch.setattr(compat.CursorWrapper, name, note)
    Tag.objects.update(name="a")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.executemany("UPDATE zoo_tag SET name = %s", [("b",)])
    assert [each.partition(" ")[0] for each in seen] == ["UPDATE", "SELECT", "UPDATE"]


def test_names_digest_is_short_and_stays():
    assert compat.names_digest("order_id", "kind", length=6) == "d70000"


def test_index_type_is_a_plain_index():
    assert compat.INDEX_TYPE == Index(fields=["name"]).suffix == "idx"


# Queries.


def test_tables_of_lists_those_that_were_trimmed_away():
    query = Player.objects.filter(team__pk=1).query
    assert list(compat.tables_of(query)) == ["zoo_player", "zoo_team"]
    assert list(compat.tables_of(Player.objects.filter(team__name="a").query)) == ["zoo_player", "zoo_team"]


def test_tables_read_are_those_of_the_sql():
    trimmed = Player.objects.filter(team__pk=1)
    assert "JOIN" not in str(trimmed.query)
    assert list(compat.tables_read(trimmed.query)) == ["zoo_player"]
    assert list(compat.tables_read(Player.objects.filter(team__name="a").query)) == ["zoo_player", "zoo_team"]


def test_base_alias_is_the_querys_own_table():
    query = Player.objects.all().query
    assert compat.base_alias(query) == "zoo_player"
    assert list(compat.tables_of(query)) == ["zoo_player"]


def test_join_table_adds_what_renders_itself():
    class Joined:
        table_name = table_alias = "extra"
        parent_alias = "zoo_team"
        join_type, nullable, filtered_relation = compat.LOUTER, True, None

        def as_sql(self, compiler, connection):
            return f"{self.join_type} (SELECT %s AS one) extra ON (1 = 1)", ("given",)

    rows = Team.objects.all()
    compat.base_alias(rows.query)
    compat.join_table(rows.query, Joined())
    sql, params = compiler(rows).as_sql()
    assert "LEFT OUTER JOIN (SELECT %s AS one) extra ON (1 = 1)" in sql
    assert tuple(params) == ("given",)


def joined_team(**filters):
    return compat.tables_of(Player.objects.filter(**{"team__name": "a", **filters}).query)["zoo_team"]


def own_table():
    return compat.tables_of(Team.objects.filter(name="a").query)["zoo_team"]


def filtered_players():
    rows = Team.objects.annotate(_p=FilteredRelation("players", condition=Q(players__pk__gt=1)))
    tables = compat.tables_read(rows.filter(_p__pk=2).query)
    return next(each for alias, each in tables.items() if alias != "zoo_team")


def test_table_name_is_the_databases():
    assert compat.table_name(joined_team()) == compat.table_name(own_table()) == "zoo_team"


def test_relation_joined_tells_to_how_many_rows():
    assert compat.relation_joined(own_table()) is None
    assert compat.relation_joined(joined_team()).many_to_one
    players = compat.tables_of(Team.objects.filter(players__pk=1).query)["zoo_player"]
    assert compat.relation_joined(players).one_to_many


def test_columns_joined_are_pairs_of_fields():
    assert compat.columns_joined(own_table()) == ()
    pair = (Player._meta.get_field("team"), Team._meta.get_field("id"))
    assert compat.columns_joined(joined_team()) == (pair,)


def test_join_restriction_is_the_content_type_of_a_generic_relation():
    with isolate_apps("tests.zoo", "django.contrib.contenttypes"):

        class Label(models.Model):
            content_type = models.ForeignKey(ContentType, models.CASCADE)
            object_id = models.IntegerField()

            class Meta:
                app_label = "zoo"

        class Labelled(models.Model):
            labels = GenericRelation(Label)

            class Meta:
                app_label = "zoo"

        tables = compat.tables_of(Labelled.objects.filter(labels__pk=1).query)
        restriction = compat.join_restriction(tables["zoo_label"])
    (lookup,) = restriction.children
    assert lookup.lhs.target.name == "content_type"
    assert compat.join_restriction(joined_team()) is None
    assert compat.join_restriction(own_table()) is None


def test_is_parent_join_tells_the_parent_s_part_of_a_row():
    car = compat.tables_of(Car.objects.filter(wheels=4).query)["zoo_vehicle"]
    assert compat.is_parent_join(car)
    assert not compat.is_parent_join(joined_team())
    assert not compat.is_parent_join(own_table())


@pytest.mark.django_db
def test_has_pending_migrations_tells_what_migrate_would_do(monkeypatch):
    from django.db.migrations.executor import MigrationExecutor

    monkeypatch.setattr(MigrationExecutor, "migration_plan", lambda *_: [])
    assert compat.has_pending_migrations(connection) is False
    monkeypatch.setattr(MigrationExecutor, "migration_plan", lambda *_: ["a migration"])
    assert compat.has_pending_migrations(connection) is True


def test_is_whole_table_tells_a_filtered_join():
    assert not compat.is_whole_table(own_table())
    assert compat.is_whole_table(joined_team())
    assert not compat.is_whole_table(filtered_players())


def test_is_never_missing_tells_an_outer_join():
    rows = Player.objects.filter(Q(team__alternate__name="a") | Q(team__name="b"))
    outer = next(alias for alias in compat.tables_read(rows.query) if alias not in {"zoo_player", "zoo_team"})
    assert compat.is_never_missing(compiler(rows), "zoo_team")
    assert not compat.is_never_missing(compiler(rows), outer)
    assert not compat.is_never_missing(compiler(rows), "nowhere")


def test_join_condition_is_that_of_a_filtered_relation():
    condition = compat.join_condition(filtered_players())
    assert condition.children[0].rhs == 1
    assert compat.join_condition(joined_team()) is None
    assert compat.join_condition(own_table()) is None


def test_table_it_reads_from_is_that_of_the_model_unless_django_has_trimmed_it():
    assert compat.table_it_reads_from(Team.objects.filter(name="a").query) == ("zoo_team", Team)
    assert compat.table_it_reads_from(Team.objects.all().query)[1] is Team
    assert compat.table_it_reads_from(Exists(Team.objects.all()).query)[1] is Team
    (excluded,) = compat.where_of(Team.objects.exclude(players__age=1).query).children
    (exists,) = (each for each in nodes_in(excluded) if isinstance(each, Exists))
    alias, model = compat.table_it_reads_from(exists.query)
    assert (compat.tables_of(exists.query)[alias].table_name, model) == ("zoo_player", Player)


def test_where_of_tells_the_filter():
    (lookup,) = compat.where_of(Team.objects.filter(name="a").query).children
    assert (lookup.lhs.target.name, lookup.lookup_name, lookup.rhs) == ("name", "exact", "a")


def test_annotations_of_include_aliases():
    rows = Team.objects.alias(a=Lower("name")).annotate(b=Count("players"))
    assert list(compat.annotations_of(rows.query)) == ["a", "b"]
    assert compat.annotations_of(rows.query)["b"].output_field.get_internal_type() == "IntegerField"


def test_selected_annotations_leave_aliases_out():
    rows = Team.objects.alias(a=Lower("name")).annotate(b=Count("players"))
    assert list(compat.selected_annotations(rows.query)) == ["b"]


def test_columns_selected_are_those_of_values():
    (name,) = compat.columns_selected(Team.objects.values("name").query)
    assert name.target.name == "name"
    assert compat.columns_selected(Team.objects.all().query) == ()


def test_ordering_of_is_what_order_by_was_given():
    assert compat.ordering_of(Team.objects.order_by("-name", F("pk")).query) == ("-name", F("pk"))
    assert compat.ordering_of(Team.objects.all().query) == ()


def test_combined_queries_are_the_parts_of_a_union():
    parts = compat.combined_queries(Team.objects.filter(pk=1).union(Team.objects.filter(pk=2)).query)
    assert [compat.where_of(each).children[0].rhs for each in parts] == [1, 2]
    assert compat.combined_queries(Team.objects.all().query) == ()


def test_is_distinct_tells_distinct():
    assert compat.is_distinct(Team.objects.distinct().query)
    assert not compat.is_distinct(Team.objects.all().query)


SHAPES = {
    "sliced": lambda: Team.objects.all()[:3],
    "ordered": lambda: Team.objects.order_by("name"),
    "combined": lambda: Team.objects.filter(pk=1).union(Team.objects.filter(pk=2)),
    "distinct_on": lambda: Team.objects.distinct("name"),
    "locking": Team.objects.select_for_update,
    "values": lambda: Team.objects.values("name"),
    "grouped": lambda: Team.objects.annotate(n=Count("players")),
    "windowed": lambda: Team.objects.annotate(n=Window(RowNumber(), order_by="pk")),
    "extended": lambda: Team.objects.extra(select={"one": "1"}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape_of_tells_each_thing_by_itself(name):
    told = {each: getattr(compat.shape_of(SHAPES[name]()), each) for each in SHAPES}
    assert told == {each: each == name for each in SHAPES}


def test_queryshape_of_a_plain_queryset_has_nothing():
    assert compat.shape_of(Team.objects.filter(pk=1)) == compat.QueryShape(**dict.fromkeys(SHAPES, False))


def test_ungroup_gives_one_row_where_there_are_none():
    rows = Team.objects.order_by().annotate(n=Count("pk")).values_list("n", flat=True)
    assert list(rows.all()) == []
    compat.ungroup(rows)
    assert list(rows) == [0]


def test_filter_exactly_keeps_one_part_and_the_original():
    rows = Team.objects.filter(pk=1, name="a")
    parts = [compat.filter_exactly(rows, each) for each in compat.where_of(rows.query).children]
    wanted = [Team.objects.filter(name="a"), Team.objects.filter(pk=1)]
    assert {str(each.query) for each in parts} == {str(each.query) for each in wanted}
    assert len(compat.where_of(rows.query).children) == 2


def test_copy_query_keeps_joins_out_of_the_original():
    rows = Player.objects.all()
    clone = compat.copy_query(rows.query)
    F("team__name").resolve_expression(clone)
    assert len(compat.tables_of(clone)) == 2
    assert len(compat.tables_of(rows.query)) < 2


def test_rewrite_query_reaches_filter_and_annotations_of_a_copy():
    rows = Team.objects.annotate(x=Value(1)).filter(name="a")
    seen = []
    clone = compat.rewrite_query(rows.query, lambda each: seen.append(type(each).__name__) or each)
    assert seen == ["WhereNode", "Value"]
    assert clone is not rows.query
    assert str(clone) == str(rows.query)
    changed = compat.rewrite_query(rows.query, lambda each: Value(2) if isinstance(each, Value) else each)
    assert compat.annotations_of(changed)["x"].value == 2
    assert resolved(rows).value == 1


def test_split_lookup_tells_lookups_from_the_path():
    query = Player.objects.all().query
    assert [list(each) for each in compat.split_lookup(query, "team__name__lower__gte")] == [
        ["lower", "gte"],
        ["team", "name"],
    ]
    with pytest.raises(FieldError):
        compat.split_lookup(query, "nowhere__at_all")


def test_compiler_of_gives_sql_and_parameters():
    sql, params = compiler(Team.objects.filter(name="a").values("pk")).as_sql()
    assert sql.endswith("= %s")
    assert tuple(params) == ("a",)


def test_quote_alias_spells_it_as_a_column_does():
    rows = Team.objects.annotate(x=F("name"))
    made = compiler(rows)
    made.as_sql()
    assert made.compile(resolved(rows))[0].startswith(f"{compat.quote_alias(made, 'zoo_team')}.")


@pytest.mark.django_db
def test_collector_is_what_gathers_for_each_delete(monkeypatch):
    seen = []
    monkeypatch.setattr(compat.Collector, "delete", lambda self: seen.append(self.using) or (0, {}))
    Team.objects.create(name="a").delete()
    Team.objects.all().delete()
    assert seen == ["default", "default"]


@pytest.mark.django_db
def test_collected_keys_are_those_of_the_rows_that_a_delete_takes_along():
    team = Team.objects.create(name="a")
    player = Player.objects.create(team=team)
    seen = []

    class Watched(compat.Collector):
        def delete(self):
            seen.append(dict(compat.collected_keys(self)))
            return super().delete()

    for origin, own in ((team, {}), (Team.objects.all(), {Team: [team.pk]})):
        collector = Watched(using="default", origin=origin)
        collector.collect(Team.objects.all() if own else [team])
        collector.add([player])
        assert collector.using == "default"
        with transaction.atomic():
            collector.delete()
            transaction.set_rollback(True)
        assert seen.pop() == {**own, Player: [player.pk]}


def test_raw_delete_is_one_statement_and_tells_how_many():
    Team.objects.bulk_create([Team(name="a"), Team(name="b"), Team(name="b")])
    with CaptureQueriesContext(connection) as queries:
        assert compat.raw_delete(Team.objects.filter(name="b"), "default") == 2
    assert [each["sql"].split()[0] for each in queries] == ["DELETE"]
    assert Team.objects.count() == 1


# Expressions.


def test_compile_expression_gives_a_tuple():
    made = compiler(Team.objects.all())
    made.setup_query()
    assert compat.compile_expression(made, Value("a")) == ("%s", ("a",))


def test_copy_expression_shares_no_list():
    for original in (Sum(F("pk")), Q(pk=1), F("pk").asc()):
        clone = compat.copy_expression(original)
        assert type(clone) is type(original)
        assert clone is not original
    total = Sum(F("pk"))
    clone = compat.copy_expression(total)
    clone.set_source_expressions([F("name"), *clone.get_source_expressions()[1:]])
    assert total.get_source_expressions()[0] == F("pk")


def test_constructor_arguments_are_what_it_was_made_with():
    assert compat.constructor_arguments(Concat("name", Value("a"))) == (("name", Value("a")), {})
    assert compat.constructor_arguments(Count("pk", distinct=True)) == (("pk",), {"distinct": True})
    assert compat.constructor_arguments(object()) is None


def test_is_aggregate_condition_knows_an_aggregates_filter():
    sources = Count("pk", filter=Q(name="a")).get_source_expressions()
    assert [each for each in sources if compat.is_aggregate_condition(each)] == sources[1:2] * (
        django.VERSION >= (6, 0)
    )
    assert not compat.is_aggregate_condition(Q(name="a"))


def test_python_source_can_be_pasted():
    assert compat.python_source(Q(name="a")) == "models.Q(('name', 'a'))"
    assert compat.python_source(Lower("name")) == "django.db.models.functions.text.Lower('name')"
    assert compat.python_source(timedelta(1)) == "datetime.timedelta(days=1)"


# Models and fields.


def test_key_columns_are_those_of_the_primary_key():
    assert compat.key_columns(Car) == ("vehicle_ptr_id",)
    assert compat.key_columns(Team) == ("id",)


def test_own_columns_leave_the_parents_out():
    names = [each.attname for each in compat.own_columns(Car)]
    assert names[0] == "vehicle_ptr_id"
    assert "id" not in names
    assert list(compat.own_columns(Team)) == list(Team._meta.concrete_fields)


def test_own_many_to_many_are_the_declared_ones():
    assert [each.name for each in compat.own_many_to_many(Contact)] == ["friends", "tags"]
    assert list(compat.own_many_to_many(Tag)) == []


def test_private_fields_hold_generic_foreign_keys():
    (key,) = compat.private_fields(Memo)
    assert isinstance(key, GenericForeignKey)
    assert (key.ct_field, key.fk_field) == ("content_type", "object_id")


def test_reverse_relations_are_those_from_other_models():
    assert {"players", "matches"} <= {each.name for each in compat.reverse_relations(Team)}
    # Those without a name aren't among them.
    assert Letter not in {each.related_model for each in compat.reverse_relations(Contact)}


def test_parents_of_a_model_are_all_above_it():
    assert [each.__name__ for each in compat.parents_of(Trailer)] == ["Lorry", "Vehicle"]
    assert compat.parents_of(Vehicle) == []


def test_parent_links_are_the_columns_of_an_inheriting_model():
    assert [each.attname for each in compat.parent_links(Car)] == ["vehicle_ptr_id"]
    assert compat.parent_links(Vehicle) == compat.parent_links(NamedTeam) == []


def test_is_swapped_follows_the_setting(settings):
    with isolate_apps("tests.zoo"):

        class Chair(models.Model):
            class Meta:
                app_label, swappable = "zoo", "ZOO_CHAIR"

    assert not compat.is_swapped(Chair)
    settings.ZOO_CHAIR = "zoo.Team"
    assert compat.is_swapped(Chair)


def test_many_to_many_owner_is_the_model_with_the_field():
    assert compat.many_to_many_owner(Contact.tags.through) is Contact
    assert compat.many_to_many_owner(Contact) is None


def test_many_to_many_columns_are_near_and_far():
    assert compat.many_to_many_columns(Contact._meta.get_field("tags")) == ("contact", "tag")
    assert compat.many_to_many_columns(Contact._meta.get_field("friends")) == ("from_contact", "to_contact")


def test_generic_relation_columns_are_those_of_the_other_model():
    relation = GenericRelation(Memo, content_type_field="kind", object_id_field="key")
    assert compat.generic_relation_columns(relation) == ("kind", "key")


def test_referred_field_is_what_a_foreign_key_points_at():
    assert compat.referred_field(Player._meta.get_field("team")) is Team._meta.get_field("id")
    assert compat.referred_field(Team._meta.get_field("name")) is None


def test_has_default_counts_none_as_one():
    assert compat.has_default(models.IntegerField(default=None, null=True))
    assert not compat.has_default(models.IntegerField())


def test_default_of_a_field_is_what_save_would_store():
    assert compat.default_of(models.IntegerField(default=lambda: 4)) == 4
    assert compat.default_of(models.CharField()) == ""
    assert compat.default_of(models.IntegerField()) is None


def test_cast_type_can_be_cast_to():
    integer = models.AutoField()
    assert compat.cast_type(integer, connection) in {"integer", "signed integer"}


# Indexes.


def test_name_index_is_the_same_each_time():
    named = [Index(fields=["name"]), Index(fields=["name"])]
    for each in named:
        compat.name_index(each, Team)
    assert named[0].name == named[1].name
    assert named[0].name.startswith("zoo_team_name_")


def test_index_sql_words_a_statement_and_runs_none():
    with CaptureQueriesContext(connection) as queries:
        sql = compat.index_sql(Index(fields=["name"], name="by_name"), Team, connection)
    assert sql.startswith("CREATE INDEX ")
    assert "by_name" in sql
    assert not queries.captured_queries


def test_constraints_in_a_table_have_columns_and_kinds():
    found = compat.constraints_in(connection, Ticket._meta.db_table)
    assert found["zoo_ticket_kind"]["columns"] == ["kind", "behind"]
    assert found["zoo_ticket_kind"]["index"]
    assert any(each["primary_key"] for each in found.values())
    assert not any(each["unique"] and each["columns"] == ["kind", "behind"] for each in found.values())


def test_stored_tables_are_there():
    assert {"zoo_team", "zoo_player"} <= compat.stored_tables(connection)
    assert "zoo_nowhere" not in compat.stored_tables(connection)


def test_table_names_are_there():
    assert "zoo_team" in compat.table_names(connection)


# Connections.


def test_quoter_quotes_once():
    quote = compat.quoter(connection)
    mark = "`" if connection.vendor == "mysql" else '"'
    assert quote("order") == f"{mark}order{mark}" == quote(quote("order"))


def test_subtract_times_takes_sql_with_parameters():
    sql, params = compat.subtract_times(connection, "DateTimeField", ("a.x", ("1",)), ("a.y", ("2",)))
    assert "a.x" in sql
    assert "a.y" in sql
    assert {*params} == {"1", "2"}


def test_integer_range_is_that_of_the_column():
    assert compat.integer_range(connection, "SmallIntegerField") in {
        (-(2**15), 2**15 - 1),
        (None, None),
        (-(2**63), 2**63 - 1),
    }
    assert compat.integer_range(connection, "BigIntegerField")[1] in {2**63 - 1, None}


def test_driver_connection_is_the_drivers():
    compat.connect(connection)
    assert type(compat.driver_connection(connection)).__module__.partition(".")[0] in {
        "sqlite3",
        "django",
        "psycopg",
        "MySQLdb",
    }


def test_connect_opens_what_is_closed():
    fresh = connection.copy()
    assert compat.driver_connection(fresh) is None
    try:
        compat.connect(fresh)
        assert compat.driver_connection(fresh) is not None
    finally:
        fresh.close()


def test_settings_of_name_the_database():
    assert {"NAME", "HOST", "ENGINE"} <= {*compat.settings_of(connection)}


@pytest.mark.django_db(transaction=True)
def test_in_transaction_tells_an_open_one():
    assert not compat.in_transaction("default")
    with transaction.atomic():
        assert compat.in_transaction("default")


@pytest.mark.django_db(transaction=True)
def test_hooks_on_commit_are_in_order_with_function_and_robust():
    def hook():
        pass

    with transaction.atomic():
        transaction.on_commit(hook)
        transaction.on_commit(print, robust=True)
        assert [(function, robust) for _, function, robust in compat.hooks_on_commit("default")] == [
            (hook, False),
            (print, True),
        ]
        compat.hooks_on_commit("default").clear()
    assert compat.hooks_on_commit("default") == []


def test_explicit_alias_is_none_unless_somebody_has_chosen():
    assert compat.explicit_alias(Contact.objects.all()) is None
    assert compat.explicit_alias(Contact.objects.using("archive")) == "archive"


@pytest.mark.django_db
def test_is_nested_in_transaction_of_its_own_and_not_in_that_of_a_test_case():
    assert not compat.is_nested_in_transaction("default")
    with transaction.atomic():
        assert compat.is_nested_in_transaction("default")


@pytest.mark.django_db(transaction=True)
def test_begin_mode_is_set_and_set_back():
    if connection.vendor != "sqlite":
        pytest.skip("is SQLite's")
    with CaptureQueriesContext(connection) as queries:
        with compat.begin_mode(connection, "IMMEDIATE"), transaction.atomic():
            pass
        with transaction.atomic():
            pass
    assert [each["sql"] for each in queries if each["sql"].startswith("BEGIN")] == [
        "BEGIN IMMEDIATE",
        "BEGIN",
    ]


@pytest.mark.mariadb
def test_is_mariadb_tells_the_server():
    with connection.cursor() as cursor:
        cursor.execute("SELECT VERSION()")
        assert compat.is_mariadb(connection) == ("MariaDB" in cursor.fetchone()[0])


@pytest.mark.mariadb
def test_mysql_version_can_be_compared():
    assert (5, 5) < compat.mysql_version(connection) < (100,)


@pytest.mark.postgresql
def test_postgresql_version_is_a_number():
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        assert compat.postgresql_version(connection) == int(cursor.fetchone()[0])


@pytest.mark.postgresql
def test_is_utf8_is_said_by_the_session_alone():
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_encoding")
        assert compat.is_utf8(connection) is (cursor.fetchone()[0] == "UTF8")
    assert not compat.is_utf8(connection.copy())


def test_stand_in_for_server_ends_with_the_block():
    before = {**vars(transaction.get_connection())}
    with compat.stand_in_for_server(transaction.get_connection(), {"pg_version": 1}, forgetting=["kept"]):
        assert vars(transaction.get_connection())["pg_version"] == 1
        assert connection.features is not before["features"]
    assert vars(transaction.get_connection()) == before


def test_is_migrated_asks_the_routers(settings):
    assert compat.is_migrated(Team, "default")
    settings.DATABASE_ROUTERS = ["tests.db.test_django_compat.NoGroups"]
    assert compat.is_migrated(Team, "default")
    assert not compat.is_migrated(Group, "default")


class NoGroups:
    def allow_migrate(self, db, app_label, model_name=None, *, model=None, **hints):
        return None if model is not Group else False


# Signals.


def test_receivers_of_a_signal_are_told_with_their_senders():
    signal = Signal()

    def receiver(**_):
        pass

    signal.connect(receiver, sender=Team)
    signal.connect(receiver, sender=Player, weak=False)
    signal.connect(receiver, dispatch_uid="each")
    assert compat.receivers_of(signal) == [(id(Team), receiver), (id(Player), receiver), (id(None), receiver)]
    assert all(isinstance(sender, int) for sender, _ in compat.receivers_of(post_save))


@pytest.mark.parametrize("use_caching", [False, True])
def test_mute_receivers_hear_nothing_until_the_block_ends(use_caching):
    signal, heard = Signal(use_caching=use_caching), []

    def receiver(said, **_):
        heard.append(said)

    signal.connect(receiver)
    signal.send(sender=Team, said="before")
    with pytest.raises(ZeroDivisionError), compat.mute_receivers([signal]):
        signal.send(sender=Team, said="inside")
        raise ZeroDivisionError
    signal.send(sender=Team, said="after")
    assert heard == ["before", "after"]


# What is read where it stands.


def test_what_is_read_where_it_stands():
    condition = ~Q(a=1) & Q(b=2)
    assert condition.connector == compat.AND
    assert [type(each) for each in condition.children] == [Q, tuple]
    assert condition.children[0].negated
    assert Team._meta.pk is Team._meta.get_field("id")
    assert Player._meta.get_field("team").column == "team_id"
    assert NamedTeam._meta.concrete_model is Team
    assert F("name").name == OuterRef("name").name == "name"
    assert Seat._meta.concrete_model is Seat


# One module.


def test_each_name_has_a_test():
    tested = {name for name in globals() if name.startswith("test_")}
    for name in compat.__all__:
        assert any(each.startswith(f"test_{name.lower()}_") for each in tested), name


ATTRIBUTES = frozenset(
    """
    alias_map alias_refcount annotation_select combinator combined_queries distinct_fields extra_order_by
    low_mark high_mark standard_ordering default_ordering sqls _output_field_or_none
    is_sliced get_compiler get_initial_alias solve_lookup_type join_field join_fields filtered_relation resolved_condition
    get_extra_restriction _filtered_relations group_by _raw_delete _constructor_args quote_name_unless_alias

    private_fields related_objects local_fields local_concrete_fields local_many_to_many get_parent_list swapped managers
    object_name related_query_name flatchoices target_field has_default get_default cast_db_type m2m_field_name m2m_reverse_field_name
    content_type_field_name object_id_field_name set_name_with_model create_sql

    ops introspection settings_dict in_atomic_block needs_rollback run_on_commit ensure_connection transaction_mode
    mysql_is_mariadb mysql_version pg_version features_class allow_migrate_model

    receivers sender_receivers_cache _live_receivers
    """.split()  # noqa: SIM905 - a line each would be a page
)
"""What only `django_compat` reads of Django's objects."""

DESCRIBED = frozenset(
    """
    abstract app_label concrete_fields constraints db_table fields get_field get_fields indexes label
    label_lower managed model_name pk_fields proxy unique_together verbose_name verbose_name_plural

    pk concrete_model
    """.split()  # noqa: SIM905 - a line each would be a page
)
"""What other modules read of `_meta`: the documentation speaks of it, but for the last two; see `django_compat`."""


def foreign_names(tree):
    """The lines on which a module reads a name of Django that isn't described."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"getattr", "hasattr", "setattr"}:
            name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
            if name in ATTRIBUTES:
                yield node.lineno, name
        if not isinstance(node, ast.Attribute):
            continue
        owner = getattr(node.value, "attr", getattr(node.value, "id", ""))
        if (
            node.attr in ATTRIBUTES
            or owner == "query"
            or (owner in {"_meta", "meta"} and node.attr not in DESCRIBED)
        ):
            yield node.lineno, f"{owner}.{node.attr}"


def modules():
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if not {"django_compat", "migrations"} & {*path.relative_to(PACKAGE).parts}
    ]


def test_no_other_module_reads_what_is_not_described():
    found = [
        f"{path.relative_to(PACKAGE)}:{line} {name}"
        for path in modules()
        for line, name in foreign_names(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "rows.query.where",
        "query.alias_map",
        "signal.receivers",
        "Team._meta.private_fields",
        "getattr(x, 'target_field')",
    ],
)
def test_what_is_not_described_is_seen(source):
    assert [*foreign_names(ast.parse(source))]


def test_rows_in_statement_is_a_number_that_may_be_beyond_the_rows():
    rows = [Team() for _ in range(5_000)]
    assert compat.rows_in_statement("default", ["pk", "pk", "name"], rows) >= 1


def test_slice_of_query_counts_from_0():
    assert compat.slice_of_query(Team.objects.all()[2:5].query) == (2, 5)
    assert compat.slice_of_query(Team.objects.all().query) == (0, None)


def test_rows_of_query_are_those_of_the_subquery():
    first, _ = Team.objects.create(), Team.objects.create()
    within = Subquery(Team.objects.order_by("pk").values("pk")[:1])
    assert [*compat.rows_of_query(within.query).values_list("pk", flat=True)] == [first.pk]


def test_connections_of_tells_how_each_receiver_is_connected():
    def strong(**_):
        """Be kept."""

    async def weak(**_):
        """Be awaited."""

    signal = Signal()
    signal.connect(strong, sender=Team, weak=False)
    signal.connect(weak)
    one, other = compat.connections_of(signal)
    assert (one.sender, one.receiver, one.weak, one.is_async, one.of_all) == (
        id(Team),
        strong,
        False,
        False,
        False,
    )
    assert (other.receiver, other.weak, other.is_async, other.of_all) == (weak, True, True, True)


def test_admin_pages_are_the_models_of_all_sites_with_their_pages():
    from django.contrib import admin

    one, other = admin.AdminSite(), admin.AdminSite()
    one.register(Team)
    other.register(Player)
    try:
        found = {model: type(page) for model, page in compat.admin_pages() if page.admin_site in {one, other}}
    finally:
        one.unregister(Team)
        other.unregister(Player)
    assert found == {Player: admin.ModelAdmin, Team: admin.ModelAdmin}


def test_connection_is_what_connections_of_gives():
    signal = Signal()
    signal.connect(test_connection_is_what_connections_of_gives)
    assert [type(each) for each in compat.connections_of(signal)] == [compat.Connection]


def test_deletes_unread_asks_for_receivers_and_relations():
    def hears(**_):
        """Be told."""

    with compat.mute_receivers([pre_delete, post_delete]):
        assert compat.deletes_unread(Stamp, "default")
        # Others refer to it.
        assert not compat.deletes_unread(Parcel, "default")
        post_delete.connect(hears, sender=Stamp)
        assert not compat.deletes_unread(Stamp, "default")
        post_delete.disconnect(hears, sender=Stamp)
