"""Categories: the path that each makes from its parent's."""

from django.db.models import F, Value
from django.db.models.functions import Coalesce, Concat

from reconcile import HaveValues, Rule
from sample_project.shop import signals
from sample_project.shop.models import Category

path = Rule(
    every=Category,
    must=HaveValues(path=Concat(Coalesce(F("parent__path"), Value("")), Value("/"), F("name"))),
    owner="catalogue",
    tags=["nightly"],
    unattended=True,
    covers=[signals.handle_category_saving, signals.handle_category_saved],
    factory="sample_project.shop.factories:categories",
)
