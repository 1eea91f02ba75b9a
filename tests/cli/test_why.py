"""`check --why` and the night's report: what sets the drifted records apart, and the calls that may have caused it."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from reconcile.audit.skipping import MOST, Suspects, _suspects
from reconcile.cli.check import _FORMS
from reconcile.cli.culprits import without_receivers
from reconcile.core.drift import MISSING
from reconcile.detect.culprit import Clue, Culprit
from reconcile.models import Outcome
from reconcile.rules.registry import project_rules
from sample_project.shop.models import Customer, Invoice, Order
from tests.cli.test_cli import rules, run, run_json  # noqa: F401 - fixtures
from tests.helpers import nightly
from tests.reports.readers import READERS

DAY = datetime(2026, 11, 10, 14, 2, tzinfo=UTC)

pytestmark = pytest.mark.django_db


@pytest.fixture
def imported():
    """Three hundred orders of three weeks with their invoices; twenty without, all placed within two minutes."""
    chance = random.Random(3)
    customers = Customer.objects.bulk_create([Customer(name=f"c{at}") for at in range(20)])

    def order(at, created):
        customer = chance.choice(customers)
        return Order(
            customer=customer, customer_name=customer.name, status=chance.choice(["placed", "paid"]), total=at % 50, created_at=created
        )  # fmt: skip

    good = Order.objects.bulk_create(
        [order(at, DAY + timedelta(days=at % 20 - 10, minutes=at)) for at in range(300)]
    )
    Invoice.objects.bulk_create([Invoice(order=each, amount=each.total) for each in good])
    return Order.objects.bulk_create([order(at, DAY + timedelta(seconds=6 * at)) for at in range(20)])


WHEN = "All the missing have created_at on Tuesday 2026-11-10 from 14:02 to 14:03"
BULK = "Order.objects.bulk_create(...) writes shop.Order past handle_order_created."


@pytest.mark.once
@pytest.mark.parametrize("form", _FORMS)
def test_each_format_says_what_sets_them_apart_and_which_calls_skip_what_the_rule_covers(
    form, imported, settings
):
    settings.TIME_ZONE = "UTC"
    code, out, err = run("check", "orders.invoice", "--why", "--format", form)
    assert (code, err) == (1, "")
    READERS[form](out)
    words = " ".join(out.replace("&#x27;", "'").split())
    if form == "json":
        assert "created_at on Tuesday 2026-11-10 from 14:02 to 14:03" in out
        assert '"Order.objects.bulk_create(...)"' in out
    elif form != "markdown":
        assert WHEN in words
        assert f"sample_project/shop/services.py:86 {BULK}" in words
    else:
        assert "Tuesday 2026-11-10 from 14:02 to 14:03" in words


@pytest.mark.once
def test_the_json_has_it_in_fields_and_only_on_demand(imported, settings):
    settings.TIME_ZONE = "UTC"
    assert "why" not in run_json("check", "orders.invoice")[1]["rules"][0]
    why = run_json("check", "orders.invoice", "--why")[1]["rules"][0]["why"]
    (culprit,) = why["culprits"]
    (clue,) = culprit.pop("clues")
    assert culprit == {
        "drift": "missing",
        "model": "shop.Order",
        "unread": [],
        "drifted": 20,
        "compared": 20,
        "others": 300,
        "why_not": "",
    }
    assert (clue["column"], clue["share"]) == ("created_at", 1.0)
    assert clue["share_of_others"] < 0.1
    assert clue["score"] > 25
    assert {"path": "sample_project/shop/services.py", "line": 86, "call": "Order.objects.bulk_create(...)", "model": "shop.Order",
            "skips": ["sample_project.shop.signals.handle_order_created"]} in why["calls"]  # fmt: skip
    assert (why["more_calls"], why["why_no_calls"]) == (0, "")


@pytest.mark.once
def test_a_clean_check_has_nothing_to_explain():
    order = Order.objects.create()
    Order.objects.filter(pk=order.pk).update(created_at=DAY)
    code, out, err = run("check", "orders.invoice", "--why")
    assert (code, err) == (0, "")
    assert "All clean" in out


@pytest.mark.once
def test_some_records_alone_tell_nothing(imported):
    code, out, err = run("check", "orders.invoice", "--why", "--keys", str(imported[0].pk))
    assert (code, out) == (2, "")
    assert "--why and --keys don't go together" in err


@pytest.mark.once
def test_a_rule_that_covers_nothing_says_that_no_call_can_be_named(rules, imported):  # noqa: F811
    rules(
        "lost = Rule(every=Order, must=HaveRow(Invoice, link={'order': F('pk')}, values={'amount': F('total')}))"
    )
    _, out, _ = run("check", "own.lost", "--why")
    words = " ".join(out.split())
    assert (
        "The rule covers no receiver (covers=), so nobody knows which calls skip what it stands for." in words
    )


@pytest.mark.once
def test_what_receivers_write_is_left_out(rules, imported):  # noqa: F811
    """A receiver of the shop sets `customer_name`; where no rule says so, it is known from the source."""
    Order.objects.filter(pk__in=[each.pk for each in imported]).update(customer_name="lost")
    Order.objects.update(created_at=DAY)
    rules(
        "lost = Rule(every=Order, must=HaveRow(Invoice, link={'order': F('pk')}, values={'amount': F('total')}))"
    )
    why = run_json("check", "own.lost", "--why")[1]["rules"][0]["why"]
    assert {clue["column"] for each in why["culprits"] for clue in each["clues"]} == {"id"}


@pytest.mark.once
@pytest.mark.django_db(databases="__all__")
def test_fixtures_are_explained_like_any_database(tmp_path, imported):
    from django.core import serializers

    fixture = tmp_path / "shop.json"
    rows = [*Customer.objects.all(), *Order.objects.all(), *Invoice.objects.all()]
    fixture.write_text(serializers.serialize("json", rows))
    Order.objects.all().delete()
    code, out, _ = run("check", "orders.invoice", "--why", "--fixtures", str(fixture), "--as-written")
    assert code == 1
    assert "All the missing have created_at on Tuesday 2026-11-10" in " ".join(out.split())


def test_the_night_notes_what_set_them_apart_before_it_repairs(imported, settings):
    settings.TIME_ZONE = "UTC"
    assert nightly()
    outcome = Outcome.objects.get(rule="orders.invoice")
    assert (outcome.missing, outcome.left) == (20, 0)
    assert [clue["column"] for clue in outcome.culprits[0]["clues"]] == ["created_at"]
    code, out, _ = run("runs", str(outcome.run_id))
    words = " ".join(out.split())
    assert code == 0
    assert WHEN in words
    assert f"sample_project/shop/services.py:86 {BULK}" in words
    _, report = run_json("runs", str(outcome.run_id))
    (rule,) = (each for each in report["rules"] if each["rule"] == "orders.invoice")
    assert rule["why"]["culprits"][0]["drifted"] == 20
    assert rule["why"]["calls"]


@pytest.mark.once
def test_the_night_s_own_report_doesn_t_read_the_source(imported, monkeypatch):
    def reads(*_, **__):
        raise AssertionError("the source was read")

    monkeypatch.setattr("reconcile.audit.skipping.search_bypasses", reads)
    monkeypatch.setattr("reconcile.audit.skipping.audit_signals", reads)
    _, out, _ = run("nightly")
    words = " ".join(out.split())
    assert "All the missing have created_at on Tuesday 2026-11-10" in words
    assert "The calls in the source that may have caused it: reconcile runs show " in words


@pytest.mark.once
def test_clues_are_those_of_receivers_of_the_same_model_alone():
    """A receiver of orders sets a column of the same name as one of which another model's rows are told by."""
    clue = Clue(column="customer_name", has="customer_name = 'x'", share=1, of_others=0, score=99)
    for model, left in (("shop.Order", 0), ("shop.Customer", 1)):
        culprit = Culprit(drift=MISSING, number=9, model=model, clues=(clue,), drifted=9, others=99)
        found = without_receivers({"orders.invoice": [culprit]})["orders.invoice"][0]
        assert len(found.clues) == left


@pytest.mark.once
def test_of_a_night_s_clues_those_of_receivers_are_left_out_when_it_is_shown(imported):
    Order.objects.update(created_at=DAY)
    nightly()
    outcome = Outcome.objects.get(rule="orders.invoice")
    culprit = outcome.culprits[0]
    culprit["clues"] = [{"column": "customer_name", "has": "customer_name = 'x'", "share": 1.0, "share_of_others": 0.0, "score": 99.0}]  # fmt: skip
    Outcome.objects.filter(pk=outcome.pk).update(culprits=[culprit])
    words = " ".join(run("runs", str(outcome.run_id))[1].split())
    assert (
        "Only what receivers write stands out, which follows from a save that ran or didn't: customer_name."
        in words
    )


def test_very_many_calls_are_counted(monkeypatch):
    rule = project_rules()["orders.invoice"]
    calls = [*range(MOST + 3)]
    monkeypatch.setattr("reconcile.audit.skipping._calls", lambda *_: calls)
    found = _suspects(rule, type("Audit", (), {"bypasses": (), "unreadable": ()})())
    assert found == Suspects(calls=tuple(calls[:MOST]), more=3)
    assert [*found.sentences][-1] == "And 3 calls more: reconcile signals bypasses --show covered"


def test_where_no_call_is_known_it_says_how_much_it_could_not_tell(monkeypatch):
    monkeypatch.setattr("reconcile.audit.skipping._calls", lambda *_: [])
    audit = type("Audit", (), {"bypasses": (), "unreadable": ("x.py",)})()
    assert [*_suspects(project_rules()["orders.invoice"], audit).sentences] == [
        "No call in the source is known to skip what the rule covers (0 calls can't be told). 1 file can't be read."
    ]
