"""`reconcile signals coverage accept`: what a rule covers is compared with what it was when somebody looked at both."""

import json
from dataclasses import replace

import jsonschema
import pytest
from django.test.utils import override_settings

from reconcile.audit.accepted import changes_since, fingerprints
from reconcile.rules.registry import project_rules
from sample_project.shop import services
from tests.cli.test_cli import run, run_json
from tests.helpers import ROOT

pytestmark = pytest.mark.once

SHOP = override_settings(RECONCILE={"RULES": ["rules"]})
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "coverage-1.json").read_text())
CREATED = "sample_project.shop.signals.handle_order_created"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "covered.toml"


def accept(file, *names):
    return run("signals", "coverage", "accept", *names, "--accepted", str(file))


def report(file):
    return run_json("signals", "coverage", "--accepted", str(file))


@SHOP
def test_what_is_as_it_was_accepted_is_clean(file):
    code, out, _ = accept(file, "orders.invoice", "orders.total")
    assert (code, "2 rules accepted" in out) == (0, True)
    code, found = report(file)
    jsonschema.validate(found, SCHEMA)
    assert (code, found["changed"]) == (0, [])


@SHOP
def test_a_function_that_has_changed_is_named_with_the_rule_that_covers_it(file):
    accept(file, "orders.invoice", "orders.total")
    text = file.read_text()
    line = next(each for each in text.splitlines() if CREATED in each)
    file.write_text(text.replace(line, f'"{CREATED}" = "other"'))
    code, found = report(file)
    assert (code, found["status"]) == (1, "error")
    assert found["changed"] == [{"rule": "orders.invoice", "function": CREATED, "how": "changed"}]
    _, out, _ = run("signals", "coverage", "--accepted", str(file))
    assert f"{CREATED} has changed since orders.invoice was accepted." in " ".join(out.split())
    accept(file, "orders.invoice")
    assert report(file)[0] == 0
    assert "orders.total" in file.read_text(), "other rules stay as they were accepted"


@SHOP
def test_functions_that_the_receiver_calls_count_too(file):
    accept(file, "orders.invoice")
    assert '"sample_project.shop.services.invoice_order"' in file.read_text()


def test_new_and_gone_functions_are_told():
    before, now = {"a": {"f": "1", "g": "1"}}, {"a": {"f": "1", "h": "1"}}
    assert [(each.function, each.how) for each in changes_since(before, now)] == [("g", "gone"), ("h", "new")]
    assert ["isn't run any more" in str(each) for each in changes_since(before, now)] == [True, False]


@SHOP
def test_comments_lines_and_docstrings_are_no_change(tmp_path, monkeypatch):
    from reconcile.audit import sources

    one = {"orders.invoice": project_rules()["orders.invoice"]}
    before = fingerprints(one)
    read = sources.Sources.read

    def with_comments(self, path):
        text = read(self, path)
        return (
            text.replace(b'    """Make the invoice and', b'    # A comment.\n    """Make one invoice and')
            if path.endswith("signals.py")
            else text
        )

    monkeypatch.setattr(sources.Sources, "read", with_comments)
    assert fingerprints(one) == before


@SHOP
def test_a_rule_that_covers_nothing_cannot_be_accepted(file):
    names = [name for name, rule in project_rules().items() if not rule.covers]
    code, _, err = accept(file, names[0])
    assert code == 2
    assert "covers nothing" in err
    assert not file.exists()


def test_a_task_that_a_rule_covers_has_a_fingerprint_with_those_that_it_calls():
    covering = replace(
        project_rules()["orders.invoice"], covers=[services.tell_storefront, services.archive_items]
    )
    found = fingerprints({"some": covering})["some"]
    assert {each.rpartition(".")[2] for each in found} == {
        "tell_storefront",
        "archive_items",
        "withdraw_items",
    }
    assert all(found.values())


@SHOP
@pytest.mark.parametrize(
    "text", ["", "version = 2", "version = 1\nrule = 3", "version = 1\n[rule.a]\nf = 1", "["]
)
def test_a_file_that_cannot_be_used_is_refused(file, text):
    file.write_text(text)
    code, _, err = run("signals", "coverage", "--accepted", str(file))
    assert code == 2
    assert "can't be used" in err


@SHOP
def test_a_rule_that_is_gone_is_told(file):
    file.write_text("version = 1\n[rule.'orders.nothing']\nf = '1'\n")
    code, _, err = run("signals", "coverage", "--accepted", str(file))
    assert code == 2
    assert "There is no rule 'orders.nothing'" in err


@SHOP
def test_a_file_that_was_named_has_to_be_there(file):
    code, _, err = run("signals", "coverage", "--accepted", str(file))
    assert code == 2
    assert "reconcile signals coverage accept RULE" in err


@SHOP
def test_what_was_accepted_is_told_to_machines(file):
    code, found = run_json("signals", "coverage", "accept", "orders.invoice", "--accepted", str(file))
    jsonschema.validate(found, json.loads((ROOT / "docs" / "schemas" / "accepted-1.json").read_text()))
    assert (code, CREATED in found["accepted"]["orders.invoice"]) == (0, True)
