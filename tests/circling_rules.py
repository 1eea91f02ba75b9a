"""Rules that write what each other reads, and that the nightly job may repair."""

from django.db.models import Case, F, Value, When

from reconcile import HaveValues, Rule
from tests.zoo.models import Team

name = Rule(
    every=Team,
    must=HaveValues(name=Case(When(points__gt=5, then=Value("good")), default=Value("bad"))),
    unattended=True,
)
points = Rule(every=Team, must=HaveValues(points=F("player_count")), unattended=True)
count = Rule(
    every=Team,
    must=HaveValues(player_count=Case(When(name="good", then=Value(9)), default=F("player_count"))),
    unattended=True,
)
