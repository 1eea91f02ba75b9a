"""Sentences: two rules that differ in SQL never read alike, and what a person must be told is told."""

import functools
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.contrib.auth.models import Group as UserGroup, Permission
from django.contrib.contenttypes.models import ContentType
from django.db.models import (
    Case,
    CharField,
    Count,
    DecimalField,
    Exists,
    F,
    FilteredRelation,
    Func,
    IntegerField,
    Max,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Cast, Coalesce, Concat, Length, Lower, TruncDay, Upper
from django.db.models.lookups import Exact
from django.utils import translation
from django.utils.translation import gettext_lazy
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra.django import TestCase

from reconcile import (
    BeUnique,
    FromPython,
    HaveKeys,
    HaveRow,
    HaveRows,
    HaveValues,
    Latest,
    LookedUp,
    Rule,
    Satisfy,
    Within,
)
from reconcile.core.wording.names import function_in_words, model_in_words
from reconcile.core.wording.terms import condition_in_words, expression_in_words, queryset_in_words
from sample_project.shop.models import Group, Order, PendingCharge
from tests.zoo.models import Card, Contact, Letter, Match, Mention, Node, Note, Parcel, Player, Tag, Team

pytestmark = pytest.mark.once

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def sentence(every, must):
    return Rule(name="r", every=every, must=must).sentence


def statements(rule):
    """The SELECTs of the rule with their parameters; of a condition the one that finds where it holds."""
    if isinstance(rule.must, Satisfy):
        return [rule.queryset.filter(rule.must.condition).query.get_compiler("default").as_sql()]
    compiled = rule.compile(using="default", now=NOW)
    return [each.query.get_compiler("default").as_sql() for each in compiled.selects()]


# The property. A small vocabulary, so that rules come near each other; what each sentence stood for is remembered.

NUMBERS = ["depth", "size", "parent__depth", "parent__parent__size", "pk"]
TEXTS = ["name", "path", "parent__name"]


def _combined(terms):
    pairs = st.tuples(terms, terms)
    arithmetic = st.tuples(pairs, st.sampled_from("+-*")).map(lambda drawn: _calculated(*drawn[0], drawn[1]))
    return (
        arithmetic
        | pairs.map(lambda pair: Coalesce(*pair, output_field=IntegerField()))
        | terms.map(
            lambda each: Case(When(size__gt=1, then=each), default=Value(0), output_field=IntegerField())
        )
    )


def _calculated(left, right, sign):
    return {"+": left + right, "-": left - right, "*": left * right}[sign]


number_leaves = st.sampled_from(NUMBERS).map(F) | st.integers(0, 2).map(Value)
numbers = st.recursive(number_leaves, _combined, max_leaves=4)
texts = st.recursive(
    st.sampled_from(TEXTS).map(F) | st.sampled_from(["", "a", "name", "a' or 'b"]).map(Value),
    lambda each: (
        st.tuples(each, each).map(lambda pair: Concat(*pair, output_field=CharField()))
        | each.map(Lower)
        | each.map(Upper)
        | st.tuples(each, st.sampled_from([CharField(max_length=5), CharField(max_length=9)])).map(
            lambda pair: Cast(*pair)
        )
    ),
    max_leaves=3,
)


def _some_node(drawn):
    inner, outer, lookup, beyond = drawn
    return Exists(Node.objects.filter(**{f"{inner}{lookup}": OuterRef(outer)})[beyond:])


leaves = st.one_of(
    st.tuples(st.sampled_from(NUMBERS), st.sampled_from(["", "__gt", "__lte"]), st.integers(0, 2)).map(
        lambda drawn: Q(**{drawn[0] + drawn[1]: drawn[2]})
    ),
    st.tuples(
        st.sampled_from(TEXTS),
        st.sampled_from(["", "__iexact", "__startswith", "__contains", "__icontains"]),
        st.sampled_from(["a", "A", "1"]),
    ).map(lambda drawn: Q(**{drawn[0] + drawn[1]: drawn[2]})),
    st.tuples(st.sampled_from(NUMBERS), numbers).map(lambda drawn: Q(**{drawn[0]: drawn[1]})),
    st.sampled_from(
        [
            Q(parent=None),
            Q(depth__in=[1, 2]),
            Q(depth__in=[2]),
            Q(depth__range=(1, 2)),
            Q(pk__in=Node.objects.filter(depth=1)),
        ]
    ),
    st.tuples(
        st.sampled_from(["depth", "size"]),
        st.sampled_from(["depth", "size"]),
        st.sampled_from(["", "__lt"]),
        st.sampled_from([0, 0, 1, 2]),
    )
    .map(_some_node)
    .map(Q),
)
conditions = st.recursive(
    leaves,
    lambda each: (
        st.tuples(each, each).map(lambda pair: pair[0] & pair[1])
        | st.tuples(each, each).map(lambda pair: pair[0] | pair[1])
        | st.tuples(each, each).map(lambda pair: pair[0] ^ pair[1])
        | each.map(lambda one: ~one)
    ),
    max_leaves=5,
)


def _queryset(drawn):
    queryset = Node.objects.all()
    for kind, condition, path, number in drawn:
        if kind == "filter":
            queryset = queryset.filter(condition)
        elif kind == "exclude":
            queryset = queryset.exclude(condition)
        elif kind == "children":
            queryset = queryset.filter(**{f"children__{path}": number})
        elif kind == "no children":
            queryset = queryset.exclude(**{f"children__{path}": number})
        else:
            queryset = queryset.annotate(**{f"n{path}": F(path) + number}).filter(**{f"n{path}": 2})
    return queryset


querysets = st.lists(
    st.tuples(
        st.sampled_from(["filter", "exclude", "children", "no children", "annotated"]),
        conditions,
        st.sampled_from(["depth", "size"]),
        st.integers(0, 2),
    ),
    max_size=3,
).map(_queryset)
RELATED = [
    "players__age",
    "matches__points",
    "players__team__points",
    "players__team__matches__points",
    "matches__team__players__age",
]


def _teams(drawn):
    queryset = Team.objects.all()
    for excludes, path, number in drawn:
        found = {path: number} if number is not None else {f"{path}__isnull": True}
        queryset = queryset.exclude(**found) if excludes else queryset.filter(**found)
    return queryset


teams = st.lists(
    st.tuples(st.booleans(), st.sampled_from(RELATED), st.sampled_from([1, 2, None])), min_size=1, max_size=3
).map(_teams)
aggregates = st.one_of(
    st.tuples(
        st.sampled_from(["children", "children__parent"]),
        st.booleans(),
        st.sampled_from([None, Q(children__depth=1), Q(children__depth=2)]),
    ).map(lambda drawn: Count(drawn[0], distinct=drawn[1], filter=drawn[2])),
    st.tuples(st.sampled_from(["children__size", "children__depth"]), st.sampled_from([None, 0, 1])).map(
        lambda drawn: Sum(drawn[0], default=drawn[1])
    ),
)
firsts = st.tuples(
    st.sampled_from(["depth", "size"]),
    st.sampled_from(["pk", "-pk", "size"]),
    st.sampled_from([Q(), Q(depth=1)]),
).map(lambda drawn: Latest("children", by=[drawn[1]], value=drawn[0], filter=drawn[2]))
looked_up = st.tuples(
    st.sampled_from(["depth", "size"]), st.sampled_from(["depth", "size"]), st.sampled_from([Q(), Q(depth=1)])
).map(lambda drawn: LookedUp(Node, link={drawn[0]: F(drawn[1])}, value="size", by=["pk"], where=drawn[2]))
queried = st.tuples(
    st.sampled_from(["depth", "size"]), st.sampled_from(["pk", "-pk"]), st.integers(1, 2)
).map(
    lambda drawn: Subquery(
        Node.objects.filter(parent=OuterRef("pk"))
        .order_by(drawn[1])
        .values(drawn[0])[drawn[2] - 1 : drawn[2]]
    )
)
flags = st.booleans()
musts = st.one_of(
    st.tuples(st.sampled_from(["depth", "size"]), numbers | aggregates | firsts | looked_up | queried).map(
        lambda drawn: HaveValues(**{drawn[0]: drawn[1]})
    ),
    texts.map(lambda text: HaveValues(path=text)),
    st.tuples(numbers, texts).map(lambda drawn: HaveValues(size=drawn[0], path=drawn[1])),
    conditions.map(Satisfy),
    st.tuples(
        st.sampled_from(["depth", "size"]),
        numbers,
        texts,
        flags,
        st.sampled_from([Q(), Q(path="a"), Q(path="a") | Q(size=1)]),
    ).map(
        lambda drawn: HaveRow(
            Node,
            link={drawn[0]: drawn[1]},
            **{"values" if drawn[3] else "create_only": {"name": drawn[2]}},
            where=drawn[4],
        )
    ),
    st.tuples(numbers, texts).map(lambda drawn: HaveRow(Node, link={"depth": drawn[0], "name": drawn[1]})),
    st.tuples(
        texts,
        st.sampled_from(
            [
                "pk",
                "-size",
                F("size").desc(),
                F("size").desc(nulls_first=True),
                F("size").desc(nulls_last=True),
            ]
        ),
        flags,
    ).map(lambda drawn: BeUnique(drawn[0], keep=[drawn[1]], nulls_distinct=drawn[2])),
)


class Sentences(TestCase):
    meant: dict[str, list] = {}

    def compare(self, every, must):
        rule = Rule(name="r", every=every, must=must)
        assume(not list(rule.faults()))
        found = statements(rule)
        assert self.meant.setdefault(rule.sentence, found) == found, rule.sentence

    @settings(max_examples=600, deadline=None)
    @given(must=musts)
    def test_equal_effects_have_equal_sql(self, must):
        self.compare(Node, must)

    @settings(max_examples=600, deadline=None)
    @given(every=querysets)
    def test_equal_records_have_equal_sql(self, every):
        self.compare(every, HaveValues(size=1))

    @settings(max_examples=200, deadline=None)
    @given(every=teams)
    def test_equal_relations_have_equal_sql(self, every):
        self.compare(every, HaveValues(name="n"))

    @settings(max_examples=100, deadline=None)
    @given(every=querysets, must=musts)
    def test_equal_sentences_have_equal_sql(self, every, must):
        self.compare(every, must)


def test_the_property_sees_a_lost_bracket():
    """It compares what it says that it compares: without brackets these two would read alike."""
    apart = [
        Rule(name="r", every=Node, must=HaveValues(size=each))
        for each in (F("depth") * (F("size") + 1), F("depth") * F("size") + 1)
    ]
    assert statements(apart[0]) != statements(apart[1])
    assert apart[0].sentence != apart[1].sentence
    assert apart[0].sentence.replace("(", "").replace(")", "") == apart[1].sentence


# What was seen wrong.


def test_brackets_stay_where_reading_on_would_change_the_meaning():
    assert (
        queryset_in_words(Node.objects.filter(Q(depth=1) | Q(depth=2), size=1))
        == "(depth = 1 or depth = 2) and size = 1"
    )
    assert expression_in_words(F("size") * (F("depth") + 1)) == "size * (depth + 1)"
    assert expression_in_words(F("size") - (F("depth") - 1)) == "size - (depth - 1)"
    assert expression_in_words(F("size") - F("depth") - 1) == "size - depth - 1"
    assert expression_in_words(F("size") + F("depth") * 2) == "size + depth * 2"
    assert expression_in_words((F("size") % 2) + 1) == "(size % 2) + 1"


def test_a_path_has_all_its_steps_also_where_it_comes_to_a_table_twice():
    assert queryset_in_words(Node.objects.filter(parent__depth=1)) == "parent.depth = 1"
    assert (
        queryset_in_words(Node.objects.filter(parent__parent__depth=1, depth=2))
        == "depth = 2 and parent.parent.depth = 1"
    )
    assert queryset_in_words(Node.objects.filter(children__parent__depth=1)) == "children.parent.depth = 1"


def test_a_second_row_of_one_relation_is_another_row():
    one = Node.objects.filter(children__depth=1, children__size=2)
    two = Node.objects.filter(children__depth=1).filter(children__size=2)
    assert queryset_in_words(one) == "children.depth = 1 and children.size = 2"
    assert queryset_in_words(two) == "children.depth = 1 and children#2.size = 2"


@pytest.mark.parametrize(
    ("every", "words"),
    [
        (
            Team.objects.exclude(players__age=1),
            "there is some player with age = 1 and team = the record's id",
        ),
        (
            Team.objects.exclude(matches__points=1),
            "there is some match with points = 1 and team = the record's id",
        ),
        (
            Team.objects.filter(~Q(players__team__players__age=1)),
            "there is some player with team.players.age = 1 and team = the record's id",
        ),
    ],
)
def test_what_is_excluded_over_many_rows_says_which_rows(every, words):
    """Django trims the table between, and leaves a subquery that begins with another model's."""
    assert f"Every team with not ({words}) must" in sentence(every, HaveValues(name="n"))


PLAYERS = Player.objects.filter(team=OuterRef("pk"))


def test_some_and_more_than_some_and_unions_are_told_apart():
    said = [
        sentence(Team, Satisfy(Q(Exists(rows))))
        for rows in (
            PLAYERS, PLAYERS[1:], PLAYERS[2:], PLAYERS.union(PLAYERS), PLAYERS.union(PLAYERS, all=True),
            PLAYERS.extra(tables=["zoo_page"]),
        )
    ]  # fmt: skip
    assert len({*said}) == len(said)
    assert "there are more than 2 of player with team = the record's pk" in said[2]


class Shout:
    class Lower(Func):
        function = "UPPER"


def test_functions_of_one_name_say_where_they_are_found():
    ours, theirs = (sentence(Team, HaveValues(name=kind("name"))) for kind in (Lower, Shout.Lower))
    assert "name = Lower(name)" in ours
    assert "name = tests.core.test_wording.Shout.Lower(name)" in theirs


def test_a_foreign_key_keeps_its_name():
    rows = Letter.objects.filter(contact__team__name="a", copy_to__team__name="b")
    assert queryset_in_words(rows) == "contact.team.name = 'a' and copy_to.team.name = 'b'"
    assert (
        queryset_in_words(Letter.objects.filter(contact=3, copy_to__code="c"))
        == "contact = 3 and copy_to.code = 'c'"
    )


def test_many_to_many_paths_read_as_they_are_written():
    assert queryset_in_words(Contact.objects.filter(tags__name="a")) == "tags.name = 'a'"
    assert queryset_in_words(Contact.objects.filter(tags=3)) == "tags = 3"
    assert queryset_in_words(Tag.objects.filter(contacts__team__name="a")) == "contacts.team.name = 'a'"
    assert queryset_in_words(Contact.objects.filter(friends__email="a")) == "friends.email = 'a'"
    assert (
        queryset_in_words(Contact.objects.filter(tags__name="a").filter(tags__name="b"))
        == "tags.name = 'a' and tags#2.name = 'b'"
    )
    assert queryset_in_words(Contact.objects.filter(card__pk=1)) == "card.id = 1"


def test_an_inherited_column_has_no_step_to_the_parents_table():
    from tests.zoo.models import Trailer

    path = queryset_in_words(
        Trailer.objects.filter(vehicle_ptr_id__gt=1)
        if hasattr(Trailer, "vehicle_ptr_id")
        else Trailer.objects.filter(pk=1)
    )
    assert "ptr." not in path


def test_a_filtered_relation_says_what_it_asks():
    rows = Team.objects.annotate(old=FilteredRelation("players", condition=Q(players__age__gt=30))).filter(
        old__active=True
    )
    assert queryset_in_words(rows) == "(players where players.age > 30).active = True"


def test_whose_column_a_subquery_names_is_said():
    shorter = Exists(Node.objects.filter(depth__lt=OuterRef("depth")))
    assert condition_in_words(shorter) == "there is some node with depth < the record's depth"
    assert (
        queryset_in_words(Node.objects.filter(shorter))
        == "there is some node with depth < the record's depth"
    )
    below = LookedUp(Node, link={"path__startswith": F("path")}, value=Count("pk"))
    assert (
        sentence(Node, HaveValues(size=below))
        == "Every node must have size = Count(pk) over each Node where path starts with the record's path."
    )


def test_a_subquery_inside_a_subquery_says_which_row_it_means():
    inner = Node.objects.filter(parent=OuterRef("pk"), depth=OuterRef(OuterRef("size")))
    rows = Node.objects.filter(Exists(Node.objects.filter(Exists(inner), name=OuterRef("name"))))
    said = queryset_in_words(rows)
    assert "parent = the enclosing node's id" in said
    assert "depth = the record's size" in said
    assert "name = the record's name" in said


def test_a_subquery_is_said_whole_and_nothing_has_an_address():
    first = Subquery(Match.objects.filter(team=OuterRef("pk")).order_by("-points", "pk").values("points")[:1])
    assert sentence(Team, HaveValues(points=first)) == (
        "Every team must have points = (the first points of match with team = the record's pk by points descending, pk)."
    )
    summed = Subquery(
        Match.objects.filter(team=OuterRef("pk")).values("team").annotate(s=Sum("points")).values("s")
    )
    assert "each Sum(points) of match with team = the record's pk, grouped by team" in expression_in_words(
        summed
    )
    listed = condition_in_words(Q(team__in=Team.objects.filter(name="a")), Player)
    assert listed == "team in (each row of team with name = 'a')"
    assert " at 0x" not in listed


def test_a_condition_beside_a_sign_stands_in_brackets():
    one = Exists(Node.objects.filter(depth=1))
    assert condition_in_words(Exact(one, True)) == "there is some node with depth = 1"
    assert condition_in_words(Exact(one, False)) == "not (there is some node with depth = 1)"
    assert condition_in_words(Exact(F("active"), one)) == "active = (there is some node with depth = 1)"
    assert (
        sentence(Player, HaveValues(active=Q(age__gt=3) & Q(pk__gt=1)))
        == "Every player must have active = (age > 3 and pk > 1)."
    )


def test_lookups_without_regard_to_case_differ_from_those_with():
    said = {
        condition_in_words(Q(**{f"name{lookup}": "a"}), Node)
        for lookup in ("", "__iexact", "__contains", "__icontains")
    }
    assert said == {
        "name = 'a'",
        "name is, in any case, 'a'",
        "name contains 'a'",
        "name contains in any case 'a'",
    }


def test_a_path_that_is_not_resolved_reads_like_one_that_is():
    assert condition_in_words(Q(parent__parent__name="a"), Node) == "parent.parent.name = 'a'"
    assert condition_in_words(Q(seen_at__year__gte=2020), Note) == "seen_at.year ≥ 2020"
    assert condition_in_words(Q(seen_at__year=2020), Note) == "seen_at.year = 2020"
    assert expression_in_words(F("parent__name")) == "parent.name"


def test_a_choice_is_its_value_with_the_label_behind():
    drafts = Order.objects.filter(status=Order.Status.DRAFT)
    assert queryset_in_words(drafts) == "status = 'draft'"  # The label says no more.
    field = Order._meta.get_field("status")
    shown = field.choices
    try:
        field.choices = [("draft", gettext_lazy("not yet sent")), ("paid", "Paid")]
        assert queryset_in_words(drafts) == "status = 'draft' (not yet sent)"
        assert (
            condition_in_words(Q(status__in=["draft", "paid"]), Order)
            == "status in ['draft' (not yet sent), 'paid']"
        )
        assert sentence(Order, HaveValues(status="draft")).endswith(
            "must have status = 'draft' (not yet sent)."
        )
        assert queryset_in_words(PendingCharge.objects.filter(item__order__status="draft")).endswith(
            "status = 'draft' (not yet sent)"
        )
    finally:
        field.choices = shown


def test_models_of_one_name_are_told_by_their_labels():
    assert model_in_words(Group) == "shop.Group"
    assert model_in_words(UserGroup) == "auth.Group"
    assert model_in_words(Node) == "node"


def test_a_name_with_a_capital_letter_reads_well_in_mid_sentence(monkeypatch):
    for name, said in (
        ("Knowledge base item", "knowledge base item"),
        ("FAQ", "FAQ"),
        ("GitHub account", "GitHub account"),
    ):
        monkeypatch.setattr(Node._meta, "verbose_name", name)
        assert model_in_words(Node) == said


def test_a_sentence_does_not_depend_on_the_language_in_use():
    rule = Rule(
        name="r",
        every=Permission.objects.filter(content_type__model="a"),
        must=HaveRow(ContentType, link={"id": F("content_type")}),
    )
    plain = rule.sentence
    with translation.override("de"):
        assert rule.sentence == plain
        assert "Permission" not in plain or plain.startswith("Every permission")


def double(text):
    return text * 2


def adding(suffix):
    return lambda text: text + suffix


def test_functions_are_told_apart():
    words = function_in_words
    assert words(double) == f"{__name__}.double"
    assert words(functools.partial(double, text="a")) == f"{__name__}.double[text='a']"
    assert words(functools.partial(double, "a")) == f"{__name__}.double['a']"
    assert words(len) == "len"
    assert words(str.upper) == "str.upper"
    assert words(adding("a")) == "(lambda text: text + suffix)[suffix='a']"
    assert words(adding("b")) != words(adding("a"))
    assert " at 0x" not in words(object())
    made = HaveRows(
        Mention, link={"note": F("pk")}, rows=functools.partial(double), reads=["text"], key=["user_name"]
    )
    assert "partial(" not in sentence(Note, made)
    assert sentence(Note, HaveValues(slug=FromPython(double, reads=["author__code"]))).endswith(
        f"slug = {__name__}.double(author.code)."
    )


def test_options_of_a_function_are_said():
    assert expression_in_words(Count("pk", distinct=True)) == "Count(pk, distinct=True)"
    assert (
        expression_in_words(Sum("size", default=0, filter=Q(depth=1)))
        == "Sum(size, default=0 where depth = 1)"
    )
    assert (
        expression_in_words(Cast("size", CharField(max_length=9)))
        == "Cast(size, output_field=CharField(max_length=9))"
    )
    assert expression_in_words(TruncDay("made_at")) == "TruncDay(made_at)"
    assert expression_in_words(Value(Decimal("1.5"))) != expression_in_words(Value(1.5))
    assert expression_in_words(F("name")[:3]) == "name[0:3]"
    case = Case(When(size=1, then=Value("a")), default=Value("b"))
    assert expression_in_words(case, Node) == "case(when size = 1 then 'a', else 'b')"


def test_a_long_list_is_cut_and_still_tells_which_it_is():
    one, other = (
        queryset_in_words(Node.objects.filter(depth__in=numbers))
        for numbers in (range(500), [*range(3), 9999, *range(4, 500)])
    )
    assert len(one) < 100
    assert "500 values in all" in one
    assert one != other


def test_link_and_values_and_what_is_written_once_are_told_apart():
    named = {"link": {"depth": F("depth")}, "name": "a"}
    link = HaveRow(Node, link={**named["link"], "name": "a"})
    values = HaveRow(Node, link=named["link"], values={"name": "a"})
    once = HaveRow(Node, link=named["link"], create_only={"name": "a"})
    assert [sentence(Node, each) for each in (link, values, once)] == [
        "Every node must have exactly 1 Node with depth = depth and name = 'a'.",
        "Every node must have exactly 1 Node with depth = depth, whose name = 'a'.",
        "Every node must have exactly 1 Node with depth = depth, made with name = 'a'.",
    ]


def test_keys_of_json_are_said_with_what_they_get():
    said = sentence(Contact, HaveValues(details=HaveKeys({"theme": "light"}, exact=True)))
    assert (
        said
        == "Every contact must have details = (an object with exactly the key 'theme' (where missing: 'light'))."
        or said.endswith("details = an object with exactly the key 'theme' (where missing: 'light').")
    )


def test_an_order_says_where_null_comes():
    said = sentence(Contact, BeUnique("email", keep=[F("updated_at").desc(nulls_first=True), "-visits"]))
    assert "the first by updated_at descending (NULL first), visits descending, pk stays" in said


def test_within_says_its_tolerance():
    must = HaveValues(average=Within(Max("players__age") * 2, Decimal("0.5")))
    assert sentence(Team, must) == "Every team must have average = Max(players.age) * 2 within 0.5."


@pytest.mark.parametrize(
    "value", [Length("name"), Cast("name", DecimalField(max_digits=5, decimal_places=2)), Parcel(pk=7)]
)
def test_no_term_shows_an_address(value):
    assert " at 0x" not in expression_in_words(value)


def test_two_cards_on_one_contact():
    assert queryset_in_words(Card.objects.filter(contact__team=None)) == "contact.team is missing"
