"""Which effects the rules cover, which are exempt, and what is named wrongly."""

import json
from contextlib import contextmanager

import jsonschema
import pytest
from django.contrib.auth.models import User
from django.db.models.signals import post_save, pre_save
from django.test.utils import override_settings

from reconcile import HaveValues, Rule
from reconcile.audit.coverage import State, coverage_of
from reconcile.audit.listing import audit_signals
from reconcile.conf import setting_faults
from reconcile.rules.invalid import InvalidRule
from sample_project.shop import signals as shop_signals
from sample_project.shop.models import Order
from tests.audit.test_effects import connected, handle
from tests.cli.test_cli import rules, run
from tests.helpers import ROOT
from tests.zoo.models import Parcel
from tests.zoo.tasks import greet

__all__ = ["rules"]

pytestmark = pytest.mark.once

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "coverage-1.json").read_text())
NAME = "tests.audit.test_effects.handle"


def unheard(**_):
    """A receiver that nothing connects."""


@contextmanager
def shop(**settings):
    with override_settings(RECONCILE={"RULES": ["rules"], **settings}):
        yield


def report(*arguments):
    code, out, _ = run("signals", "coverage", "--format", "json", *arguments)
    found = json.loads(out)
    jsonschema.validate(found, SCHEMA)
    return code, found


def coverage(*covers, exempt=None, models=(Parcel,), **options):
    rule = Rule(name="r", every=Parcel, must=HaveValues(state="open"), covers=covers)
    audit = audit_signals({"r": rule}, models)
    return coverage_of(audit, {"r": rule}, exempt or {}, **options)


def test_the_shop_is_covered():
    with shop():
        code, found = report("--fail-under", "100", "--fail-on", "warn")
        text = run("signals", "coverage")[1]
    assert (code, found["status"], found["covered"], found["total"], found["faults"]) == (
        0,
        "clean",
        17,
        17,
        [],
    )
    assert "17 of 17 effects covered by rules, 100 %." in text


def test_a_new_receiver_is_a_warning_and_one_that_decides_what_is_written_an_error():
    with shop(), connected(post_save, handle, Order):
        assert report()[0] == 0
        code, found = report("--fail-on", "warn")
        assert (code, found["status"], found["effects"][0]["effect"]) == (1, "warn", NAME)
        assert report("--fail-under", "95")[0] == 1
        assert report("--fail-under", "94")[0] == 0
        code, _, said = run("signals", "coverage", "--fail-under", "nan")
        assert (code, "is no number of 0 to 100" in said) == (2, True)
    with shop(), connected(pre_save, handle, Order):
        code, found = report()
        assert (code, found["status"], found["effects"][0]["state"]) == (1, "error", "uncovered")
        text = run("signals", "coverage")[1]
        assert "where it is skipped, wrong data stands in the record" in text
        assert "17 of 18 effects covered by rules, 94 %." in text


def test_an_exempt_effect_does_not_count_and_has_its_reason():
    with shop(EXEMPT={NAME: "It is a log."}), connected(pre_save, handle, Order):
        code, found = report("--fail-under", "100")
        assert (code, found["status"], found["total"]) == (0, "clean", 17)
        (exempt,) = [each for each in found["effects"] if each["state"] == "exempt"]
        assert exempt["reason"] == "It is a log."
        assert "It is a log." in run("signals", "coverage")[1]
        assert "1 exempt." in run("signals", "coverage")[1]


def test_an_exemption_of_what_is_no_effect_is_an_error():
    with shop(EXEMPT={"shop.signals.gone": "It was renamed."}):
        code, found = report()
    assert (code, found["status"]) == (1, "error")
    assert found["faults"] == [
        "settings.RECONCILE['EXEMPT'] names shop.signals.gone, and there is no such effect."
    ]


@pytest.mark.parametrize(
    ("function", "wrong"), [(unheard, True), (print, True), (len, True), (greet, False), (handle, False)]
)
def test_a_rule_covers_what_is_connected_a_method_or_a_task(function, wrong):
    with connected(post_save, handle, Parcel):
        found = coverage(function)
    assert bool(found.faults) is wrong
    assert (found.status == "error") is wrong


def test_an_override_is_covered_by_its_name(monkeypatch):
    def save(self, *args, **kwargs):
        """Override it."""

    monkeypatch.setattr(Parcel, "save", save)
    assert coverage().status == "error"
    assert coverage(save).status == "clean"
    assert coverage(Parcel.save).effects[0].state is State.COVERED


def test_third_parties_count_on_demand():
    own, all_of_them = coverage(), coverage(third_party=True)
    assert len(all_of_them.effects) > len(own.effects)
    assert coverage(models=()).percent == 100


def test_a_rule_that_can_not_be_used_is_said():
    rule = Rule(
        name="r", every=Parcel, must=HaveValues(stat="open"), covers=[shop_signals.handle_order_created]
    )
    invalid = InvalidRule.of(rule, tuple(rule.faults()), subject="It")
    found = coverage_of(audit_signals({"r": invalid}, [Parcel]), {"r": invalid}, {})
    assert found.status == "error"
    assert "Rule 'r' can't be used" in found.faults[0]


@pytest.mark.parametrize("exempt", [["a"], {"a": ""}, {"a": None}, {1: "reason"}, "a"])
def test_an_exemption_needs_a_reason(exempt):
    with override_settings(RECONCILE={"RULES": ["rules"], "EXEMPT": exempt}):
        (fault,) = setting_faults()
    assert "settings.RECONCILE['EXEMPT']" in fault.message
    with override_settings(RECONCILE={"RULES": ["rules"], "EXEMPT": {"a.b": "since it is a log"}}):
        assert not list(setting_faults())


def test_a_receiver_of_a_packages_model_counts_and_can_be_covered():
    with shop(), connected(post_save, handle, User):
        code, found = report("--fail-on", "warn")
        assert (code, found["effects"][0]["model"], found["effects"][0]["state"]) == (
            1,
            "auth.User",
            "uncovered",
        )
        assert not coverage(handle, models=None).faults
