"""`reconcile signals parity`: that a bulk write and `ensure` leave what saves leave is shown on records, and what breaks it is caught."""

import json
from decimal import Decimal
from functools import partial

import jsonschema
import pytest
from click.testing import CliRunner
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.db.models.signals import post_save, pre_save
from junitparser import JUnitXml

from reconcile.audit.parity import suite
from reconcile.audit.parity.records import from_factory, write_in_bulk
from reconcile.audit.parity.suite import ParityOptions, compare_functions, compare_rules
from reconcile.cli import reconcile
from reconcile.errors import UsageError
from reconcile.rules.registry import project_rules
from reconcile.testing import Linked
from sample_project.shop import factories, services
from sample_project.shop.models import Article, Category, Customer, Group, Invoice, Item, Note, Order
from tests.audit.test_effects import connected
from tests.helpers import ROOT, everything
from tests.zoo.tasks import greet

pytestmark = pytest.mark.django_db(databases=["default", "archive"])

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "parity-1.json").read_text())
BROKEN = str(ROOT / "sample_project" / "fixtures" / "broken.json")


@pytest.fixture(autouse=True)
def _unmigrated(monkeypatch):
    """Throw-away databases of this process take a second and not four: tables are made from the models."""
    for settings in connections.settings.values():
        monkeypatch.setitem(settings["TEST"], "MIGRATE", False)


def run(*arguments):
    result = CliRunner().invoke(
        reconcile, ["signals", "parity", *arguments], prog_name="reconcile", env={"COLUMNS": "160"}
    )
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, " ".join(result.stderr.replace("│", " ").split())


def compared(*names, **options):
    """The one comparison of these rules, on the database of the tests."""
    rules = {name: project_rules()[name] for name in names}
    (found,) = compare_rules(rules, ParityOptions(**options)).comparisons
    return found


def places(found):
    return {(each.kind, each.name, each.columns) for each in found.parity.differences}


# The shop.


def test_all_rules_of_the_shop_do_what_its_receivers_do():
    code, out, err = run("--all", "--format", "json")
    report = json.loads(out)
    jsonschema.validate(report, SCHEMA)
    assert (code, err, report["status"]) == (0, "", "same")
    assert report["without_records"] == ["notes.target"]
    assert {name for each in report["comparisons"] for name in each["rules"]} == {
        name for name, rule in project_rules().items() if rule.factory
    }
    called = {name for each in report["comparisons"] for name in each["called"]}
    idle = {name for each in report["comparisons"] for name in each["not_called"]} - called
    assert {each.rpartition(".")[2] for each in idle} == {"handle_item_deleted"}
    assert all(not each["refused"] for each in report["comparisons"])


def test_the_text_says_what_was_shown_and_what_was_not():
    code, out, _ = run("orders.total", "notes.target")
    assert code == 0
    assert "orders.total\n  on 2 shop.Customer, 3 shop.Address, 4 shop.Order, 4 shop.Item" in out
    assert "saves with signals and a bulk write with ensure leave the same." in out
    assert "No records for notes.target: name a factory= in the rule" in out
    assert out.rstrip().endswith(
        "1 rule left the same. 1 of 2 covered functions was called. 1 rule without records."
    )


def new_note(*, instance, **_):
    kind = services.ContentType.objects.get_for_model(Order)
    Note.objects.create(content_type=kind, object_id=instance.pk, text="new")


def another_total(*, instance, **_):
    Invoice.objects.filter(order=instance).update(amount=Decimal("0.01"))


def a_title(*, instance, **_):
    instance.slug = "another"


def a_message(*, instance, **_):
    transaction.on_commit(partial(greet.delay, instance.pk))


@pytest.mark.parametrize(
    ("signal", "model", "receiver", "rule", "place"),
    [
        (post_save, Order, new_note, "orders.invoice", ("insert", "shop_note", ())),
        (post_save, Order, another_total, "orders.invoice", ("insert", "shop_invoice", ("amount",))),
        (pre_save, Article, a_title, "articles.slug", ("insert", "shop_article", ("slug",))),
        (post_save, Item, a_message, "items.storefront", ("task", "tests.zoo.tasks.greet", ())),
    ],
    ids=["a new receiver", "another value", "another value before the save", "a message"],
)
def test_what_a_receiver_does_beyond_the_rules_is_caught(signal, model, receiver, rule, place):
    with connected(signal, receiver, model):
        found = compared(rule)
    assert found.status == "different"
    assert place in places(found)
    assert compared(rule).status == "same"


def test_a_message_that_a_receiver_no_longer_sends_is_caught(monkeypatch):
    monkeypatch.setattr(services, "welcome", lambda _: None)
    found = compared("customers.welcome")
    assert {(each.kind, each.name) for each in found.parity.differences} == {("task", "shop.send_welcome")}
    assert all(each.one is None for each in found.parity.differences)


def test_what_a_path_writes_is_rolled_back():
    before = everything()
    assert compared("orders.total").status == "same"
    assert everything() == before


def test_what_cannot_be_compared_is_an_error_and_the_others_are_compared(monkeypatch):
    def fail(**_):
        raise ValueError("no stock")

    with connected(pre_save, fail, Article):
        rules = {name: project_rules()[name] for name in ("articles.slug", "orders.total")}
        found = compare_rules(rules, ParityOptions())
    assert found.status == "error"
    assert {each.rules[0]: each.status for each in found.comparisons} == {
        "articles.slug": "error",
        "orders.total": "same",
    }
    (error,) = [each.error for each in found.comparisons if each.error]
    assert error == "ValueError: no stock"


def test_rules_that_ensure_leaves_out_are_named(monkeypatch):
    refuse = suite.ensure

    def leave_out(*args, **kwargs):
        found = refuse(*args, **kwargs)
        return type(found)(written=found.written, messages=found.messages, refused={"orders.total": "why"})

    monkeypatch.setattr(suite, "ensure", leave_out)
    assert compared("orders.total").refused == {"orders.total": "why"}


# Where the records come from.


def test_fixtures_are_the_records_of_rules_without_a_factory():
    code, out, _ = run("notes.target", "--fixtures", BROKEN, "--format", "json")
    (found,) = json.loads(out)["comparisons"]
    assert found["origin"] == f"fixtures {BROKEN}"
    assert (found["records"]["shop.Order"], found["records"]["shop.Group"]) == (6, 1)
    assert "shop.Invoice" not in found["records"], "rules make these, on both paths"
    # The item is archived before its charge is there: a receiver has heard of that too early, and ensure comes last.
    (difference,) = found["differences"]
    assert (code, difference["name"]) == (1, "shop_pendingcharge")
    assert (difference["one"]["status"], difference["two"]["status"]) == ("'pending'", "'cancelled'")


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("broken.json", "[{", "can't be read"),
        ("broken.json", '[{"model": "shop.nothing", "pk": 1, "fields": {}}]', "can't be read"),
        ("orders.csv", "a,b", "is no fixture by its name"),
    ],
)
def test_a_fixture_that_cannot_be_read_is_told(tmp_path, name, text, why):
    file = tmp_path / name
    file.write_text(text)
    code, out, _ = run("notes.target", "--fixtures", str(file))
    assert code == 3
    assert why in " ".join(out.split())
    assert out.rstrip().startswith("notes.target")


def test_existing_rows_of_a_copy_are_saved_again():
    customer = Customer.objects.create(name="Ann")
    order = Order.objects.create(customer=customer)
    Note.objects.create(
        content_type=services.ContentType.objects.get_for_model(Order), object_id=order.pk, text="x"
    )
    found = compared("notes.target", is_copy=True)
    assert (found.status, dict(found.records)) == ("same", {"shop.Note": 1})
    assert found.origin == "existing rows of shop.Note, saved again"


def test_a_database_with_rows_is_used_only_where_it_is_told_to_be_a_copy():
    Customer.objects.create(name="Ann")
    code, out, _ = run("notes.target", "--format", "json")
    assert (code, json.loads(out)["status"]) == (1, "empty")
    code, out, _ = run("notes.target", "--on-copy", "--format", "json")
    assert json.loads(out)["comparisons"][0]["origin"].startswith("existing rows")


def test_on_a_copy_the_world_is_shut(tmp_path):
    def one():
        (tmp_path / "x").write_text("x")

    found = compare_functions(one, one, ("one", "two"), ParityOptions(is_copy=True))
    assert found.status == "error"
    assert "refused" in found.comparisons[0].error
    assert not (tmp_path / "x").exists()


def saved():
    return Customer.objects.create(name="Ann")


@pytest.mark.parametrize(
    ("factory", "why"),
    [
        (lambda: [Customer(), "x"], "'x', which is no instance"),
        (lambda: "x", "let it give a list of unsaved instances"),
        (lambda: 3, "let it give a list of unsaved instances"),
        (list, "gives nothing"),
        (saved, "is saved already"),
        ("nowhere.factories:orders", "No module named 'nowhere'"),
        ("sample_project.shop.factories:nothing", "has no 'nothing'"),
        ("sample_project.shop.factories:__all__", "is list, and no function"),
        ("orders", "write package.module:function"),
    ],
)
def test_a_factory_that_gives_something_else_is_told(factory, why):
    with pytest.raises(UsageError, match=why):
        from_factory(factory)


def test_what_a_factory_makes_is_written_whatever_refers_to_whatever():
    top = Category(name="top")
    below = [Category(name=name, parent=top) for name in "ab"]
    group = Group(name="readers")
    user = User.objects.create(username="ann")
    written = write_in_bulk([top, *below, group, Linked(group, "members", [user])], "default")
    assert [type(each) for each in written] == [Category] * 3 + [Group, Group.members.through]
    assert {each.parent_id for each in Category.objects.filter(name__in="ab")} == {top.pk}
    assert list(group.members.all()) == [user]
    assert Group.objects.get().member_count == 0, "no receiver has heard of it"
    assert not Category.objects.exclude(path=""), "no receiver has heard of it"


# Two functions.


def by_saves():
    for each in factories.orders():
        each.save()


def with_a_cent_more():
    by_saves()
    Item.objects.filter(price=5).update(price=Decimal("5.01"))


ONE, TWO = f"{__name__}:by_saves", f"{__name__}:with_a_cent_more"


def test_two_functions_are_compared():
    code, out, _ = run(ONE, ONE)
    assert (code, out.rstrip()) == (0, f"  {ONE} and {ONE} leave the same.\n\n{ONE} and {ONE} left the same.")
    code, out, _ = run(ONE, TWO)
    assert code == 1
    assert "price: 5 ↔ 5.01" in out
    assert out.rstrip().endswith(f"{ONE} and {TWO} did not leave the same.")
    assert run(ONE, TWO, "--volatile", "shop.Item.price")[0] == 0
    assert run(ONE, TWO, "--ignore", "shop.Item")[0] == 0


def test_what_was_there_before_two_functions_comes_from_fixtures():
    code, out, _ = run(f"{__name__}:renaming", f"{__name__}:renaming_none", "--fixtures", BROKEN)
    assert (code, "changed row of shop_customer" in out) == (1, True)
    assert run(f"{__name__}:renaming", f"{__name__}:renaming_none")[0] == 0, "without them there is nobody"


def renaming():
    Customer.objects.update(email="new@example.org")


def renaming_none():
    pass


def test_junit_has_a_case_for_each_rule(tmp_path):
    file = tmp_path / "parity.xml"
    assert run("--all", "--format", "junit", "--output", str(file))[0] == 0
    (cases,) = JUnitXml.fromfile(str(file))
    by_name = {each.name: each for each in cases}
    assert {*by_name} == {name for name, rule in project_rules().items() if rule.covers}
    assert by_name["orders.total"].result == []
    assert [type(each).__name__ for each in by_name["notes.target"].result] == ["Skipped"]
    assert run(ONE, TWO, "--format", "junit", "--output", str(file))[0] == 1
    ((case,),) = JUnitXml.fromfile(str(file))
    assert (case.name, case.result[0].message) == (f"{ONE} and {TWO}", "1 difference")
    assert "5 ↔ 5.01" in case.result[0].text


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "Name the rules, or two functions, or say --all"),
        (["orders.total", "--all"], "Name the rules, or two functions, or say --all"),
        (["orders.totl"], "Did you mean 'orders.total'"),
        ([ONE], "Two functions are compared with each other"),
        ([ONE, "orders.total"], "Two functions are compared with each other"),
        ([ONE, TWO, "--all"], "Two functions are compared with each other"),
        ([ONE, "nowhere:two"], "No module named 'nowhere'"),
        ([ONE, TWO, "--on-copy", "--fixtures", BROKEN], "leave out --on-copy"),
        (["--all", "--database", "nowhere"], "nowhere"),
    ],
)  # fmt: skip
def test_what_says_nothing_is_refused(arguments, why):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert why in err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--volatile", "shop.Item.prise"], "has no column 'prise'"),
        (["--volatile", "price"], "names no column"),
        (["--ignore", "shop.Itm"], "Did you mean 'shop.item'"),
    ],
)
def test_what_is_left_out_must_be_there(arguments, why):
    code, _, err = run(ONE, TWO, *arguments)
    assert code == 2
    assert why in err


def test_a_factory_that_is_none_is_a_fault_of_the_rule():
    rule = project_rules()["orders.total"]
    for wrong in (3, "orders", "a b:c"):
        (fault,) = suite.replace(rule, factory=wrong).faults()
        assert "factory=" in str(fault)
    assert not list(suite.replace(rule, factory=by_saves).faults())


def nothing():
    """Does nothing."""


def leaves_the_program():
    raise SystemExit(0)


@pytest.mark.once
def test_two_functions_that_do_nothing_are_no_pass():
    code, out, _ = run(f"{__name__}:nothing", f"{__name__}:nothing")
    assert code == 1
    assert "did nothing, so that nothing was compared." in out
    assert (
        json.loads(run(f"{__name__}:nothing", f"{__name__}:nothing", "--format", "json")[1])["status"]
        == "empty"
    )


@pytest.mark.once
def test_a_function_that_leaves_the_program_is_an_error_and_not_the_end():
    code, out, _ = run(f"{__name__}:leaves_the_program", f"{__name__}:nothing")
    assert code == 3
    assert "SystemExit" in out
