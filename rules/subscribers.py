"""Subscribers: one for each address."""

from reconcile import BeUnique, Rule
from sample_project.shop.models import Subscriber

email = Rule(
    every=Subscriber,
    must=BeUnique("email", merge={"visits": "sum", "phone": "coalesce"}),
    owner="newsletter",
    reason="The sign-up form looks before it inserts; an import doesn't. Deliveries move to the one that stays.",
)
