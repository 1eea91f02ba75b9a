"""A rule that deletes, for the nightly job."""

from reconcile import EXTRA, Delete, HaveSource, Rule
from tests.zoo.models import Memo

orphans = Rule(every=Memo, must=HaveSource("target"), remedies={EXTRA: Delete()}, unattended=True)
