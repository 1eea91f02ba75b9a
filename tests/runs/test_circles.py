"""Rules that write what each other reads."""

import pytest
from django.db.models import Case, F, Value, When
from django.db.models.functions import Greatest
from django.utils import timezone

from reconcile import FromPython, HaveValues, Report, Rule, runs
from reconcile.drift import STALE, Status
from reconcile.graph import in_order
from reconcile.models import Outcome, Run, Shard
from reconcile.planning import Caps
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
    assert in_order(rules, using="default", now=timezone.now()).circles == []
    Team.objects.create(name="x", points=1, player_count=1)
    _, results = repair(rules)
    assert results["points"].written.update == 1
    assert results["count"].reported == {STALE: 1}


def test_a_circle_is_told_around_so_that_each_reads_what_the_one_before_writes():
    (circle,) = in_order(THREE, using="default", now=timezone.now()).circles
    assert sorted(circle) == ["count", "name", "points"]
    following = {"name": "count", "count": "points", "points": "name"}
    assert all(following[one] == other for one, other in zip(circle, [*circle[1:], circle[0]], strict=True))


def test_a_run_that_was_killed_between_two_rounds_settles_when_it_is_resumed():
    team = Team.objects.create(name="x", points=7, player_count=6)
    run, _ = repair(THREE)
    Team.objects.filter(pk=team.pk).update(points=3, name="bad")
    Run.objects.filter(pk=run.pk).update(state="stopped")
    Outcome.objects.filter(run=run, rule="count").update(state="repairing")
    Shard.objects.filter(outcome__run=run, outcome__rule="count").update(state="running", cursor=None)
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
    assert in_order({"alone": rule}, using="default", now=run.now).circles == []
