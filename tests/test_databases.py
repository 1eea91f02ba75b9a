"""Several databases: a rule is checked and repaired where it is asked for, and nowhere else."""

import pytest
from django.db.models import Count, F
from django.utils import timezone

from reconcile import HaveRow, HaveValues, Rule, runs
from reconcile.detect.checking import check
from reconcile.errors import UsageError
from reconcile.models import Change, Run
from reconcile.rules.registry import select
from sample_project.shop.models import Invoice, Order
from tests.helpers import environment
from tests.processes import run_reconcile
from tests.zoo.models import Team, Visit

BOTH = ["default", "archive"]
INVOICE = Rule(
    name="invoice", every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})
)
COUNT = Rule(name="count", every=Order, must=HaveValues(item_count=Count("items")))


def found(rule, using):
    result = check(rule, using=using, now=timezone.now())
    assert result.error is None, result.error
    return result.tally.total


@pytest.mark.django_db(databases=BOTH)
def test_drift_is_found_on_the_database_that_is_asked_for():
    Order.objects.using("archive").bulk_create([Order(item_count=3)])
    assert (found(COUNT, "default"), found(COUNT, "archive")) == (0, 1)
    assert (found(INVOICE, "default"), found(INVOICE, "archive")) == (0, 1)


@pytest.mark.django_db(databases=BOTH, transaction=True)
def test_a_repair_writes_on_one_database_and_keeps_its_run_there():
    for using in BOTH:
        Order.objects.using(using).bulk_create([Order(total=5), Order(total=7)])
    run, results = runs.repair({"invoice": INVOICE, "count": COUNT}, using="archive")
    assert [each.error for each in results] == [None, None]
    assert Invoice.objects.using("archive").count() == 2
    assert Invoice.objects.using("default").count() == 0
    assert Run.objects.using("archive").filter(pk=run.pk).exists()
    assert not Run.objects.using("default").exists()
    assert (Change.objects.using("archive").count(), Change.objects.using("default").count()) == (2, 0)
    _, again = runs.repair({"invoice": INVOICE}, using="archive")
    assert again[0].written.total == 0


@pytest.mark.django_db(databases=BOTH)
def test_a_rule_is_about_each_database_on_which_the_router_keeps_its_model():
    visits = Rule(name="visits", every=Visit, must=HaveValues(day=1))
    assert (visits.is_on("default"), visits.is_on("archive")) == (True, False)
    assert (COUNT.is_on("default"), COUNT.is_on("archive")) == (True, True)
    rules = {"visits": visits, "count": COUNT}
    assert list(select(rules, using="archive")) == ["count"]
    assert list(select(rules, using="default")) == ["visits", "count"]


def test_a_rule_may_name_its_databases():
    rule = Rule(name="here", every=Team, must=HaveValues(points=0), databases=["archive"])
    assert list(rule.faults()) == []
    assert (rule.is_on("default"), rule.is_on("archive")) == (False, True)


def test_a_database_that_does_not_exist_is_a_fault_with_the_nearest():
    rule = Rule(name="here", every=Team, must=HaveValues(points=0), databases=["archiv"])
    (fault,) = rule.faults()
    assert (fault.id, fault.hint) == ("reconcile.E012", "Did you mean 'archive'?")


def test_a_named_rule_that_is_not_about_the_database_is_a_usage_error():
    rules = {"here": Rule(name="here", every=Team, must=HaveValues(points=0), databases=["archive"])}
    with pytest.raises(UsageError, match="'here' is not about database 'default'"):
        select(rules, ["here"], using="default")
    with pytest.raises(UsageError, match="No rule is about database 'default'"):
        select(rules, using="default")


@pytest.mark.django_db(databases=BOTH)
def test_the_nightly_job_takes_the_database_that_it_is_told():
    Order.objects.using("archive").bulk_create([Order()])
    Order.objects.using("archive").update(item_count=4)
    run, results = runs.nightly(using="archive")
    assert {each.rule: each.found for each in results}["orders.item_count"]
    assert Order.objects.using("archive").get().item_count == 0
    assert Run.objects.using("archive").filter(pk=run.pk).exists()


@pytest.mark.process
@pytest.mark.django_db(databases=BOTH, transaction=True)
def test_the_command_line_works_on_the_database_that_it_is_told():
    Order.objects.using("archive").bulk_create([Order(status="draft", item_count=4)])

    def run(*arguments):
        return run_reconcile(*arguments, env=environment())

    assert run("check", "orders.item_count", "--allow-empty").returncode == 0
    assert run("check", "orders.item_count", "--database", "archive").returncode == 1
    assert run("repair", "orders.item_count", "--database", "archive", "--apply").returncode == 0
    assert run("check", "orders.item_count", "--database", "archive").returncode == 0
    assert run("check", "--database", "nowhere").returncode == 2
    assert run("explain", "orders.item_count", "--database", "nowhere").returncode == 2
