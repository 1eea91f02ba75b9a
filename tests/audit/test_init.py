"""`reconcile init`: drafts of rules from the schema and the data, with their evidence and their drift."""

import json
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import jsonschema
import pytest
from django.conf import settings
from django.db import connection
from django.db.models import Max
from django.db.models.signals import post_save
from django.test.utils import CaptureQueriesContext, modify_settings, override_settings
from django.utils import timezone

from reconcile.audit.drafts.candidates import children_of, plural_of, value_candidates, words_of
from reconcile.audit.drafts.drafting import draft_rules, file_name
from reconcile.audit.drafts.scoring import best_of, sample_of, score
from reconcile.audit.drafts.trying import try_drafts
from reconcile.audit.drafts.writing import as_modules
from reconcile.audit.listing import audit_signals
from reconcile.rules.registry import project_rules, valid_rules
from sample_project.shop.models import Address, Article, Category, Customer, Invoice, Item, Order
from tests.audit.test_effects import connected
from tests.cli.test_cli import run, run_json
from tests.helpers import ROOT

pytestmark = pytest.mark.django_db

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "init-1.json").read_text())


@pytest.fixture
def shop():
    """A shop that was written through signals, but for three orders of sixty and two articles of ten."""
    customers = [Customer.objects.create(name=f"customer {number}") for number in range(6)]
    for number in range(60):
        order = Order.objects.create(
            customer=customers[min(number % 9, 5)], status="draft" if number % 5 == 0 else "placed"
        )
        Order.objects.filter(pk=order.pk).update(
            created_at=timezone.now() - timedelta(days=number % 7, minutes=number)
        )
        for place in range(number % 3 + 1):
            Item.objects.create(order=order, price=Decimal(number + place), quantity=place + 1)
    for number in range(10):
        Article.objects.create(title=f"Title {number}")
    for customer in customers:
        customer.orders.first().save()
    bypassed = Order.objects.filter(pk__in=[*Order.objects.order_by("pk").values_list("pk", flat=True)[1:4]])
    Invoice.objects.filter(order__in=[each.pk for each in bypassed]).delete()
    Order.objects.filter(pk__in=[each.pk for each in bypassed]).update(item_count=99)
    Article.objects.filter(pk__in=[*Article.objects.order_by("pk").values_list("pk", flat=True)[:2]]).update(
        slug="bypassed"
    )
    return [*bypassed.order_by("pk")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(RECONCILE={"RULES": []}):
        yield Path("drafted")
    for name in [name for name in sys.modules if name.startswith("drafted")]:
        del sys.modules[name]


def drafts_of(*models):
    drafting = draft_rules(models, audit_signals({}, follow=True, with_names=True), "default")
    tried, failed = try_drafts(drafting.drafts, "default")
    assert not failed
    return {each.rule: each for each in tried}


def test_the_shops_own_rules_are_drafted(shop):
    found = {name: each.draft.must for name, each in drafts_of(Customer, Order, Article).items()}
    assert (
        found.items()
        >= {
            "customers.order_count": 'HaveValues(order_count=Count("orders"))',
            "customers.last_order": 'HaveValues(last_order=Latest("orders", by=["-created_at", "-pk"]))',
            "orders.total": 'HaveValues(total=Sum(F("items__price") * F("items__quantity")))',
            "orders.item_count": 'HaveValues(item_count=Count("items"))',
            "orders.customer_name": 'HaveValues(customer_name=F("customer__name"))',
            "orders.invoice": 'HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})',
            "articles.slug": 'HaveValues(slug=FromPython(slugify, reads=["title"]))',
        }.items()
    )


def test_each_has_its_condition_its_evidence_its_drift_and_what_it_covers(shop):
    found = drafts_of(Order, Article)
    invoice, count, slug = found["orders.invoice"], found["orders.item_count"], found["articles.slug"]
    assert invoice.draft.every == 'Order.objects.exclude(status="draft")'
    keys = ", ".join(str(each.pk) for each in shop)
    assert count.draft.evidence == (f"57 of 60 orders have item_count = Count(items); not: {keys} (5.0 %).",)
    assert (invoice.check.tally.total, count.check.tally.total, slug.check.tally.total) == (3, 3, 2)
    assert [each.effect.name.rpartition(".")[2] for each in invoice.draft.covers] == ["handle_order_created"]
    assert {each.effect.name.rpartition(".")[2] for each in count.draft.covers} == {
        "handle_item_changed",
        "handle_item_deleted",
    }
    assert slug.draft.unsure.startswith("It holds for 80%")


def test_what_is_written_reads_as_rules_and_passes_the_check(shop, folder):
    code, report = run_json("init", "--folder", str(folder))
    jsonschema.validate(report, SCHEMA)
    assert code == 0
    assert all(each["model"].startswith("zoo.") for each in report["left_out"]), "some have no table here"
    assert report["settings"] == 'RECONCILE = {"RULES": ["drafted"]}'
    text = (folder / "orders.py").read_text()
    assert text.startswith(
        '"""Orders: drafts. Read each, mend it or take it out."""\n\nfrom django.db.models import'
    )
    assert "    covers=[signals.handle_order_created],\n" in text
    assert "calls skip what it covers: reconcile signals bypasses" in text
    assert "# ??? It holds for 80%" in (folder / "articles.py").read_text()
    with override_settings(RECONCILE={"RULES": ["drafted"]}):
        assert run("rules", "--check")[0] == 0
        assert {*valid_rules()} == {*project_rules()} == {each["rule"] for each in report["drafts"]}
        code, found = run_json("check", "orders.invoice")
    assert (code, found["rules"][0]["missing"]) == (1, 3)


def test_a_file_that_is_there_is_not_touched(shop, folder):
    folder.mkdir()
    (folder / "orders.py").write_text("# mine\n")
    code, report = run_json("init", "--folder", str(folder))
    assert code == 0
    assert (folder / "orders.py").read_text() == "# mine\n"
    assert report["kept"] == [str(folder / "orders.py")]
    before = {path.name: path.read_bytes() for path in folder.glob("*.py")}
    code, out, _ = run("init", "--folder", str(folder))
    assert "is there already and was not touched. Its drafts:" in out
    assert 'HaveValues(item_count=Count("items"))' in out
    assert {path.name: path.read_bytes() for path in folder.glob("*.py")} == before


def test_one_model_is_drafted_alone(shop, folder):
    _, report = run_json("init", "Article", "--folder", str(folder))
    assert {each["rule"].partition(".")[0] for each in report["drafts"]} == {"articles"}
    assert [Path(each).name for each in report["written"]] == ["__init__.py", "articles.py"]
    assert [each["effect"].rpartition(".")[2] for each in report["uncovered"]] == ["handle_article_written"]


def test_effects_that_no_draft_covers_are_named(shop, folder):
    _, out, _ = run("init", "--folder", str(folder))
    named = "no draft covers  sample_project.shop.signals.handle_category_saved\n  post_save of shop.Category"
    assert named in out
    assert "with drift. Read them, then: reconcile check" in out


def test_without_records_nothing_is_drafted_and_nothing_written(folder):
    code, out, _ = run("init", "Order", "--folder", str(folder))
    assert code == 0
    assert "Nothing was drafted" in out
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "said"), [(["Nothing"], "There is no model 'Nothing'"), (["--database", "none"], "database")]
)
def test_bad_input_is_refused(folder, words, said):
    code, _, err = run("init", *words, "--folder", str(folder))
    assert (code, said in err) == (2, True)


def test_a_folder_that_cannot_be_made_is_an_error(shop, folder, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("init", "Article", "--folder", str(tmp_path / "file" / "rules"))
    assert code == 2
    assert "can't be written" in err


def test_what_holds_by_chance_is_no_draft(shop):
    Order.objects.update(item_count=0)
    keys = sample_of(Order, "default")
    found = {
        each.candidate.column
        for each in best_of(score(one, keys, "default") for one in value_candidates(Order))
    }
    assert "item_count" not in found, "all are 0"
    assert "total" in found


def test_a_value_that_most_have_otherwise_is_no_draft_unless_its_name_says_it(shop):
    Order.objects.update(total=7)
    Order.objects.filter(pk=Order.objects.aggregate(last=Max("pk"))["last"]).update(total=8)
    keys = sample_of(Order, "default")
    assert "total" not in {
        each.candidate.column
        for each in best_of(score(one, keys, "default") for one in value_candidates(Order))
    }


def test_the_number_of_statements_does_not_depend_on_the_number_of_records(shop):
    def statements():
        with CaptureQueriesContext(connection) as captured:
            draft_rules([Article], audit_signals({}), "default")
        return len(captured)

    before = statements()
    Article.objects.bulk_create([Article(title=f"{number}", slug=f"{number}") for number in range(400)])
    assert statements() == before


def test_a_large_table_is_sampled_in_several_places(monkeypatch):
    Order.objects.bulk_create([Order() for _ in range(300)])
    monkeypatch.setattr("reconcile.audit.drafts.scoring.SAMPLE", 100)
    keys = sample_of(Order, "default")
    every = [*Order.objects.order_by("pk").values_list("pk", flat=True)]
    assert 90 <= len(keys) <= 100
    assert len({*keys} & {*every[200:]}) > 20, "the end of the table is in it"


def test_one_default_of_each_is_drafted():
    customers = [Customer.objects.create(name=str(number)) for number in range(12)]
    for each in customers:
        Address.objects.create(customer=each, street="a")
        Address.objects.create(customer=each, street="b", is_default=True)
    Address.objects.filter(pk__in=[*Address.objects.order_by("pk").values_list("pk", flat=True)[:1]]).update(
        is_default=True
    )
    (found,) = [each for each in drafts_of(Address).values() if "BeUnique" in each.draft.must]
    assert (found.rule, found.draft.every, found.draft.must) == (
        "addresses.is_default", "Address.objects.filter(is_default=True)", 'BeUnique("customer")'
    )  # fmt: skip
    assert found.check.tally.total == 1


def test_names_are_made_of_words():
    assert words_of("items_count") == {"item", "count"}
    assert words_of("BoxAddresses") == {"box", "address"}
    assert (plural_of(Address), plural_of(Category), plural_of(Order)) == (
        "addresses",
        "categories",
        "orders",
    )
    assert file_name(Address) == "addresses"
    assert {each.query for each in children_of(Order)} == {"invoice", "notifications", "items"}


def test_modules_are_text_that_python_takes(shop):
    drafting = draft_rules(
        [Order, Article, Customer], audit_signals({}, follow=True, with_names=True), "default"
    )
    for text in as_modules(drafting.drafts, {}).values():
        compile(text, "draft", "exec")


def test_a_draft_that_cannot_be_run_or_checked_is_named(shop, monkeypatch):
    from dataclasses import replace

    drafts = draft_rules([Order, Article], audit_signals({}), "default").drafts
    bad = [
        replace(each, must="HaveValues(nothing=1)")
        if each.model is Article
        else replace(each, must="Nothing(")
        for each in drafts
    ]
    tried, failed = try_drafts(bad, "default")
    assert not tried
    assert {model for model, _ in failed} == {Order, Article}
    assert any("can't be run: SyntaxError" in why for _, why in failed)
    assert any("can't be used: Rule 'articles.slug': " in why for _, why in failed)


def test_models_of_two_apps_with_one_name_have_two_files():
    from django.apps import apps

    from reconcile.audit.drafts.drafting import file_name

    groups = [model for model in apps.get_models() if model.__name__ == "Group"]
    assert len({file_name(each) for each in groups}) == len(groups) > 1


@override_settings(RECONCILE={"RULES": ["rules"]})
def test_what_a_rule_of_the_project_says_is_named_with_it_and_not_written(shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, report = run_json("init", "Order", "--folder", "drafted")
    said = {each["rule"]: each["said_by"] for each in report["drafts"]}
    assert said.items() >= {"orders.total": "orders.total", "orders.invoice": "orders.invoice"}.items()
    assert (
        not (tmp_path / "drafted" / "orders.py").exists()
        or "total = Rule" not in (tmp_path / "drafted" / "orders.py").read_text()
    )
    _, out, _ = run("init", "Order", "--folder", "drafted")
    assert "as orders.total says already" in out


def test_an_unsure_draft_repairs_nothing_until_somebody_has_decided(shop, folder):
    run("init", "Article", "--folder", str(folder))
    text = (folder / "articles.py").read_text()
    assert "    remedies={STALE: Report()},\n" in text
    assert "It only reports, until you take out remedies=." in " ".join(text.replace("#", "").split())
    with override_settings(RECONCILE={"RULES": ["drafted"]}):
        assert run("repair", "articles.slug", "--apply", "--yes")[0] in {0, 1, 2}
    assert Article.objects.filter(slug="bypassed").count() == 2


def test_the_report_can_be_read_in_eighty_columns(shop, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run("init", "Order", "--folder", str(folder))
    assert "orders.item_count  holds for 95.0 %, 3 drifted\n" in out
    assert "orders.invoice  holds for 93.8 %, 3 drifted\n" in out
    assert not [line for line in out.splitlines() if len(line) > 80]


def test_the_drafts_of_a_file_that_is_there_are_printed_as_they_would_stand_in_it(shop, folder):
    run("init", "Order", "--folder", str(folder))
    written = (folder / "orders.py").read_text()
    (folder / "orders.py").write_text("# mine\n")
    _, out, _ = run("init", "Order", "--folder", str(folder))
    assert (folder / "orders.py").read_text() == "# mine\n"
    assert "\nitem_count = Rule(\n    every=Order,\n" in out
    assert [line for line in written.splitlines() if line not in out] == []


def test_a_package_is_drafted_by_the_names_of_its_models(folder):
    with modify_settings(
        INSTALLED_APPS={
            "remove": [
                name for name in settings.INSTALLED_APPS if name.startswith(("tests.", "sample_project."))
            ]
        }
    ):
        _, out, _ = run("init", "--folder", str(folder))
    assert (
        "the project has no models of its own. For those of a package, name each: reconcile init app.Model"
        in " ".join(out.split())
    )


def test_an_aggregate_that_does_not_hold_for_all_is_tried_on_those_of_one_kind(shop):
    for place, customer in enumerate(Customer.objects.order_by("pk")):
        Customer.objects.filter(pk=customer.pk).update(
            order_count=customer.orders.filter(status="draft").count() + (place == 0)
        )
    found = drafts_of(Customer)["customers.order_count"]
    assert found.draft.must == 'HaveValues(order_count=Count("orders", filter=Q(orders__status="draft")))'
    assert found.check.tally.total == 1


# What a repair by a draft could destroy.


def tie(*numbers, quantity=1):
    """Orders with an item each of the numbers given, past every receiver."""
    orders = Order.objects.bulk_create([Order(item_count=number) for number in numbers])
    Item.objects.bulk_create(
        [Item(order=each, quantity=each.item_count or 1, price=Decimal(3)) for each in orders]
    )
    return orders


def test_a_sum_over_one_row_each_may_be_the_other_way_round(db):
    """`item_count` is the item's quantity: the item's may as well be made from the order's."""
    tie(*range(2, 22))
    draft = drafts_of(Order)["orders.item_count"].draft
    assert "Sum" in draft.must
    assert "No record has two rows of items: their column may as well be made from this one." in draft.unsure
    assert draft.reports == "STALE"


def test_rows_that_are_missing_are_told_from_a_count_that_is_wrong(db):
    orders = Order.objects.bulk_create([Order(item_count=number % 4 + 1) for number in range(40)])
    Item.objects.bulk_create([Item(order=each) for each in orders[3:] for _ in range(each.item_count)])
    draft = drafts_of(Order)["orders.item_count"].draft
    assert draft.must == 'HaveValues(item_count=Count("items"))'
    assert (
        draft.unsure
        == "Those that differ have no items at all: perhaps these are missing, and the column is right."
    )
    Item.objects.filter(order=orders[10]).delete()
    Item.objects.create(order=orders[10])
    Order.objects.filter(pk=orders[10].pk).update(item_count=4)
    assert drafts_of(Order)["orders.item_count"].draft.unsure == ""


def test_a_copy_is_asked_whether_it_follows_and_leaves_alone_what_has_nothing_to_be_a_copy_of(db):
    customers = [Customer.objects.create(name=f"name {number}") for number in range(12)]
    for each in customers:
        Order.objects.create(customer=each)
    Order.objects.bulk_create([Order(customer=None, customer_name="gone")])
    found = drafts_of(Order)["orders.customer_name"]
    assert found.draft.every == "Order.objects.exclude(customer=None)"
    assert found.draft.unsure == "Is it always customer.name, or what that was when the record was made?"
    assert found.draft.evidence == ("12 of 12 orders with a customer have customer_name = customer.name.",)
    assert (found.draft.reports, found.check.tally.total) == ("STALE", 0)


def test_what_is_not_drafted_is_said_as_it_is(db, folder):
    _, out, _ = run("init", "Subscriber", "--folder", str(folder))
    assert "nothing was found in them of what is looked for" in " ".join(out.split())


def test_a_receiver_that_writes_another_column_of_the_model_is_not_covered(shop):
    """It writes the order, and not what the draft is about."""

    def touch(instance, **_):
        Order.objects.filter(pk=instance.order_id).update(created_at=timezone.now())

    with connected(post_save, touch, Item):
        draft = drafts_of(Order)["orders.item_count"].draft
    assert {each.effect.name.rpartition(".")[2] for each in draft.covers} == {
        "handle_item_changed",
        "handle_item_deleted",
    }
