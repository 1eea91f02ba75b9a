"""Rules for the nightly job: one whose records somebody opens again, and one that is computed from others."""

from django.db.models import Count

from reconcile import HaveValues, Rule
from tests.zoo.models import Parcel, Team

closed = Rule(every=Parcel, must=HaveValues(state="closed"), unattended=True)
counted = Rule(every=Team, must=HaveValues(player_count=Count("players")), unattended=True)
