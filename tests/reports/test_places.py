"""Where a rule stands: the line of the rule file, whoever builds the rule."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reconcile.declaring import Place
from reconcile.registry import load
from reconcile.reports._saying import place
from tests.reports.reading import owed

HEAD = "from reconcile import HaveValues, Rule\nfrom tests.zoo.models import Basket\n"
HELPER = f"{HEAD}\n\ndef labelled(text):\n    return Rule(every=Basket, must=HaveValues(label=text))\n"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a package of rules, and import it."""

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


def test_a_rule_stands_where_its_call_begins(package):
    folder = package(own=f"{HEAD}\n\nr = Rule(\n    every=Basket,\n    must=HaveValues(label='x'),\n)\n")
    rule = importlib.import_module("placed_rules.own").r
    assert rule.declared_at == Place(str(folder / "own.py"), 5)


def test_a_rule_that_a_function_builds_stands_where_the_function_is_called(package):
    folder = package(helper=HELPER, own="from placed_rules.helper import labelled\n\nr = labelled('x')\n")
    assert importlib.import_module("placed_rules.own").r.declared_at == Place(str(folder / "own.py"), 3)


def test_a_rule_made_from_another_stands_where_it_is_made(package):
    text = f"{HEAD}from dataclasses import replace\nr = Rule(every=Basket, must=HaveValues(label='x'))\ns = replace(r, owner='me')\n"
    package(own=text)
    module = importlib.import_module("placed_rules.own")
    assert (module.r.declared_at.line, module.s.declared_at.line) == (4, 5)


def test_a_rule_that_is_built_while_nothing_is_imported_stands_in_its_caller():
    here = replace(owed, owner="me").declared_at
    assert here.file == __file__
    assert "replace(owed" in Path(__file__).read_text().splitlines()[here.line - 1]


def test_the_registry_keeps_a_rule_s_place(package, settings):
    package(own=f"{HEAD}r = Rule(every=Basket, must=HaveValues(label='x'))\n")
    settings.RECONCILE = {"RULES": ["placed_rules"]}
    assert load().rules["own.r"].declared_at.line == 3


def test_a_place_is_said_from_the_working_directory_on(package, monkeypatch, tmp_path):
    folder = package(own=f"{HEAD}r = Rule(every=Basket, must=HaveValues(label='x'))\n")
    rule = importlib.import_module("placed_rules.own").r
    assert place(rule) == (str(folder / "own.py"), 3)
    monkeypatch.chdir(tmp_path)
    assert place(rule) == ("placed_rules/own.py", 3)


def test_a_rule_of_no_file_has_no_place():
    names = {}
    exec(f"{HEAD}r = Rule(every=Basket, must=HaveValues(label='x'))", names)
    assert place(names["r"]) is None
