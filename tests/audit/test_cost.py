"""`reconcile signals cost`: the statements beyond a save's own, counted against the statement log, by class of record."""

import json
from decimal import Decimal
from pathlib import Path

import jsonschema
import pytest
from asgiref.sync import sync_to_async
from click.testing import CliRunner
from django.core import mail
from django.db import connection, connections, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save
from django.test.utils import CaptureQueriesContext

from reconcile.audit.cost.classes import Sample, classes_in
from reconcile.audit.cost.costing import cost_of_models
from reconcile.audit.cost.counting import Counted, _first_words
from reconcile.audit.muting import muted
from reconcile.cli import reconcile
from reconcile.rules.registry import project_rules
from reconcile.testing import Linked
from sample_project.shop.models import Article, Category, Customer, Group, Item, Note, Order
from tests.audit.test_effects import connected
from tests.helpers import ROOT, everything

pytestmark = pytest.mark.django_db(databases=["default", "archive"])

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "cost-1.json").read_text())
MENDED = str(ROOT / "sample_project" / "fixtures" / "mended.json")


@pytest.fixture(autouse=True)
def _unmigrated(monkeypatch):
    for settings in connections.settings.values():
        monkeypatch.setitem(settings["TEST"], "MIGRATE", False)


def run(*arguments, columns=160):
    result = CliRunner().invoke(
        reconcile, ["signals", "cost", *arguments], prog_name="reconcile", env={"COLUMNS": str(columns)}
    )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, " ".join(result.stderr.replace("│", " ").split())


def costs(*models, deletes=False, rules=()):
    chosen = {name: project_rules()[name] for name in rules}
    audit = cost_of_models(chosen, list(models), using="default", deletes=deletes)
    return {each.model: each for each in audit.models}


def classes(cost, act):
    return {each.said: (each.least, each.most) for each in cost.acts[act].classes}


@pytest.fixture
def ann():
    return Customer.objects.create(name="Ann")


def logged(act):
    """The statements in the log, those of savepoints apart."""
    with CaptureQueriesContext(connection) as log:
        act()
    found = [each["sql"].split()[0].upper() for each in log.captured_queries]
    return sum(each not in {"SAVEPOINT", "RELEASE", "ROLLBACK"} for each in found)


@pytest.mark.parametrize("number", [1, 10, 100, 500])
def test_the_log_has_one_and_k_for_each_order(ann, number):
    """The slope is exactly 1 + K, whatever the number."""
    Order.objects.create(customer=ann)
    again = Order.objects.get()
    again.customer  # noqa: B018 - it is looked up once
    k = classes(costs(Order)[Order], "saved again")[""][0]
    orders = list(Order.objects.all())
    rows = [Order(customer=ann) for _ in range(number)]
    created = costs(Order, rules=["orders.invoice"])[Order].acts["created"]
    dear = max(each.counted.k for each in created.samples)
    assert logged(lambda: [each.save() for each in rows]) == number * (1 + dear)
    assert logged(lambda: [each.save() for each in orders]) == 1 + k


def test_a_draft_costs_less_than_a_placed_order():
    found = costs(Order, rules=["orders.invoice"])[Order].acts["created"]
    of_draft = {each.counted.k for each in found.samples if each.features["status"] == "draft"}
    of_placed = {
        each.counted.k
        for each in found.samples
        if each.features["status"] == "placed" and str(each.features["customer"]) == "not NULL"
    }
    assert (of_draft, of_placed) == ({3}, {7})
    assert found.dearest.savepoints == 6
    assert {each.said for each in found.classes} >= {"status = 'draft'"}


def test_a_parent_in_a_tree_costs_more_than_a_leaf():
    root = Category.objects.create(name="a")
    for name in "bcdef":
        Category.objects.create(name=name, parent=root)
    found = classes(costs(Category)[Category], "saved again")
    assert found["parent NULL"] == (11, 11)
    assert found["parent not NULL"] == (2, 2)


def test_who_causes_the_statements_is_told(ann):
    Order.objects.create(customer=ann)
    dearest = costs(Order)[Order].dearest
    names = {name.rpartition(".")[2] for name, _ in dearest.by_effect}
    assert names == {"handle_order_saving", "handle_order_created", "handle_order_saved"}
    assert sum(dearest.by_effect.values()) == dearest.k
    assert dearest.own == 1


def test_what_an_effect_sets_off_is_its_own_cost(ann):
    """A receiver that saves another model's record pays for that one's receivers, too."""

    def receiver(instance, **_):
        Order.objects.create(customer=ann)

    with connected(post_save, receiver, Article):
        Article.objects.create(title="a")
        dearest = costs(Article)[Article].dearest
    found = {name.rpartition(".")[2]: 0 for name, _ in dearest.by_effect}
    assert not any("handle_order" in each for each in found)
    assert dearest.k > 7


def test_the_first_save_isn_t_counted():
    """It looks up a content type, which is known from then on."""
    from django.contrib.contenttypes.models import ContentType

    def receiver(instance, **_):
        ContentType.objects.get_for_model(Note)

    with connected(post_save, receiver, Customer):
        Customer.objects.create(name="a")
        ContentType.objects.clear_cache()
        assert costs(Customer)[Customer].k == 0


def test_an_awaited_receiver_counts_in_full():
    async def receiver(instance, **_):
        await sync_to_async(lambda: Note.objects.filter(pk=1).count())()

    Customer.objects.create(name="a")
    with connected(post_save, receiver, Customer):
        assert costs(Customer)[Customer].k == 1


def test_callbacks_are_counted_and_not_run():
    ran = []

    def receiver(instance, **_):
        transaction.on_commit(lambda: ran.append(instance))
        mail.EmailMessage("a", "b", None, ["c@example.com"]).send()

    Customer.objects.create(name="a")
    with connected(post_save, receiver, Customer):
        found = costs(Customer)[Customer]
    assert found.dearest.callbacks == 1
    assert (ran, mail.outbox) == ([], [])


def test_deletes_are_counted_with_what_goes_along(ann):
    for _ in range(3):
        order = Order.objects.create(customer=ann)
        Item.objects.create(order=order, price=Decimal(2))
    found = costs(Order, Customer, deletes=True)
    # Four of the order's two receivers, three of that of the item which goes with it, and two since Django has to read what it deletes for these.
    assert classes(found[Order], "deleted")[""] == (9, 9)
    (of_customer,) = {each.counted.k for each in found[Customer].acts["deleted"].samples}
    assert of_customer >= 3 * 7 - 2
    # Others refer to an order: without any receiver Django would read it, too.
    assert not found[Order].slows_deletes
    together = found[Order].together
    assert (together.rows, together.statements - together.without >= 3 * 7) == (3, True)


def test_without_receivers_django_deletes_unread(ann):
    """What a receiver has cost is the fast delete, too: in silence it is there again."""
    articles = [Article.objects.create(title=str(at)) for at in range(3)]

    def receiver(**_):
        """Does nothing at all."""

    def statements():
        with transaction.atomic():
            number = logged(lambda: Article.objects.filter(pk__in=[each.pk for each in articles]).delete())
            transaction.set_rollback(True)
        return number

    fast = statements()
    with connected(post_delete, receiver, Article):
        slow = statements()
        with muted():
            silent = statements()
    assert slow >= fast == silent


def test_existing_rows_are_not_deleted_unless_that_is_asked_for(ann):
    before = everything()

    def receiver(**_):
        raise AssertionError("a row was deleted")

    with connected(post_delete, receiver, Order):
        Order.objects.create(customer=ann)
        before = everything()
        assert "deleted" not in costs(Order)[Order].acts
    assert everything() == before


def test_links_count(ann):
    found = costs(Group, rules=["groups.member_count"])[Group]
    assert classes(found, "linked")[""] == (4, 4)
    by_effect = found.acts["linked"].dearest.by_effect
    # And one of Django's own, which looks for links that are there only if a receiver wants to hear of the new ones.
    assert {name.rpartition(".")[2]: 0 for name, _ in by_effect}.keys() == {"handle_members_changed", ""}
    assert sum(times for (name, _), times in by_effect.items() if not name) == 1


def test_nothing_is_left_behind(ann):
    order = Order.objects.create(customer=ann)
    Item.objects.create(order=order, price=3)
    Category.objects.create(name="a")
    before = everything()
    cost_of_models(project_rules(), None, using="default", deletes=True)
    assert everything() == before


def test_a_receiver_that_fails_is_told_and_the_others_are_counted(ann):
    Customer.objects.create(name="bad")

    def receiver(instance, **_):
        if instance.name == "bad":
            raise ValueError("no good")

    with connected(pre_save, receiver, Customer):
        code, out, _ = run("Customer")
        report = json.loads(run("Customer", "--format", "json")[1])
    assert code == 3
    words = " ".join(out.split())
    assert "saved again: not counted. ValueError: no good" in words
    assert "1 act failed." in words
    (found,) = report["models"]
    assert report["status"] == "error"
    assert list(found["acts"]["saved again"]["faults"].values()) == ["ValueError: no good"]
    assert found["acts"]["saved again"]["records"] >= 1


def test_a_factory_that_fails_is_told(monkeypatch):
    def fails():
        raise ValueError("no records today")

    from dataclasses import replace

    rules = {"orders.invoice": replace(project_rules()["orders.invoice"], factory=fails)}
    audit = cost_of_models(rules, [Order], using="default", deletes=False)
    assert audit.faults == {"the factory of orders.invoice": "ValueError: no records today"}
    assert audit.status == "error"


def test_a_model_without_records_is_named():
    code, out, _ = run("Article")
    assert code == 0
    code, out, _ = run("Invoice")
    assert code == 1
    assert "Not counted: shop.Invoice, it has no rows, and no rule has a factory for it." in " ".join(
        out.split()
    )
    assert json.loads(run("Invoice", "--format", "json")[1])["status"] == "empty"


def test_the_json_is_what_the_schema_says(ann):
    Order.objects.create(customer=ann)
    code, out, err = run("--format", "json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    jsonschema.validate(report, SCHEMA)
    first = report["models"][0]
    assert (first["model"], first["k"]) == ("shop.Order", 7)
    assert first["statements"]["500"] == {"one by one": 4000, "one in 100 by itself": 48, "as a set": 8}


@pytest.mark.parametrize("columns", [80, 140])
def test_the_picture_fits_into_a_terminal(ann, columns):
    Order.objects.create(customer=ann)
    code, out, _ = run(columns=columns)
    assert code == 0
    assert max(map(len, out.splitlines())) <= columns
    assert "█" in out
    assert "by handle_order_created 4, handle_order_saved 3" in out
    assert "Deletes were not" in " ".join(out.split())


def test_a_dear_delete_leaves_the_bars_of_saves_as_they_are(ann):
    for _ in range(10):
        Order.objects.create(customer=ann)

    def bar(*arguments):
        out = run(*arguments)[1]
        (line,) = [each for each in out[out.index("shop.Order") :].splitlines() if "saved again  " in each][
            :1
        ]
        return line.count("█")

    assert bar("--on-copy") == bar() > 1


def test_the_page_loads_nothing_and_says_the_same(ann, tmp_path):
    Order.objects.create(customer=ann, status="draft")
    file = tmp_path / "cost.html"
    assert run("--format", "html", "--output", str(file))[0] == 0
    page = file.read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert '<span class="number">7</span>' in page
    assert "status = &#x27;draft&#x27;" in page
    assert "<th>one by one</th><td>8</td><td>4,000</td><td>800,000</td>" in page


@pytest.mark.once
def test_fixtures_are_counted_on_a_database_of_their_own_deletes_too():
    before = everything()
    code, out, _ = run("--fixtures", MENDED, "--format", "json")
    assert code == 0
    report = json.loads(out)
    assert report["deletes"] is True
    orders = next(each for each in report["models"] if each["model"] == "shop.Order")
    assert orders["acts"].keys() == {"created", "saved again", "deleted"}
    assert everything() == before


@pytest.mark.once
def test_a_copy_that_is_said_to_be_one_has_deletes_counted(ann):
    Order.objects.create(customer=ann)
    code, out, _ = run("Order", "--on-copy")
    assert code == 0
    assert "deleted" in out
    assert "Deletes were not" not in out
    assert Order.objects.count() == 1


@pytest.mark.once
def test_bad_usage_is_told():
    code, out, err = run("--on-copy", "--fixtures", MENDED)
    assert (code, out) == (2, "")
    assert "leave out --on-copy" in err
    code, out, err = run("Ordr")
    assert (code, out) == (2, "")
    assert "There is no model 'Ordr'" in err


def sample(k, **features):
    return Sample(key=k, features=features, counted=Counted(k=k, own=1))


def test_classes_are_told_by_one_column_or_two_and_a_range_where_none_tells():
    def said(*samples):
        return [(each.said, each.least, each.most, each.rows) for each in classes_in(samples)]

    assert said(sample(3, a=1), sample(3, a=2)) == [("", 3, 3, 2)]
    assert said(sample(3, a=1), sample(8, a=2)) == [("a = 2", 8, 8, 1), ("a = 1", 3, 3, 1)]
    assert said(sample(3, a=1), sample(8, a=1)) == [("", 3, 8, 2)]
    assert said(sample(1, a=1, b=1), sample(2, a=1, b=2), sample(9, a=2, b=1), sample(9, a=2, b=2)) == [
        ("a = 2", 9, 9, 2), ("a = 1, b = 2", 2, 2, 1), ("a = 1, b = 1", 1, 1, 1),
    ]  # fmt: skip
    assert said(sample(8, a=1), sample(8, a=2), sample(1, a=3)) == [
        ("a = 1 or a = 2", 8, 8, 2),
        ("a = 3", 1, 1, 1),
    ]


def test_statements_are_recognised_by_verb_and_table():
    assert _first_words('SELECT "a"."id" FROM "shop_order" WHERE 1') == "SELECT shop_order"
    assert _first_words("INSERT INTO `shop_order` (`id`) VALUES (1)") == "INSERT shop_order"
    assert _first_words('UPDATE "shop_order" SET x = 1') == "UPDATE shop_order"
    assert _first_words("DELETE FROM shop_order") == "DELETE shop_order"
    assert _first_words("SET CONSTRAINTS ALL IMMEDIATE") == "SET"
    assert _first_words("") == ""


def test_a_link_is_of_the_row_that_has_it():
    assert Linked(Group(), "members", []).name == "members"


def test_an_m2m_receiver_s_writes_are_found():
    seen = []

    def receiver(**named):
        seen.append(named["action"])

    with connected(m2m_changed, receiver, Group.members.through):
        costs(Group, rules=["groups.member_count"])
    # Warm-up, time and count; the fourth is silent.
    assert seen.count("post_add") == 3


def test_the_pages_style_is_shared():
    folder = Path(ROOT / "reconcile" / "reports" / "templates")
    assert all('{% include "style.css" %}' in each.read_text() for each in folder.glob("*.html"))
