"""Tasks that tests enqueue; what they are given is kept in the process."""

from celery import shared_task

from reconcile import receipts
from tests.zoo.models import Basket

MESSAGES = []
"""(task, keys) for each message, in the order of their coming."""


@shared_task
def keep(keys):
    MESSAGES.append(("keep", keys))


@shared_task
def greet(keys):
    """Does the effect, and says so."""
    MESSAGES.append(("greet", keys))
    receipts.record("greeting", Basket, keys=keys)


@shared_task
def label(keys):
    """Mends what a HaveValues rule found."""
    Basket.objects.filter(pk__in=keys).update(label="b")


@shared_task
def stumble(keys):
    raise RuntimeError("no paper")
