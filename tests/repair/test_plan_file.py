"""Plan files: a repair writes what was planned and looked at, and nothing more."""

import json

import pytest
from django.db.models import F, Value
from django.db.models.functions import Coalesce, Concat
from django.utils import timezone

from reconcile import BeUnique, Exactly, HaveRow, HaveValues, Rule, runs
from reconcile.core.verbs import Written
from reconcile.errors import GivenUpError, StoppedError, UsageError
from reconcile.models import Outcome, Run
from reconcile.repair.caps import Budget, Caps
from reconcile.repair.plan_file import PlanFile, PlannedRule, read_plan
from reconcile.reports import json as report
from reconcile.reports.findings import RepairReport
from reconcile.runs import written_rows
from sample_project.shop.models import Invoice, Order
from tests.helpers import found_by_the_night
from tests.zoo.models import Basket, Bill, Contact, Node

INVOICE = Rule(
    name="invoice", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
)
NAME = Rule(name="name", every=Order, must=HaveValues(customer_name="x"))

pytestmark = pytest.mark.django_db


def missing(number):
    Order.objects.bulk_create([Order(total=3, customer_name="x") for _ in range(number)])


def planned(tmp_path, *rules):
    """The plan that a preview writes, read back."""
    rules = {rule.name: rule for rule in rules}
    repairs = runs.preview(rules, using="default", now=timezone.now())
    file = tmp_path / "plan.json"
    file.write_text(
        report.repair_report(RepairReport(run=None, database="default", repairs=repairs, seconds=1))
    )
    return read_plan(file)


def applied(plan, *rules, **caps):
    return runs.repair(
        {rule.name: rule for rule in rules}, using="default", kept_plan=plan, caps=Caps(**caps)
    )


def test_what_was_planned_is_written(tmp_path):
    missing(3)
    plan = planned(tmp_path, INVOICE)
    run, (result,) = applied(plan, INVOICE)
    assert (result.written.insert, result.left, result.why_stopped) == (3, 0, "")
    assert run.outcomes.get().kept_plan["planned_records"]["insert"] == 3


def test_less_than_was_planned_is_written_where_less_is_left_to_do(tmp_path):
    missing(3)
    plan = planned(tmp_path, INVOICE)
    Invoice.objects.create(order=Order.objects.first(), amount=3)
    _, (result,) = applied(plan, INVOICE)
    assert (result.written.insert, result.left) == (2, 0)


def test_counts_that_have_grown_stop_before_the_first_write_of_any_rule(tmp_path):
    missing(3)
    Order.objects.update(customer_name="y")
    plan = planned(tmp_path, INVOICE, NAME)
    Order.objects.create(total=3, customer_name="x")
    Invoice.objects.all().delete()
    run, results = applied(plan, INVOICE, NAME)
    by_rule = {result.rule: result for result in results}
    assert run is None
    assert "no longer covers invoice: insert 3 planned, 4 now" in by_rule["invoice"].why_stopped
    assert "Make a new plan" in by_rule["invoice"].why_stopped
    assert (by_rule["invoice"].incomplete, by_rule["name"].written.total) == (True, 0)
    assert not Invoice.objects.exists()
    assert not Order.objects.filter(customer_name="x", total=3, pk__lt=0).exists()
    assert not Run.objects.exists()


def test_a_rule_that_was_edited_after_planning_stops_before_the_first_write(tmp_path):
    missing(3)
    plan = planned(tmp_path, INVOICE)
    edited = Rule(
        name="invoice",
        every=Order,
        must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total") + 1}),
    )
    run, (result,) = applied(plan, edited)
    assert (run, Invoice.objects.count()) == (None, 0)
    assert f"Rule invoice was edited after the plan in {plan.file} was made" in result.why_stopped


def test_a_rule_that_grew_by_what_another_of_the_run_wrote_is_stopped_at_its_turn(tmp_path):
    """The total is repaired first; the invoices that follow it were not in the plan."""
    missing(2)
    for order in Order.objects.all():
        Invoice.objects.create(order=order, amount=3)
    total = Rule(name="total", every=Order, must=HaveValues(total=4))
    plan = planned(tmp_path, total)
    plan = PlanFile(
        file=plan.file,
        database="default",
        rules={**plan.rules, "invoice": PlannedRule(fingerprint=_fingerprint(INVOICE), planned=Written())},
    )
    run, results = applied(plan, total, INVOICE)
    by_rule = {result.rule: result for result in results}
    assert (by_rule["total"].written.update, by_rule["invoice"].written.total) == (2, 0)
    assert "update 0 planned, 2 now" in by_rule["invoice"].why_stopped
    assert run is not None


def _fingerprint(rule):
    from reconcile.rules.fingerprints import fingerprint

    return fingerprint(rule, "default")


def test_a_cap_counts_beside_the_plan(tmp_path):
    missing(3)
    plan = planned(tmp_path, INVOICE)
    run, (result,) = applied(plan, INVOICE, max_repairs=2)
    assert (run, "the cap is 2" in result.why_stopped) == (None, True)


def test_a_resumed_run_still_has_its_plan(tmp_path):
    missing(3)
    plan = planned(tmp_path, INVOICE)
    run = runs.running._begin(
        Run.Kind.REPAIR, {"invoice": INVOICE}, using="default", may_repair={"invoice"}, kept_plan=plan
    )
    missing(1)
    (result,) = runs.resume(run, {"invoice": INVOICE}, using="default")
    assert "insert 3 planned, 4 now" in result.why_stopped
    assert (Invoice.objects.count(), written_rows(Outcome.objects.get()).insert) == (0, 0)


def stopped_after_a_chunk(tmp_path, settings):
    """A run by a plan of 20 rows that was interrupted when 10 were written."""
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 10}
    missing(20)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(StoppedError):
        runs.repair(
            {"invoice": INVOICE}, using="default", kept_plan=planned(tmp_path, INVOICE), progress=interrupt
        )
    assert Invoice.objects.count() == 10
    return Run.objects.get()


def test_a_run_that_is_resumed_in_the_middle_writes_the_rest_of_its_plan(tmp_path, settings):
    run = stopped_after_a_chunk(tmp_path, settings)
    (result,) = runs.resume(run, {"invoice": INVOICE}, using="default")
    assert (result.written.insert, result.planned.insert, result.why_stopped) == (20, 20, "")


def test_a_run_that_is_resumed_in_the_middle_writes_no_more_than_its_plan_had(tmp_path, settings):
    run = stopped_after_a_chunk(tmp_path, settings)
    missing(5)
    (result,) = runs.resume(run, {"invoice": INVOICE}, using="default")
    assert "insert 20 planned, 25 now" in result.why_stopped
    assert (Invoice.objects.count(), result.incomplete) == (10, True)
    run.refresh_from_db()
    assert (run.state, Outcome.objects.get().leased) == ("stopped", None)


def test_a_run_whose_rule_was_edited_is_not_resumed_until_the_rule_is_as_it_was(tmp_path, settings):
    run = stopped_after_a_chunk(tmp_path, settings)
    edited = Rule(
        name="invoice", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total") * 2})
    )  # fmt: skip
    (result,) = runs.resume(run, {"invoice": edited}, using="default")
    assert "Rule invoice was edited after the plan" in result.why_stopped
    assert (Invoice.objects.count(), Invoice.objects.filter(amount=6).count()) == (10, 0)
    run.refresh_from_db()
    (result,) = runs.resume(run, {"invoice": INVOICE}, using="default")
    assert (result.written.insert, result.left, result.why_stopped) == (20, 0, "")


def test_what_comes_up_during_the_repair_is_beyond_the_plan(tmp_path):
    """A path is made from the parent's, so that mending it makes those below drift."""
    top = Node.objects.create(name="old", path="/old")
    Node.objects.create(name="leaf", parent=top, path="/old/leaf")
    Node.objects.filter(pk=top.pk).update(name="new")
    must = HaveValues(path=Concat(Coalesce(F("parent__path"), Value("")), Value("/"), F("name")))
    rule = Rule(name="path", every=Node, must=must)
    run, (result,) = applied(planned(tmp_path, rule), rule)
    assert (result.written.update, result.left, result.incomplete) == (1, 1, True)
    assert "is used up: 0 of its records are left, and the next chunk would repair 1" in result.why_stopped
    assert [*Node.objects.order_by("pk").values_list("path", flat=True)] == ["/new", "/old/leaf"]
    assert run.outcomes.get().state == "repairing"


def test_an_allowance_holds_the_records_that_are_left_of_a_plan():
    budget = Budget(planned=3, file="plan.json")
    budget.check(Written(insert=9), records=3)
    budget.spend(Written(insert=6), records=2)
    budget.check(Written(insert=9), records=1)
    with pytest.raises(
        GivenUpError, match=r"plan in plan\.json is used up: 1 of its records are left.* repair 2"
    ):
        budget.check(Written(insert=2), records=2)


def test_a_record_of_a_plan_may_come_to_several_rows(tmp_path, settings):
    """Also where the run is resumed, and what it wrote before is counted."""
    settings.RECONCILE = {**settings.RECONCILE, "CHUNK": 10}
    rule = Rule(
        name="bills", every=Basket, must=HaveRow(Bill, link={"basket_number": F("pk")}, count=Exactly(3))
    )
    Basket.objects.bulk_create([Basket() for _ in range(12)])
    plan = planned(tmp_path, rule)
    assert plan.rules["bills"].planned == Written(insert=12)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(StoppedError):
        runs.repair({"bills": rule}, using="default", kept_plan=plan, progress=interrupt)
    (result,) = runs.resume(Run.objects.get(), {"bills": rule}, using="default")
    assert (result.written.insert, result.left, result.why_stopped) == (36, 0, "")


def test_a_merge_may_write_what_refers_to_the_rows_of_its_plan(tmp_path):
    rule = Rule(name="merged", every=Contact, must=BeUnique("email", merge={"visits": "sum"}))
    Contact.objects.bulk_create([Contact(email="a", visits=1) for _ in range(3)])
    found_by_the_night(rule)
    plan = planned(tmp_path, rule)
    _, (result,) = applied(plan, rule)
    assert (result.written.delete, result.written.update, result.why_stopped) == (2, 1, "")


def plan_text(**changes):
    rule = {
        "rule": "invoice",
        "fingerprint": "ab",
        "planned_records": Written(insert=3).as_dict(),
        "error": None,
    }
    return json.dumps({"version": 2, "applied": False, "database": "default", "rules": [rule], **changes})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "isn't of version 2"),
        (plan_text(version=1), "isn't of version 2"),
        (plan_text(applied=True), "is the report of a repair"),
        (plan_text(applied=None), "is the report of a repair"),
        (plan_text(rules=[{"rule": "invoice"}]), "lacks something, or has it wrong (KeyError: 'error')"),
        (plan_text(rules=7), "lacks something, or has it wrong (TypeError"),
        (plan_text(rules=[{"rule": "invoice", "error": "x", "planned": {}}]), "a rule could not be evaluated"),
        (plan_text(rules=[{"rule": "r", "error": None, "fingerprint": "a", "planned_records": {"burn": 1}}]), "no verb 'burn'"),
        (plan_text(rules=[{"rule": "r", "error": None, "fingerprint": "a", "planned_records": Written(insert=-1).as_dict()}]), "whole"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_plan_is_refused_with_the_way_out(tmp_path, text, said):
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_plan(file)
    assert said in str(refused.value)
    assert "A plan is what `reconcile repair … --format json --output FILE` writes" in str(refused.value)


def test_a_plan_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.json' can't be read: No such file"):
        read_plan(tmp_path / "gone.json")


def test_a_plan_keeps_rules_with_nothing_to_write_as_such(tmp_path):
    file = tmp_path / "plan.json"
    idle = {"rule": "idle", "fingerprint": "ab", "planned_records": Written().as_dict(), "error": None}
    file.write_text(plan_text(rules=[idle]))
    plan = read_plan(file)
    assert plan.rules["idle"].planned.total == 0
    assert not plan.writes("idle")
    assert not plan.writes("other")
