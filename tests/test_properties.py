"""Whatever the state: a repair mends what had drifted, touches nothing else, and a second one writes nothing."""

from decimal import Decimal
from itertools import pairwise

from django.db.models import Avg, Count, F, Q, Sum
from django.utils import timezone
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra.django import TestCase

from reconcile import AtLeast, HaveRow, HaveValues, Latest, LookedUp, Rule, Within, runs
from reconcile.core.drift import EXTRA, MISSING, STALE, Bound
from reconcile.core.scopes import EVERYTHING, Keys, Window
from reconcile.models import Change
from tests.helpers import checked, examples, mendable
from tests.zoo.models import Basket, Bill, Match, Player, Team

RELAXED = settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])

small = st.integers(-3, 3)
money = st.decimals("-99.99", "99.99", places=2)
texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00", max_codepoint=0xFFFF, exclude_categories=["Cs"]),
    max_size=8,
)
baskets = st.lists(st.tuples(money, small, texts, st.none() | texts), max_size=12)
bills = st.lists(st.tuples(st.integers(-2, 14), money, st.sampled_from(["bill", "draft"])), max_size=20)

ROW_RULES = [
    HaveRow(Bill, link={"basket_number": F("pk")}),
    HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("price"), "score": F("quantity")}),
    HaveRow(Bill, link={"basket_number": F("pk")}, values={"amount": F("total")}, count=AtLeast(1)),
    HaveRow(Bill, link={"basket_number": F("pk"), "kind": "bill"}, count=2),
    HaveRow(Bill, link={"basket_number": F("pk")}, where=Q(kind="bill"), values={"amount": F("price")}),
    HaveRow(
        Bill, link={"basket_number": F("pk"), "score": F("quantity")}, create_only={"amount": F("price")}
    ),
]
VALUE_RULES = [
    HaveValues(note=F("label")),
    HaveValues(label="right", note=None),
    HaveValues(price=F("quantity") * F("price")),
    HaveValues(rate=F("price"), quantity=F("score") + 1),
    HaveValues(seen_at=None, changed=True),
]
TEAM_RULES = [
    HaveValues(player_count=Count("players")),
    HaveValues(player_count=Sum("players__age"), points=Sum("matches__points")),
    HaveValues(points=Sum("players__age", filter=Q(players__active=True))),
    HaveValues(player_count=Count("players", distinct=True) + Count("matches", distinct=True)),
    HaveValues(points=Latest("players", by=["-age"], value="age", filter=Q(active=True))),
    HaveValues(alternate=LookedUp(Team, link={"name": F("name")}, value="pk", by=["-points"])),
    HaveValues(points=LookedUp(Match, link={"points__lte": F("player_count")}, value=Sum("points"))),
    HaveValues(average=Within(Avg("players__age"), Decimal("2.5"))),
]
EVERY = [Basket.objects.all(), Basket.objects.filter(quantity__gte=0), Basket.objects.exclude(label="right")]


def rows_of(model):
    return {
        row[0]: row
        for row in model._base_manager.values_list(
            "pk", *[field.attname for field in model._meta.concrete_fields]
        )
    }


def assert_agreed(rule):
    """A finder tells the same drift by windows of three keys, by the whole table, and by each key."""
    compiled = rule.compile(using="default", now=timezone.now())
    for finder in compiled.finders:
        drifted = sorted(finder.keys(EVERYTHING))
        assert finder.count(EVERYTHING) == len(drifted)
        ends = [None, *sorted(rows_of(rule.model))[2::3], None]
        seen = [Window(*pair) for pair in pairwise(ends)]
        assert sorted(key for window in seen for key in finder.keys(window)) == drifted
        assert sum(finder.count(window) for window in seen) == len(drifted)
        every = sorted(rows_of(finder.model))
        assert sorted(finder.keys(Keys(every))) == drifted
        assert sorted(key for each in every for key in finder.keys(Keys([each]))) == drifted


def assert_foreseen(planned, result):
    """The plan has said what was written: exactly, or how many rows at the least."""
    if planned.bound is Bound.EXACT:
        assert planned.planned == result.written, planned
    else:
        assert 0 < planned.planned.total <= result.written.total, planned


def assert_mended(rule, written_to):
    """A repair writes what had drifted and nothing else, and leaves nothing to find."""
    assert_agreed(rule)
    before = rows_of(written_to)
    first_change = Change.objects.count()
    found = checked(rule).tally
    (planned,) = runs.preview({rule.name: rule}, using="default", now=timezone.now())
    _, (result,) = runs.repair({rule.name: rule}, using="default")
    assert result.error is None
    assert_foreseen(planned, result)
    assert (mendable(result), result.why_stopped) == (0, ""), result
    changes = list(Change.objects.order_by("pk")[first_change:])
    touched = {int(change.key) for change in changes}
    after = rows_of(written_to)
    assert len(touched) == len(changes) == result.written.total
    assert {key for key in after if after[key] != before.get(key)} == touched
    assert before.keys() <= after.keys()
    assert (result.written.total > 0) == (found[MISSING] + found[STALE] > 0)
    again = checked(rule).tally
    assert (again[MISSING], again[STALE]) == (0, 0)
    assert again[EXTRA] == found[EXTRA]
    _, (second,) = runs.repair({rule.name: rule}, using="default")
    assert second.written.total == 0


class AnyState(TestCase):
    @RELAXED
    @given(baskets=baskets, bills=bills, must=st.sampled_from(ROW_RULES), every=st.sampled_from(EVERY))
    def test_of_rows_that_are_owed(self, baskets, bills, must, every):
        made = self.make_baskets(baskets)
        numbers = [basket.pk for basket in made]
        Bill.objects.bulk_create(
            Bill(
                basket_number=numbers[number] if 0 <= number < len(numbers) else -number,
                amount=amount,
                kind=kind,
            )
            for number, amount, kind in bills
        )
        assert_mended(Rule(name="row", every=every, must=must), Bill)

    @RELAXED
    @given(baskets=baskets, must=st.sampled_from(VALUE_RULES), every=st.sampled_from(EVERY[:2]))
    def test_of_values_of_the_record(self, baskets, must, every):
        self.make_baskets(baskets)
        # What is written may decide whether the record is one of every, so the product is bounded by hand.
        if "price" in must.columns:
            Basket.objects.update(quantity=1)
        assert_mended(Rule(name="values", every=every, must=must), Basket)

    @RELAXED
    @given(
        teams=st.lists(st.tuples(small, st.none() | small), max_size=8),
        players=st.lists(st.tuples(st.integers(0, 7), st.booleans(), st.integers(0, 40)), max_size=20),
        matches=st.lists(st.tuples(st.integers(0, 7), small), max_size=12),
        must=st.sampled_from(TEAM_RULES),
    )
    def test_of_aggregates_over_related_rows(self, teams, players, matches, must):
        Team.objects.bulk_create(Team(name="t", player_count=count, points=points) for count, points in teams)
        keys = list(Team.objects.order_by("pk").values_list("pk", flat=True))
        if keys:
            Player.objects.bulk_create(
                Player(team_id=keys[number % len(keys)], active=active, age=age)
                for number, active, age in players
            )
            Match.objects.bulk_create(
                Match(team_id=keys[number % len(keys)], points=points) for number, points in matches
            )
        assert_mended(Rule(name="team", every=Team, must=must), Team)

    def make_baskets(self, values):
        Basket.objects.bulk_create(
            Basket(price=price, quantity=quantity, label=label, note=note)
            for price, quantity, label, note in values
        )
        return list(Basket.objects.order_by("pk"))
