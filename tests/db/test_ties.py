"""Which tables a SELECT reads, and the foreign keys that tie each to its own rows."""

import pytest
from django.db.models import Count, Exists, F, OuterRef, Q, Subquery, Sum

from reconcile.db.derived_tables import left_join
from reconcile.db.ties import ties_of
from tests.zoo.models import Basket, Bill, Contact, Letter, Node, Player, Team

pytestmark = pytest.mark.once

PLAYERS = Player.objects.order_by()


def ways(queryset):
    """For each table but the first: its model, and the keys of its way to the first, `<` for one that leads back; None if untied."""
    first, *others = ties_of(queryset).tables
    return {
        (
            each.model.__name__,
            next(
                (
                    tuple(f"{'<' if step.back else ''}{step.key.name}" for step in way)
                    for way in each.ways_to([first])
                ),
                None,
            ),
        )
        for each in others
    }


@pytest.mark.parametrize(
    ("queryset", "found"),
    [
        (Team.objects.all(), set()),
        (Player.objects.filter(team__name="x"), {("Team", ("<team",))}),
        (Player.objects.filter(team__pk=3), set()),
        (Player.objects.filter(team__alternate__name="x"), {("Team", ("<team",)), ("Team", ("<alternate", "<team"))}),
        (Node.objects.filter(parent__parent__size=1), {("Node", ("<parent",)), ("Node", ("<parent", "<parent"))}),
        (Team.objects.annotate(n=Count("players")), {("Player", ("team",))}),
        (
            Contact.objects.annotate(n=Sum("friends__spent")),
            {("Contact_friends", ("from_contact",)), ("Contact", ("<to_contact", "from_contact"))},
        ),
        (Team.objects.filter(Exists(PLAYERS.filter(team=OuterRef("pk")))), {("Player", ("team",))}),
        (Team.objects.filter(~Exists(PLAYERS.filter(team=OuterRef("pk"), age=3))), {("Player", ("team",))}),
        (Team.objects.filter(Exists(PLAYERS.filter(Q(team=OuterRef("pk")) | Q(age=3)))), {("Player", None)}),
        (Team.objects.filter(Exists(PLAYERS.exclude(team=OuterRef("pk")))), {("Player", None)}),
        (Team.objects.filter(Exists(PLAYERS.filter(age=OuterRef("player_count")))), {("Player", None)}),
        (Team.objects.filter(pk__in=PLAYERS.values("team")), {("Player", ("team",))}),
        (Team.objects.exclude(pk__in=PLAYERS.values("team")), {("Player", ("team",))}),
        (Team.objects.filter(points__in=PLAYERS.values("age")), {("Player", None)}),
        (
            Letter.objects.filter(Exists(Letter.objects.filter(contact=OuterRef("copy_to")))),
            {("Letter", ("contact", "<copy_to"))},
        ),
        (
            Team.objects.annotate(_x=Subquery(PLAYERS.filter(team=OuterRef("pk")).values("team__name")[:1])),
            {("Player", ("team",)), ("Team", ("<team", "team"))},
        ),
        (Bill.objects.filter(Exists(Basket.objects.filter(pk=OuterRef("basket_number")))), {("Basket", None)}),
    ],
)  # fmt: skip
def test_a_table_is_tied_by_what_its_rows_must_meet(queryset, found):
    assert ways(queryset) == found


def test_a_derived_table_is_tied_by_the_key_that_it_is_joined_on():
    table = PLAYERS.values("team").annotate(_team=F("team"), _n=Count("pk")).values("_team", "_n")
    joined, columns = left_join(Team.objects.all(), table, {"_team": (Team._meta.pk, F("pk"))})
    assert ways(joined.annotate(n=columns["_n"])) == {("Player", ("team",))}
    joined, columns = left_join(Team.objects.all(), table, {"_n": (Team._meta.pk, F("pk"))})
    assert ways(joined.annotate(n=columns["_n"])) == {("Player", None)}
