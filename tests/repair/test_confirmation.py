"""Deletes need two runs that agree, and are capped lower than other writes."""

from dataclasses import replace

import pytest
from django.db.models import Q
from django.utils import timezone

from reconcile import EXTRA, BeUnique, Call, Delete, HaveSource, Merge, Rule, Split, runs
from reconcile.models import Change, Finding, Run, WrittenRows
from reconcile.repair.caps import Caps
from reconcile.repair.confirmation import confirmed_keys, record_findings
from tests.helpers import found_by_the_night, nightly
from tests.zoo.models import Contact, Memo, Team

ORPHANS = Rule(name="orphans", every=Memo, must=HaveSource("target"), remedies={EXTRA: Delete()})
MERGED = Rule(name="merged", every=Contact, must=BeUnique("email", merge={"visits": "sum"}))

pytestmark = pytest.mark.django_db


def orphans(number):
    team = Team.objects.create(name="gone")
    made = [Memo.objects.create(target=team) for _ in range(number)]
    Team.objects.filter(pk=team.pk)._raw_delete("default")
    return made


def repair(rule, **caps):
    _, (result,) = runs.repair({rule.name: rule}, using="default", caps=Caps(**caps))
    return result


def preview(rule, **caps):
    now = timezone.now()
    return runs.preview({rule.name: rule}, using="default", now=now, caps=Caps(**caps))[0]


def test_the_first_run_notes_what_it_would_delete_and_the_second_deletes_it():
    orphans(3)
    first = repair(ORPHANS)
    assert (first.written.total, first.left, first.incomplete) == (0, 3, True)
    assert first.why_stopped == (
        "3 rows would be deleted, and this run is the first to find them. Deletes need two runs that agree: look at them, "
        "then run it again: reconcile repair orphans --apply"
    )
    assert (Memo.objects.count(), Finding.objects.count(), Change.objects.count()) == (3, 3, 0)
    second = repair(ORPHANS)
    assert (second.written.delete, second.left, second.why_stopped) == (3, 0, "")
    assert not Memo.objects.exists()
    third = repair(ORPHANS)
    assert (third.written.total, Finding.objects.count()) == (0, 0)


def test_a_row_that_only_the_second_run_finds_stays():
    orphans(2)
    repair(ORPHANS)
    (late,) = orphans(1)
    second = repair(ORPHANS)
    assert (second.written.delete, second.left) == (2, 1)
    assert "1 row would be deleted" in second.why_stopped
    assert list(Memo.objects.all()) == [late]
    assert repair(ORPHANS).written.delete == 1


def test_a_row_that_was_well_in_between_is_found_anew():
    """Two runs agree only if they follow one another."""
    (memo,) = orphans(1)
    repair(ORPHANS)
    gone = memo.object_id
    alive = Team.objects.create(name="alive")
    Memo.objects.filter(pk=memo.pk).update(object_id=str(alive.pk))
    repair(ORPHANS)
    Memo.objects.filter(pk=memo.pk).update(object_id=gone)
    assert repair(ORPHANS).written.delete == 0
    assert repair(ORPHANS).written.delete == 1


def test_a_night_that_only_reports_counts_as_the_first_run():
    orphans(2)
    found_by_the_night(ORPHANS)
    assert repair(ORPHANS).written.delete == 2


def test_the_nightly_job_itself_notes_what_a_person_may_delete_in_the_morning(settings):
    settings.RECONCILE = {"RULES": ["tests.deleting_rules"]}
    orphans(2)
    assert nightly()["written"] == 0
    assert set(Finding.objects.values_list("rule", flat=True)) == {"orphans"}


def test_a_preview_notes_nothing_and_says_what_will_be_asked():
    orphans(2)
    said = preview(ORPHANS)
    assert (said.planned.delete, said.why_stopped) == (2, "")
    assert (
        "Deletes need two runs that agree, and the last run knew none of these rows: the first --apply notes them"
        in said.warning
    )
    assert not Finding.objects.exists()
    found_by_the_night(ORPHANS)
    assert preview(ORPHANS).warning == ""


def test_a_preview_of_more_rows_than_it_looks_up_promises_none_of_them(monkeypatch):
    monkeypatch.setattr("reconcile.runs.running.KEEP", 2)
    orphans(3)
    for noted in (False, True):
        said = preview(ORPHANS)
        assert (said.planned.delete, said.unconfirmed, "a plan doesn't know" in said.warning) == (
            3,
            3,
            True,
        ), noted
        found_by_the_night(ORPHANS)


def test_no_more_deletes_wait_than_are_planned():
    orphans(4)
    first = Memo.objects.order_by("pk").first()
    Memo.objects.filter(pk=first.pk).update(number=1)
    split = Split(when=Q(number=1), each=Call(len), rest=Delete())
    said = preview(replace(ORPHANS, remedies={EXTRA: split}))
    assert (said.planned.delete, said.unconfirmed) == (3, 3)


def test_after_an_undo_two_runs_have_to_agree_anew():
    orphans(2)
    repair(ORPHANS)
    repair(ORPHANS)
    runs.undo(
        Run.objects.get(outcomes__work_items__counts=WrittenRows.objects.get(verb="delete", rows=2)),
        using="default",
    )
    assert Memo.objects.count() == 2
    assert repair(ORPHANS).written.delete == 0
    assert repair(ORPHANS).written.delete == 2


def test_a_merge_waits_until_its_whole_group_was_found():
    for _ in range(2):
        Contact.objects.create(email="a", visits=1)
    found_by_the_night(MERGED)
    Contact.objects.create(email="a", visits=1)
    waiting = repair(MERGED)
    assert (waiting.written.total, waiting.left, Contact.objects.count()) == (0, 2, 3)
    assert repair(MERGED).written.delete == 2
    assert Contact.objects.get().visits == 3


@pytest.mark.parametrize("cap", [None, 3])
def test_deletes_have_a_lower_cap_of_a_tenth_that_holds_unless_another_is_given(cap):
    team = Team.objects.create(name="alive")
    Memo.objects.bulk_create([Memo(target=team) for _ in range(10)])
    orphans(15)
    found_by_the_night(ORPHANS)
    stopped = repair(ORPHANS) if cap is None else repair(ORPHANS, max_deletes=cap)
    of = "10% of 25 records, and 10 rows in any case" if cap is None else "3"
    assert stopped.why_stopped.startswith(f"15 deletes are planned, and the cap is {of}.")
    assert "--max-deletes 15" in stopped.why_stopped
    assert (preview(ORPHANS).incomplete, Memo.objects.count()) == (cap is None or True, 25)
    assert repair(ORPHANS, max_deletes=15).written.delete == 15


def test_ten_rows_may_be_deleted_of_however_few():
    orphans(10)
    found_by_the_night(ORPHANS)
    assert repair(ORPHANS).written.delete == 10


def test_keys_of_any_type_are_told_as_they_are_kept():
    contact = Contact.objects.create(email="a")
    finder = MERGED.compile(using="default", now=timezone.now()).finders[0]
    first, second = (Run.objects.create(kind="repair", now=timezone.now()) for _ in range(2))
    record_findings(MERGED, finder, [contact.pk], run=first, using="default")
    later = Run.objects.create(kind="repair", now=timezone.now())
    options = {"finder": finder, "using": "default"}
    # The second had begun before the first found it: they look at the same moment, and agree on nothing.
    for run in (first, second):
        assert list(confirmed_keys([contact.pk], rule=MERGED, run=run, **options)) == []
    assert list(confirmed_keys([contact.pk], rule=MERGED, run=later, **options)) == [contact.pk]
    assert list(confirmed_keys([contact.pk], rule=replace(MERGED, name="other"), run=later, **options)) == []


def test_what_a_rule_has_found_before_it_was_edited_counts_no_more():
    orphans(2)
    repair(ORPHANS)
    edited = replace(ORPHANS, every=Memo.objects.filter(pk__gt=0))
    assert repair(edited).written.delete == 0
    assert repair(edited).written.delete == 2


def test_a_row_that_joins_a_group_while_a_throttle_holds_the_merge_back_keeps_the_group_whole(settings):
    for _ in range(2):
        Contact.objects.create(email="a", visits=1)
    found_by_the_night(MERGED)

    def meanwhile(using):
        if Contact.objects.count() == 2:
            Contact.objects.create(email="a", visits=1)

    settings.RECONCILE = {**settings.RECONCILE, "THROTTLES": [meanwhile]}
    waiting = repair(MERGED)
    assert (waiting.written.total, Contact.objects.count()) == (0, 3)


def test_a_remedy_that_deletes_in_one_of_its_parts_deletes():
    assert Delete().deletes
    assert Merge().deletes
    assert Split(when=None, each=Call(print), rest=Delete()).deletes
    assert not Call(print).deletes
