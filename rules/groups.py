"""Groups: each member's access, and the counter of members."""

from django.db.models import Count, F

from reconcile import HaveRow, HaveValues, Rule
from sample_project.shop import signals
from sample_project.shop.models import Access, Group

access = Rule(
    every=Group.members.through,
    must=HaveRow(Access, link={"user": F("user"), "group": F("group")}),
    owner="community",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_members_changed],
    factory="sample_project.shop.factories:groups",
)

member_count = Rule(
    every=Group,
    must=HaveValues(member_count=Count("members")),
    owner="community",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_members_changed],
    factory="sample_project.shop.factories:groups",
)
