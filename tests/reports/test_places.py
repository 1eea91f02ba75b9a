"""Where a rule stands: the line of the rule file that assigns it, whoever builds the rule."""

import sys

import pytest

from reconcile import HaveValues, Rule
from reconcile.core.declaration import Place
from reconcile.reports.findings import place
from reconcile.rules.registry import load
from tests.zoo.models import Basket

pytestmark = pytest.mark.once

HEAD = "from reconcile import HaveValues, Rule\nfrom tests.zoo.models import Basket\n"
HELPER = f"{HEAD}\n\ndef labelled(text):\n    return Rule(every=Basket, must=HaveValues(label=text))\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a package of rules."""

    def write(**modules):
        folder = tmp_path / "placed_rules"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        return folder

    yield write
    for name in [name for name in sys.modules if name.startswith("placed_rules")]:
        del sys.modules[name]


def loaded(settings):
    settings.RECONCILE = {"RULES": ["placed_rules"]}
    return load().rules


def test_a_rule_stands_where_it_is_assigned(package, settings):
    folder = package(own=f"{HEAD}\n\nr = Rule(\n    every=Basket,\n    must=HaveValues(label='x'),\n)\n")
    at = loaded(settings)["own.r"].declared_at
    assert at == Place(module="placed_rules.own", file=str(folder / "own.py"), line=5)


def test_a_rule_that_a_function_builds_stands_where_the_function_is_called(package, settings):
    folder = package(helper=HELPER, own="from placed_rules.helper import labelled\n\nr = labelled('x')\n")
    at = loaded(settings)["own.r"].declared_at
    assert at == Place(module="placed_rules.own", file=str(folder / "own.py"), line=3)


def test_a_rule_made_from_another_stands_where_it_is_made(package, settings):
    text = f"{HEAD}from dataclasses import replace\nr = Rule(every=Basket, must=HaveValues(label='x'))\ns = replace(r, owner='me')\n"
    package(own=text)
    rules = loaded(settings)
    assert (rules["own.r"].declared_at.line, rules["own.s"].declared_at.line) == (4, 5)


def test_a_rule_below_a_condition_stands_on_its_own_line(package, settings):
    package(own=f"{HEAD}if HaveValues:\n    r = Rule(every=Basket, must=HaveValues(label='x'))\n")
    assert loaded(settings)["own.r"].declared_at.line == 4


def test_a_name_in_a_function_is_not_the_module_s(package, settings):
    text = "r = Rule(every=Basket, must=HaveValues(label='x'))\n\ndef other():\n    r = 3\n    return r\n"
    package(own=HEAD + text)
    assert loaded(settings)["own.r"].declared_at.line == 3


def test_a_rule_that_the_registry_has_not_found_has_no_place():
    rule = Rule(every=Basket, must=HaveValues(label="x"))
    assert (rule.declared_at, place(rule)) == (None, None)


def test_a_place_is_said_from_the_working_directory_on(package, settings, monkeypatch, tmp_path):
    folder = package(own=f"{HEAD}r = Rule(every=Basket, must=HaveValues(label='x'))\n")
    rule = loaded(settings)["own.r"]
    assert place(rule) == (str(folder / "own.py"), 3)
    monkeypatch.chdir(tmp_path)
    assert place(rule) == ("placed_rules/own.py", 3)


def test_a_rule_whose_file_is_gone_has_no_place(tmp_path):
    at = Place(module="gone", file=str(tmp_path / "gone.py"), line=3)
    assert place(Rule(every=Basket, must=HaveValues(label="x"), declared_at=at)) is None
