"""Rules that write what each other reads."""

import pytest
from django.db.models import Case, F, Value, When
from django.db.models.functions import Greatest
from django.utils import timezone

from reconcile import Call, FromPython, HaveValues, Report, Rule, runs
from reconcile.core.drift import STALE, Status
from reconcile.core.verbs import Written
from reconcile.models import Outcome, Run, Suspension, WorkItem
from reconcile.repair.caps import Caps
from reconcile.repair.plan_file import PlanFile, PlannedRule
from reconcile.rules.fingerprints import fingerprint
from reconcile.rules.order import sort_rules
from tests.zoo.models import Basket, Team

pytestmark = pytest.mark.django_db


def named(**rules):
    return {name: Rule(name=name, every=Team, must=must) for name, must in rules.items()}


AGREEING = named(
    points=HaveValues(points=Greatest("points", "player_count")),
    count=HaveValues(player_count=Greatest("points", "player_count")),
)
QUARRELLING = named(
    points=HaveValues(points=F("player_count") + 1), count=HaveValues(player_count=F("points"))
)
THREE = named(
    name=HaveValues(name=Case(When(points__gt=5, then=Value("good")), default=Value("bad"))),
    points=HaveValues(points=F("player_count")),
    count=HaveValues(player_count=Case(When(name="good", then=Value(9)), default=F("player_count"))),
)


def repair(rules, **options):
    run, results = runs.repair(rules, using="default", caps=Caps(**options))
    return run, {each.rule: each for each in results}


def test_rules_that_agree_are_repaired_until_both_are_true():
    team = Team.objects.create(name="x", points=1, player_count=8)
    _, results = repair(AGREEING)
    assert {each.left for each in results.values()} == {0}
    assert {each.why_stopped for each in results.values()} == {""}
    team.refresh_from_db()
    assert (team.points, team.player_count) == (8, 8)


def test_what_one_rule_writes_for_another_is_seen_in_the_same_run():
    team = Team.objects.create(name="x", points=7, player_count=6)
    run, results = repair(THREE)
    assert [each.left for each in results.values()] == [0, 0, 0]
    team.refresh_from_db()
    assert (team.name, team.points, team.player_count) == ("good", 9, 9)
    _, again = repair(THREE)
    assert sum(each.written.total for each in again.values()) == 0
    assert run.outcomes.exclude(state="done").count() == 0


def test_rules_that_quarrel_are_given_up_and_the_circle_is_named():
    Team.objects.create(name="x", points=1, player_count=1)
    _, results = repair(QUARRELLING)
    said = [each.why_stopped for each in results.values() if each.why_stopped]
    assert said
    assert "after 10 rounds they still do: " in said[0]
    assert "points → count → points" in said[0]
    assert any(each.incomplete for each in results.values())


def small(number):
    if number > 5:
        raise ValueError(f"{number} is too large")
    return number


def test_a_rule_that_another_of_the_circle_makes_fail_is_an_error():
    Team.objects.create(name="x", points=0, player_count=1)
    rules = named(
        points=HaveValues(points=FromPython(small, reads=["player_count"])),
        count=HaveValues(player_count=Greatest("player_count", F("points") * 7)),
    )
    _, results = repair(rules)
    assert results["points"].status is Status.ERROR
    assert "7 is too large" in results["points"].error


def test_the_cap_on_repairs_holds_over_all_rounds():
    Team.objects.create(name="x", points=1, player_count=1)
    _, results = repair(QUARRELLING, max_repairs=3)
    assert max(each.written.total for each in results.values()) <= 3
    assert any("cap" in each.why_stopped for each in results.values())


def test_a_rule_that_only_reports_is_in_no_circle():
    rules = {**QUARRELLING}
    rules["count"] = Rule(
        name="count", every=Team, must=QUARRELLING["count"].must, remedies={STALE: Report()}
    )
    assert sort_rules(rules, using="default", now=timezone.now()).circles == []
    Team.objects.create(name="x", points=1, player_count=1)
    _, results = repair(rules)
    assert results["points"].written.update == 1
    assert results["count"].reported == {STALE: 1}


def test_a_circle_is_told_around_so_that_each_reads_what_the_one_before_writes():
    (circle,) = sort_rules(THREE, using="default", now=timezone.now()).circles
    assert sorted(circle) == ["count", "name", "points"]
    following = {"name": "count", "count": "points", "points": "name"}
    assert all(following[one] == other for one, other in zip(circle, [*circle[1:], circle[0]], strict=True))


def test_a_run_that_was_killed_between_two_rounds_settles_when_it_is_resumed():
    team = Team.objects.create(name="x", points=7, player_count=6)
    run, _ = repair(THREE)
    Team.objects.filter(pk=team.pk).update(points=3, name="bad")
    Run.objects.filter(pk=run.pk).update(state="stopped")
    Outcome.objects.filter(run=run, rule="count").update(state="repairing")
    WorkItem.objects.filter(outcome__run=run, outcome__rule="count").update(state="running", cursor=None)
    run.refresh_from_db()
    results = {each.rule: each for each in runs.resume(run, THREE, using="default")}
    assert [each.left for each in results.values()] == [0, 0, 0]
    team.refresh_from_db()
    assert (team.name, team.points, team.player_count) == ("good", 9, 9)


def test_records_of_rules_in_no_circle_are_taken_once():
    Basket.objects.create(quantity=1)
    rule = Rule(name="alone", every=Basket, must=HaveValues(quantity=F("score")))
    run, results = repair({"alone": rule})
    assert results["alone"].written.update == 1
    assert sort_rules({"alone": rule}, using="default", now=run.now).circles == []


def clean_for_now(number=1):
    """Teams for which the rule of names holds until the points, which it reads, are repaired."""
    Team.objects.bulk_create([Team(name="bad", points=5, player_count=6) for _ in range(number)])


def test_a_suspended_rule_is_left_alone_in_a_circle_too(settings):
    settings.RECONCILE = {"RULES": ["tests.circling_rules"]}
    clean_for_now()
    Suspension.objects.create(
        rule="name", run=Run.objects.create(kind="nightly", now=timezone.now()).pk, why="Why."
    )
    _, results = runs.nightly(using="default")
    by_rule = {each.rule: each for each in results}
    assert by_rule["points"].written.update == 1
    assert by_rule["name"].written.total == 0
    assert by_rule["name"].why_stopped.startswith("Suspended since")
    assert (by_rule["name"].left, by_rule["name"].planned.update, by_rule["name"].incomplete) == (1, 1, True)
    assert Team.objects.get().name == "bad"


def test_a_cap_stops_a_rule_before_its_first_write_in_each_round():
    clean_for_now(30)
    rules = {**THREE, "name": Rule(name="name", every=Team, must=THREE["name"].must, max_repairs=15)}
    _, results = repair(rules)
    assert results["points"].written.update == 30
    assert (results["name"].written.total, results["name"].planned.update, results["name"].left) == (
        0,
        30,
        30,
    )
    assert "30 repairs are planned, and the cap is 15" in results["name"].why_stopped


def test_a_cap_counts_what_was_written_in_the_rounds_before():
    Team.objects.create(name="x", points=1, player_count=1)
    clean_for_now(10)
    rules = {**THREE, "name": Rule(name="name", every=Team, must=THREE["name"].must, max_repairs=10)}
    _, results = repair(rules)
    assert (results["name"].written.update, results["name"].planned.update) == (1, 11)
    assert "10 repairs are planned after 1 that were done, and the cap is 10" in results["name"].why_stopped
    assert "--max-repairs 11" in results["name"].why_stopped


def test_what_a_plan_does_not_have_is_written_in_no_round():
    clean_for_now()
    planned = {
        name: PlannedRule(
            fingerprint=fingerprint(rule, "default"), planned=Written(update=9 * (name != "name"))
        )
        for name, rule in THREE.items()
    }
    plan = PlanFile(file="plan.json", database="default", rules=planned)
    _, results = runs.repair(THREE, using="default", kept_plan=plan)
    by_rule = {each.rule: each for each in results}
    assert by_rule["points"].written.update == 1
    assert by_rule["name"].written.total == 0
    assert "no longer covers name: update 0 planned, 1 now" in by_rule["name"].why_stopped


def test_a_rule_that_is_taken_again_has_in_its_plan_all_that_it_wrote():
    Team.objects.create(name="x", points=7, player_count=6)
    _, results = repair(THREE)
    assert {each.rule: each.planned for each in results.values()} == {
        each.rule: each.written for each in results.values()
    }


def all_but_the_bad(rows):
    if any(row.name == "bad!" for row in rows):
        raise ValueError("unlucky")
    for row in rows:
        Team.objects.filter(pk=row.pk).update(points=row.player_count)


def test_one_record_that_fails_keeps_a_circle_from_mending_no_other():
    rules = {
        **THREE,
        "name": Rule(
            name="name", every=Team, must=HaveValues(name=Case(When(points__gt=5, then=Value("good")), default=F("name")))
        ),
        "points": Rule(name="points", every=Team, must=THREE["points"].must, remedies={STALE: Call(all_but_the_bad)}),
    }  # fmt: skip
    Team.objects.create(name="bad!", points=1, player_count=2)
    Team.objects.bulk_create([Team(name="x", points=0, player_count=6) for _ in range(20)])
    _, results = repair(rules)
    assert Team.objects.filter(name="good", points=9, player_count=9).count() == 20
    assert {name: each.left for name, each in results.items()} == {"name": 0, "count": 0, "points": 1}
    assert (results["points"].skipped, len(results["points"].refused)) == (1, 1)
    assert "1 record could not be repaired" in results["points"].why_stopped


def test_a_rule_that_only_looks_is_counted_anew_once_others_have_written(settings):
    settings.RECONCILE = {"RULES": ["tests.circling_rules"]}
    clean_for_now()
    Suspension.objects.create(
        rule="points", run=Run.objects.create(kind="nightly", now=timezone.now()).pk, why="Why."
    )
    Team.objects.update(name="good", points=6)
    _, results = runs.nightly(using="default")
    by_rule = {each.rule: each for each in results}
    assert by_rule["count"].written.update == 1
    assert by_rule["points"].left == 1
