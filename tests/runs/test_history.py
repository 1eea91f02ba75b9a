"""What is remembered of earlier runs, for the trend of a report."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from reconcile.models import Outcome, Run
from reconcile.runs.results import past_runs
from tests.helpers import statements

pytestmark = pytest.mark.django_db


def ran(days_ago, *, rule="a", kind="nightly", state="done", status="fail", **counted):
    at = timezone.now() - timedelta(days=days_ago)
    run = Run.objects.create(kind=kind, state="finished", now=at, started_at=at)
    return Outcome.objects.create(
        run=run, rule=rule, position=0, state=state, status=status, **{"checked": 100, **counted}
    )


def numbers(*rules, **options):
    return {
        rule: [each.drifted for each in found]
        for rule, found in past_runs(rules, using="default", **options).items()
    }


def test_runs_are_told_oldest_first_with_all_kinds_of_drift_added_up():
    ran(1, missing=1)
    ran(3, missing=4, stale=5, extra=6)
    ran(2)
    assert numbers("a") == {"a": [15, 0, 1]}
    (oldest, *_) = past_runs(["a"], using="default")["a"]
    assert oldest.checked == 100
    assert timezone.now() - oldest.at > timedelta(days=2)


def test_only_the_last_runs_are_told():
    for day in range(5):
        ran(day, missing=day)
    assert numbers("a", runs=2) == {"a": [1, 0]}


def test_a_rule_is_told_its_own_runs_and_one_without_any_is_left_out():
    ran(1, missing=1)
    ran(1, rule="b", missing=2)
    assert numbers("a", "b", "c") == {"a": [1], "b": [2]}


def test_what_says_nothing_of_the_drift_is_left_out():
    ran(1, state="repairing", missing=1)
    ran(2, status="error")
    ran(3, kind="undo", missing=1)
    ran(4, kind="repair", missing=7)
    assert numbers("a") == {"a": [7]}


def test_it_costs_a_statement_for_the_tables_and_one_a_rule():
    ran(1)
    with statements() as few:
        past_runs(["a", "b"], using="default")
    for day in range(20):
        ran(day)
    with statements() as many:
        past_runs(["a", "b"], using="default")
    assert len(few) == len(many) == 3


@pytest.mark.django_db(transaction=True)
def test_a_database_without_the_package_s_tables_remembers_nothing():
    table = Outcome._meta.db_table
    with connection.schema_editor() as editor:
        editor.alter_db_table(Outcome, table, f"{table}_gone")
    try:
        assert past_runs(["a"], using="default") == {}
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(Outcome, f"{table}_gone", table)
