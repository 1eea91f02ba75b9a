"""Rules whose link no constraint covers."""

from django.db.models import F

from reconcile import HaveRow, Rule, Settle
from tests.zoo.models import Basket, Bill

MUST = HaveRow(Bill, link={"basket_number": F("pk")})
young = Rule(every=Basket.objects.filter(quantity=2), must=MUST, unattended=True)
settled = Rule(
    every=Basket.objects.filter(quantity=2), must=MUST, unattended=True, settle=Settle("seen_at", days=1)
)
