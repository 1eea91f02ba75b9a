"""A chunk's journal is what the chunk has written: where the counts of both differ, it is rolled back."""

from contextlib import contextmanager

import pytest
from django.db import connection
from django.db.models import Count, F

from reconcile import EXTRA, BeUnique, Delete, HaveRow, HaveValues, Rule
from reconcile.models import Change
from reconcile.repair.fault_injection import Step, listen
from tests.helpers import Session, repaired
from tests.zoo.models import Contact, Match, Player, Team

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]

MATCH = Rule(
    name="match", every=Team, must=HaveRow(Match, link={"team": F("pk")}, values={"points": F("points")})
)
COUNT = Rule(name="count", every=Team, must=HaveValues(player_count=Count("players")))
ONCE = Rule(name="once", every=Contact, must=BeUnique("email"), remedies={EXTRA: Delete()})


def test_a_source_that_changes_between_image_and_update_leaves_no_image_of_what_was_not_written():
    team, over = Team.objects.create(player_count=1), []

    def add_player(step):
        if step is Step.JOURNAL and not over:
            over.append(step)
            session = Session(lambda: Player.objects.create(team=team))
            session.start()
            session.join()

    with listen(add_player):
        result = repaired(COUNT)
    assert (over, result.error, result.left, result.written.total) == ([Step.JOURNAL], None, 0, 0)
    assert not Change.objects.exists()


@contextmanager
def passed_over(table, act):
    """While the block runs, the database silently passes over each row of the table that is to be written so."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION pass_over() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        cursor.execute(
            f"CREATE TRIGGER pass_over BEFORE {act} ON {table} FOR EACH ROW EXECUTE FUNCTION pass_over()"
        )
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION pass_over() CASCADE")


@pytest.mark.parametrize(
    ("rule", "table", "act"),
    [(MATCH, "zoo_match", "INSERT"), (COUNT, "zoo_team", "UPDATE"), (ONCE, "zoo_contact", "DELETE")],
    ids=["insert", "update", "delete"],
)
def test_what_the_database_silently_passes_over_is_neither_journalled_nor_counted(rule, table, act):
    Team.objects.create(player_count=act == "UPDATE")
    Contact.objects.bulk_create([Contact(email="a@example.com"), Contact(email="a@example.com")])
    rows = {Team: Team.objects.count(), Match: Match.objects.count(), Contact: Contact.objects.count()}
    with passed_over(table, act):
        result = repaired(rule)
    assert (result.written.total, result.left, result.incomplete) == (0, 1, True)
    assert {model: model.objects.count() for model in rows} == rows
    assert not Change.objects.exists()
