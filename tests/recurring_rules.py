"""A rule for the nightly job, whose records somebody opens again."""

from reconcile import HaveValues, Rule
from tests.zoo.models import Parcel

closed = Rule(every=Parcel, must=HaveValues(state="closed"), unattended=True)
