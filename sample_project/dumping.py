"""`make fixtures`: writes two fixtures, a small shop in which some bulk writes have made drift, and the same shop repaired.

The shop is made in a throw-away database of SQLite, so that no server is needed. The files have the same bytes each time.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path

import django
import structlog
from django.apps import apps
from django.core.management import call_command
from django.db.models import DateTimeField, F

FOLDER = Path(__file__).parent / "fixtures"
WHEN = datetime(2026, 1, 5, 9, tzinfo=UTC)
DUMPED = ("shop", "auth.user", "reconcile.receipt")
NIGHTS = 3
"""The number of runs that the repair takes: two runs must find a row before it is deleted, and one rule may need the writes
of a later rule."""


def main(folder: Path = FOLDER) -> None:
    """Write `broken.json` and `mended.json` into the folder."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "sample_project.settings"
    os.environ.pop("DATABASE_URL", None)
    django.setup()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    from reconcile.testing.fixtures import throwaway_database

    folder.mkdir(exist_ok=True)
    with throwaway_database("default"):
        _fill_shop()
        _set_all_dates()
        _make_drift()
        _set_all_dates()
        _dump(folder / "broken.json")
        _repair_all()
        _set_all_dates()
        _dump(folder / "mended.json")


def _fill_shop() -> None:
    """Fill the shop through signals, so that nothing drifts."""
    from django.contrib.auth.models import User

    from reconcile import receipts
    from sample_project.shop import services
    from sample_project.shop.models import Address, Article, Category, Customer, Group, Item, Note, Subscriber

    customers = [Customer.objects.create(name=name) for name in ("Ada", "Bruno")]
    receipts.record("welcome-mail", customers)
    for number in range(4):
        lines = [
            Item(name="lamp", price=Decimal("79.00")),
            Item(name="mug", price=Decimal("9.95"), quantity=2),
        ]
        order = services.create_order(customer=customers[number % 2], items=lines, status="paid")
    Note.objects.create(target=order, text="Call before delivery.")
    Address.objects.create(customer=customers[0], street="1 Main Street", is_default=True)
    Article.objects.create(title="How we choose our mugs", body="About #mug and #care.")
    Category.objects.create(name="kitchen", parent=Category.objects.create(name="house"))
    Subscriber.objects.create(email="reader@example.org", visits=1)
    group = Group.objects.create(name="Friends of the shop")
    group.members.add(*[User.objects.create(username=name) for name in ("emi", "farah")])


def _make_drift() -> None:
    """Write in the ways that no signal sees."""
    from sample_project.shop import bulk
    from sample_project.shop.models import Customer, Invoice, Item, Order, PendingCharge

    ada = Customer.objects.get(name="Ada")
    orders = [Order(customer=ada, status="paid") for _ in range(2)]
    bulk.import_orders(orders)
    bulk.import_items([Item(order=orders[0], name="chair", price=Decimal("149.00"))])
    bulk.import_customers([Customer(name="Guest")])
    bulk.lose_invoices([1])
    Invoice.objects.filter(order=2).update(amount=F("amount") - 10)
    item = Item.objects.get(order=3, name="lamp")
    PendingCharge.objects.bulk_create([PendingCharge(item=item, amount=Decimal("79.00"), scheduled_at=WHEN)])
    bulk.archive_by_update([item.pk])


def _repair_all() -> None:
    from reconcile import runs
    from reconcile.rules.registry import valid_rules

    for _ in range(NIGHTS):
        runs.repair(valid_rules(), using="default")


def _set_all_dates() -> None:
    """Set every date that is not NULL to the same moment, so that the files do not change from day to day."""
    for app in ("shop", "auth", "reconcile"):
        for model in apps.get_app_config(app).get_models():
            for field in model._meta.local_fields:
                if isinstance(field, DateTimeField):
                    rows = model._base_manager.filter(**{f"{field.name}__isnull": False})
                    rows.update(**{field.name: WHEN})


def _dump(path: Path) -> None:
    text = StringIO()
    natural = {"use_natural_foreign_keys": True, "use_natural_primary_keys": False}
    call_command("dumpdata", *DUMPED, stdout=text, verbosity=0, **natural)
    # With one object in each line, a diff is easy to read.
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in json.loads(text.getvalue()))
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
