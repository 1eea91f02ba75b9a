"""`reconcile runs`: how many statements a stored run costs."""

import uuid

import pytest
from django.utils import timezone

from reconcile.models import Outcome, Run, WorkItem, WrittenRows
from tests.cli.test_cli import run
from tests.helpers import statements

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_stored_run_is_shown_by_as_many_statements_for_any_number_of_rules(form):
    def sent(number):
        stored = Run.objects.create(kind="repair", now=timezone.now(), state="finished")
        for place in range(number):
            outcome = Outcome.objects.create(
                run=stored, rule=f"r{place}", position=place, status="pass", state="done", may_repair=True
            )
            item = WorkItem.objects.create(
                outcome=outcome, drift="stale", token=uuid.uuid4(), heartbeat=timezone.now()
            )
            WrittenRows.objects.create(work_item=item, verb="update", rows=place + 3)
        with statements() as captured:
            code, out, _ = run("runs", str(stored.pk), "--format", form)
        assert (code, str(number + 2) in out) == (0, True)
        return len(captured)

    assert sent(1) == sent(6)
