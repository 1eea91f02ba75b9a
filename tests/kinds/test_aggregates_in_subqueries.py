"""An aggregate inside of a subquery is over the subquery's rows, whatever stands around it."""

import pytest
from django.db.models import Case, Count, Exists, F, IntegerField, OuterRef, Q, Subquery, Sum, Value, When
from django.db.models.functions import Coalesce

from reconcile import FromPython, HaveRow, HaveValues, Rule, Satisfy
from tests.helpers import assert_finds, assert_repairs, repaired
from tests.zoo.models import Bill, Match, Player, Team

pytestmark = pytest.mark.django_db


def grouped(rows, aggregate):
    """As Django's documentation writes it: group by the link, and select the aggregate alone."""
    return rows.filter(team=OuterRef("pk")).order_by().values("team").annotate(_n=aggregate).values("_n")


PLAYERS = Coalesce(Subquery(grouped(Player.objects, Count("pk")), output_field=IntegerField()), 0)
POINTS = Coalesce(Subquery(grouped(Match.objects, Sum("points")), output_field=IntegerField()), 0)
POPULAR = Exists(
    Player.objects.filter(team=OuterRef("pk")).values("team").annotate(n=Count("pk")).filter(n__gte=2)
)


def teams():
    """Teams with 0, 1, 2 and 3 players and matches, each match of 10 points."""
    made = [Team.objects.create(name=str(number)) for number in range(4)]
    for number, team in enumerate(made):
        Player.objects.bulk_create([Player(team=team, age=20 + each) for each in range(number)])
        Match.objects.bulk_create([Match(team=team, points=10) for _ in range(number)])
    return made


VALUES = {
    "count": (PLAYERS, [0, 1, 2, 3]),
    "sum": (POINTS, [0, 10, 20, 30]),
    "both": (PLAYERS + POINTS, [0, 11, 22, 33]),
    "beside an aggregate over a relation": (Count("players") + POINTS, [0, 11, 22, 33]),
    "beside an aggregate over another": (Count("matches") + PLAYERS, [0, 2, 4, 6]),
    "beside a sum": (Sum("matches__points") + PLAYERS, [0, 11, 22, 33]),
    "in a condition": (Case(When(Q(POPULAR), then=Value(7)), default=Value(5)), [5, 5, 7, 7]),
    "in an aggregate's filter": (Count("players", filter=Q(POPULAR)), [0, 0, 2, 3]),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_record_gets_what_the_subquery_gives(name):
    value, expected = VALUES[name]
    made = teams()
    Team.objects.update(player_count=-1)
    rule = Rule(name="teams", every=Team, must=HaveValues(player_count=value))
    assert_finds(rule, stale=made)
    assert_repairs(rule, update=4)
    assert list(Team.objects.order_by("pk").values_list("player_count", flat=True)) == expected


@pytest.mark.parametrize("name", ["count", "sum", "both", "in a condition"])
def test_a_row_gets_what_the_subquery_gives(name):
    value, expected = VALUES[name]
    made = teams()
    Bill.objects.create(basket_number=made[2].pk, score=-1)
    rule = Rule(
        name="bills", every=Team, must=HaveRow(Bill, link={"basket_number": F("pk")}, values={"score": value})
    )
    assert_repairs(rule, insert=3, update=1)
    assert list(Bill.objects.order_by("basket_number").values_list("score", flat=True)) == expected


def test_a_condition_is_met_by_the_subquery_s_rows():
    made = teams()
    assert_finds(Rule(name="popular", every=Team, must=Satisfy(Q(POPULAR))), stale=made[:2])
    few = Rule(name="few", every=Team.objects.filter(~Q(POPULAR)), must=HaveValues(points=PLAYERS))
    assert_finds(few, stale=[made[1]])


def test_beside_what_python_computes():
    made = teams()
    shouted = FromPython(str.title, reads=["name"])
    rule = Rule(name="beside", every=Team, must=HaveValues(name=shouted, player_count=PLAYERS))
    assert_finds(rule, stale=made[1:])
    assert repaired(rule).written.update == 3
    assert list(Team.objects.order_by("pk").values_list("player_count", flat=True)) == [0, 1, 2, 3]
