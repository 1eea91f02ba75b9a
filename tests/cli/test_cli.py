import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from reconcile.cli import reconcile
from reconcile.models import Change, Outcome, Run, WorkItem
from reconcile.rules.registry import valid_rules
from sample_project.shop.models import Invoice, Order
from tests.helpers import ROOT, an_hour_ago, environment, everything, nightly, reconcile_command
from tests.processes import run_reconcile
from tests.zoo.models import Basket

HEAD = """
from django.db.models import F
from reconcile import HaveRow, HaveValues, Rule
from sample_project.shop.models import Invoice, Order
from tests.zoo.models import Basket, Bill, Ghost
"""


def run(*arguments):
    """The command line in this process: exit code, standard output, standard error."""
    result = CliRunner().invoke(reconcile, list(arguments), prog_name="reconcile", env={"COLUMNS": "160"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def run_json(*arguments):
    code, out, _ = run(*arguments, "--format", "json")
    return code, json.loads(out)


@pytest.fixture
def lacking(db):
    Order.objects.bulk_create([Order(created_at=an_hour_ago()) for _ in range(12)])
    return [str(key) for key in Order.objects.order_by("pk").values_list("pk", flat=True)]


@pytest.fixture
def rules(tmp_path, monkeypatch, settings):
    def write(text, **others):
        (tmp_path / "own_rules").mkdir()
        (tmp_path / "own_rules" / "__init__.py").touch()
        for name, content in {"own": text, **others}.items():
            (tmp_path / "own_rules" / f"{name}.py").write_text(HEAD + content)
        monkeypatch.syspath_prepend(tmp_path)
        settings.RECONCILE = {"RULES": ["own_rules"]}

    yield write
    for name in [name for name in sys.modules if name.startswith("own_rules")]:
        del sys.modules[name]


@pytest.mark.django_db
def test_a_clean_check_exits_with_0():
    Order.objects.create(created_at=an_hour_ago())
    code, out, err = run("check")
    assert (code, err) == (0, "")
    assert f"All clean: {len(valid_rules())} rules checked" in out


def test_drift_exits_with_1_and_shows_the_sentence_and_the_keys(lacking):
    code, out, _ = run("check", "orders.invoice")
    assert code == 1
    assert "Every order with not (status = 'draft') must have exactly 1 Invoice" in out
    assert f"{', '.join(lacking[:5])} and 7 more" in out
    assert "12 drifted rows in 1 of 1 rule" in out


@pytest.mark.once
def test_the_json_of_a_check_is_exactly_the_documented_object(lacking):
    code, report = run_json("check", "orders.invoice", "--samples", "2")
    assert code == 1
    assert list(report) == ["version", "run", "database", "status", "seconds", "rules"]
    (rule,) = report["rules"]
    seconds = rule.pop("seconds")
    assert isinstance(seconds, float)
    assert rule == {
        "rule": "orders.invoice", "status": "fail", "checked": 12, "settling": 0, "missing": 12, "stale": 0, "extra": 0,
        "guarantee": "constraint", "remarks": [], "error": None,
        "samples": [{"drift": "missing", "key": lacking[0]}, {"drift": "missing", "key": lacking[1]}],
    }  # fmt: skip
    assert (report["version"], report["database"], report["status"]) == (2, "default", "drift")


@pytest.mark.once
@pytest.mark.parametrize(("samples", "shown"), [("3", 3), ("keys", 5), ("off", 0), ("100", 12)])
def test_samples_are_so_many_keys_or_none(lacking, samples, shown):
    _, report = run_json("check", "orders.invoice", "--samples", samples)
    assert len(report["rules"][0]["samples"]) == shown
    assert report["rules"][0]["missing"] == 12


@pytest.mark.once
def test_samples_off_names_no_key_in_text_either(lacking):
    code, out, _ = run("check", "orders.invoice", "--samples", "off")
    assert code == 1
    assert "missing 12" in " ".join(out.split())
    assert " and 7 more" not in out


@pytest.mark.once
def test_selecting_by_tag_and_owner(lacking):
    _, report = run_json("check", "--select", "tag:money", "--select", "owner:billing")
    assert [rule["rule"] for rule in report["rules"]] == ["items.archived_charges", "orders.invoice"]


@pytest.mark.once
def test_young_records_are_said_to_be_left_alone(db):
    Order.objects.create()
    Invoice.objects.all().delete()
    code, out, _ = run("check", "orders.invoice", "--allow-empty")
    assert code == 0
    assert "1 record left alone: too young to be judged" in out


@pytest.mark.once
@pytest.mark.parametrize(("fail_on", "code"), [("error", 0), ("warn", 1)])
def test_a_warning_fails_only_on_demand(db, rules, fail_on, code):
    rules("r = Rule(every=Basket, must=HaveValues(label='x'), warn_if=0)")
    Basket.objects.create()
    got, report = run_json("check", "--fail-on", fail_on)
    assert (got, report["status"], report["rules"][0]["status"]) == (code, "warn", "warn")
    assert run("check", "--fail-on", fail_on)[0] == code


@pytest.mark.django_db(transaction=True)
def test_a_rule_that_cannot_be_evaluated_exits_with_3_which_outranks_drift(rules):
    rules(
        "a = Rule(every=Ghost, must=HaveValues(value=1))\nb = Rule(every=Basket, must=HaveValues(label='x'))"
    )
    Basket.objects.create()
    code, report = run_json("check")
    assert (code, report["status"]) == (3, "error")
    assert [rule["status"] for rule in report["rules"]] == ["error", "fail"]
    assert "migrate" in report["rules"][0]["error"]
    code, out, _ = run("check")
    assert code == 3
    assert "1 rule could not be evaluated." in out
    assert run("repair")[0] == run("repair", "--apply")[0] == 3


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "orders.invioce"], "There is no rule 'orders.invioce'. Did you mean 'orders.invoice'?"),
        (["check", "--select", "tag:mony"], "Did you mean 'money'?"),
        (["check", "--select", "money"], "is none of tag:NAME"),
        (["check", "--database", "defualt"], "There is no database 'defualt'. Did you mean 'default'?"),
        (["check", "--sampels", "3"], "--samples"),
        (["check", "--samples", "some"], "is none of a number, 'keys' and 'off'"),
        (["check", "--fail-on", "never"], "is not one of"),
        (["check", "--format", "yaml"], "is not one of"),
        (["check", "--output", "/no/such/folder/report"], "is not in a folder that exists"),
        (["repair", "--max-repairs", "²"], "is neither a count such as 100 nor a percent"),
        (["repair", "nothing"], "There is no rule 'nothing'."),
        (["explain", "orders.invoic"], "Did you mean 'orders.invoice'?"),
        (["rules", "orders.invoic"], "Did you mean 'orders.invoice'?"),
        (["runs", "resume", "zzzz"], "There is no run 'zzzz'."),
        (["runs", "zzzz"], "There is no run 'zzzz'."),
        (["chekc"], "No such command"),
    ],
)
@pytest.mark.django_db
def test_bad_usage_exits_with_2_and_names_the_way_out(arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in " ".join(err.replace("│", " ").split()), err


FAULTY = "a = Rule(every=Order, must=HaveValues(totl=1), owner='sales')\nb = Rule(every=3, must=4)\n"
GOOD = "fine = Rule(every=Order, must=HaveValues(item_count=0))\n"
LACKS = "HaveValues: shop.Order has no column 'totl'. Did you mean 'total'?"


@pytest.mark.once
def test_rules_that_cannot_be_used_are_errors_beside_those_that_were_checked(db, rules):
    rules(FAULTY + GOOD)
    Order.objects.create()
    code, report = run_json("check")
    found = {each["rule"]: each for each in report["rules"]}
    assert (code, report["status"]) == (3, "error")
    assert (found["own.fine"]["status"], found["own.fine"]["checked"]) == ("pass", 1)
    assert found["own.a"]["status"] == found["own.b"]["status"] == "error"
    assert LACKS in found["own.a"]["error"]
    assert "every= is 3." in found["own.b"]["error"]
    code, out, _ = run("check")
    assert code == 3
    assert "3 rules" in out
    assert "2 can't be evaluated" in out or "could not be evaluated" in out


@pytest.mark.once
def test_a_rule_that_cannot_be_used_and_is_named_is_an_error(db, rules):
    rules(FAULTY + GOOD)
    Order.objects.create()
    assert run("check", "own.fine")[0] == 0
    assert run("check", "own.a")[0] == 3
    assert run("check", "--select", "owner:sales")[0] == 3
    code, _, err = run("explain", "own.a")
    assert code == 3
    assert LACKS in " ".join(err.split())


def test_a_repair_goes_on_with_the_rules_that_can_be_used(db, rules):
    rules(FAULTY + "wrong = Rule(every=Order, must=HaveValues(item_count=7))\n")
    Order.objects.create()
    code, report = run_json("repair", "--apply")
    done = {each["rule"]: each for each in report["rules"]}
    assert code == 3
    assert done["own.wrong"]["written"]["update"] == 1
    assert LACKS in done["own.a"]["error"]
    assert Order.objects.get().item_count == 7


def test_the_night_goes_on_with_the_rules_that_can_be_used(db, rules):
    rules(FAULTY + "wrong = Rule(every=Order, must=HaveValues(item_count=7), unattended=True)\n")
    Order.objects.create()
    assert nightly()["written"] == 1
    assert {outcome.rule: bool(outcome.error) for outcome in Outcome.objects.all()} == {
        "own.a": True, "own.b": True, "own.wrong": False,
    }  # fmt: skip


@pytest.mark.once
def test_rules_check_says_whether_all_rules_can_be_used(db, rules):
    rules(FAULTY + GOOD)
    code, out, err = run("rules", "--check")
    assert (code, out) == (2, "")
    assert f"reconcile.E013  Rule 'own.a': {LACKS}" in err
    assert "Rule 'own.b': every= is 3." in err
    code, out, _ = run("rules")
    assert code == 3
    assert "It can't be used: Rule 'own.b': every= is 3." in " ".join(out.split())
    assert out.splitlines()[-1] == "3 rules. 2 of them can't be used."
    code, report = run_json("rules")
    assert code == 3
    assert [bool(each["error"]) for each in report["rules"]] == [False, True, True]
    code, _, err = run("rules", "--format", "markdown")
    assert (code, "own.a" in err) == (2, True)


@pytest.mark.once
def test_rules_check_of_good_rules_passes(db, rules):
    rules(GOOD)
    code, out, err = run("rules", "--check")
    assert (code, out) == (0, "")
    assert "1 rule can be used." in err


def test_rules_check_finds_what_shows_only_when_a_rule_is_compiled(db, rules):
    rules(
        "class Odd(HaveValues):\n    def finders(self, source):\n        raise LookupError('no such thing')\n"
        "odd = Rule(every=Order, must=Odd(item_count=0))\n" + GOOD
    )
    code, _, err = run("rules", "--check")
    assert code == 2
    assert "Rule 'own.odd': it can't be compiled: LookupError: no such thing" in " ".join(err.split())
    assert run("check")[0] == 3


def test_a_file_that_raises_stops_its_own_rules_alone(db, rules):
    rules(
        GOOD,
        other=GOOD + "1 / 0\nlater = Rule(every=Order, must=HaveValues(item_count=0))\n",
        third="r = Rule(every=\n",
    )
    code, report = run_json("check")
    found = {each["rule"]: each for each in report["rules"]}
    assert code == 3
    assert {name: each["status"] for name, each in found.items()} == {
        "own.fine": "skipped", "other": "error", "other.fine": "error", "other.later": "error", "third": "error",
    }  # fmt: skip
    assert found["other.fine"]["error"].startswith("Its file can't be used: Rule module")
    assert "can't be imported: ZeroDivisionError" in found["other.fine"]["error"]
    assert found["third"]["error"].startswith("The file can't be used: ")
    assert "SyntaxError" in found["third"]["error"]


@pytest.mark.once
def test_no_rules_exit_with_2(settings):
    settings.RECONCILE = {"RULES": []}
    code, _, err = run("check")
    assert code == 2
    assert 'Set RECONCILE = {"RULES": ["rules"]}' in err


def test_a_repair_without_apply_prints_the_plan_and_writes_nothing(lacking):
    before = everything()
    code, out, _ = run("repair", "orders.invoice")
    assert code == 0
    assert "12 rows would be written. Nothing has been: add --apply to write." in out
    code, report = run_json("repair", "orders.invoice")
    assert (code, report["applied"], report["run"]) == (0, False, None)
    assert everything() == before
    assert (Run.objects.count(), Change.objects.count()) == (0, 0)


def test_the_json_of_a_repair_says_what_was_planned_written_left_and_skipped(lacking):
    code, report = run_json("repair", "orders.invoice", "--apply")
    nothing = {"insert": 0, "update": 0, "delete": 0, "called": 0, "enqueued": 0}
    (rule,) = report["rules"]
    assert (code, report["applied"], report["status"]) == (0, True, "clean")
    assert rule["planned"] == rule["written"] == {**nothing, "insert": 12}
    assert (rule["left"], rule["skipped"], rule["why_stopped"], rule["error"]) == (0, 0, None, None)
    assert Invoice.objects.count() == 12
    assert str(Run.objects.get().pk) == report["run"]


def test_a_repair_that_was_applied_says_so_and_a_second_one_writes_nothing(lacking):
    code, out, _ = run("repair", "--apply")
    assert code == 0
    assert "24 rows written" in out
    assert "Verified." in out
    code, out, _ = run("repair", "--apply")
    assert (code, "0 rows written" in out) == (0, True)
    assert "Nothing to repair." in run("repair")[1]


def test_a_cap_exits_with_4_before_the_first_write(lacking):
    for arguments in (["--max-repairs", "11"], ["--max-repairs", "50%"], ["--max-repairs", "11", "--apply"]):
        code, out, _ = run("repair", "orders.invoice", *arguments)
        assert code == 4, out
        assert "12 repairs are planned, and the cap is" in out
    assert not Invoice.objects.exists()
    assert run("repair", "orders.invoice", "--max-repairs", "12", "--apply")[0] == 0


def test_an_incomplete_repair_exits_with_4_and_says_why(db, rules):
    rules(
        "r = Rule(every=Basket, must=HaveRow(Bill, link={'basket_number': F('quantity')}, count=1, "
        "create_only={'kind': 'k'}, where=__import__('django').db.models.Q(kind='other')))"
    )
    Basket.objects.create()
    code, out, _ = run("repair", "--apply")
    assert code == 4
    assert "is not found by its link" in out
    assert "Incomplete: own.r." in out


@pytest.mark.django_db
def test_extra_rows_are_said_to_be_left(rules):
    rules(
        "r = Rule(every=Order.objects.none(), must=HaveRow(Invoice, link={'order': F('pk')}, values={'amount': 1}))"
    )
    order = Order.objects.create()
    code, out, _ = run("repair", "--apply")
    assert code == 1
    assert "1 drifted row is left to people, so that a check fails." in out
    assert f"1 extra row reported, not touched: {order.invoice.pk}" in out


@pytest.mark.django_db(transaction=True)
def test_a_rule_that_another_run_holds_exits_with_75(transactional_db):
    Order.objects.bulk_create([Order(created_at=an_hour_ago())])
    other = Run.objects.create(kind="repair", now=timezone.now())
    holder = Outcome.objects.create(
        run=other, rule="orders.invoice", position=0, state="repairing", leased="orders.invoice"
    )
    WorkItem.objects.create(outcome=holder, drift="missing", token=other.pk)
    code, out, _ = run("repair", "orders.invoice", "--apply")
    assert code == 75
    assert f"reconcile runs resume {str(other.pk)[:8]}" in " ".join(out.split())


@pytest.mark.once
def test_output_goes_to_a_file_whole_or_not_at_all(lacking, tmp_path):
    for form in ("text", "json"):
        path = tmp_path / form
        code, out, _ = run("check", "--format", form, "--output", str(path))
        assert (code, out) == (1, "")
        assert "orders.invoice" in path.read_text()
    assert json.loads((tmp_path / "json").read_text())["version"] == 2
    assert "\x1b[" not in (tmp_path / "text").read_text()
    before = (tmp_path / "json").read_text()
    assert run("check", "nosuch", "--output", str(tmp_path / "json"))[0] == 2
    assert run("runs", "zzz", "--output", str(tmp_path / "json"))[0] == 2
    assert (tmp_path / "json").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["json", "text"]


@pytest.mark.once
@pytest.mark.django_db
def test_output_goes_through_a_device_and_never_onto_a_folder(tmp_path):
    assert run("check", "--allow-empty", "--output", "/dev/null")[0] == 0
    assert Path("/dev/null").is_char_device()
    for place in (str(tmp_path), "", str(tmp_path / "none" / "file")):
        code, _, err = run("check", "--output", place)
        assert code == 2, err


@pytest.mark.once
@pytest.mark.django_db
def test_an_error_in_the_package_itself_is_shown_whole_and_exits_with_3(settings):
    settings.RECONCILE = type("Odd", (dict,), {"get": lambda *_: 1 / 0})(RULES=["rules"])
    code, _, err = run("check")
    assert code == 3
    assert "ZeroDivisionError" in err


def test_an_interrupted_check_exits_with_130(db, rules):
    rules(
        """
from dataclasses import replace
from reconcile.core.scopes import Window

class Stop(HaveValues):
    def finders(self, source):
        def find(scope):
            if scope != Window():
                raise KeyboardInterrupt
            return source.records(scope)

        return tuple(replace(finder, query=find) for finder in super().finders(source))

r = Rule(every=Basket, must=Stop(label='x'))
"""
    )
    Basket.objects.create()
    code, _, err = run("check")
    assert (code, err) == (130, "Interrupted.\n")
    code, _, err = run("repair", "--apply")
    assert code == 4
    assert f"Go on with: reconcile runs resume {Run.objects.get()}" in err


@pytest.mark.once
def test_the_project_s_own_prints_and_logs_never_reach_standard_output(lacking, rules):
    rules("print('printed while imported')\nr = Rule(every=Order, must=HaveValues(item_count=0))")
    structlog.reset_defaults()
    code, out, err = run("--verbose", "check", "--format", "json")
    assert code == 0
    assert json.loads(out)["status"] == "clean"
    assert "printed while imported" in err
    assert "rule_checked" in err
    assert "rule=own.r" in err.replace("\x1b[0m", "").replace("\x1b[36m", "").replace("\x1b[35m", "")


@pytest.mark.once
def test_without_verbose_nothing_is_logged(lacking):
    structlog.reset_defaults()
    assert run("check")[2] == ""


@pytest.mark.once
@pytest.mark.django_db
def test_rules_lists_sentences_and_json():
    code, out, _ = run("rules")
    assert code == 0
    assert f"{len(valid_rules())} rules." in out
    assert "The name is copied so that lists of orders need no join." in out
    code, report = run_json("rules", "--select", "tag:money")
    assert code == 0
    assert [rule["rule"] for rule in report["rules"]] == ["items.archived_charges", "orders.invoice"]
    assert report["rules"][1]["owner"] == "billing"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "rule", ["orders.invoice", "orders.total", "groups.access", "items.archived_charges"]
)
def test_explain_prints_the_sentence_the_sql_the_plan_and_the_guarantee(rule):
    code, out, _ = run("explain", rule)
    assert code == 0
    assert "must have" in out
    assert "Guarantee constraint" in out
    assert "SELECT" in out
    assert "remedy" in out
    assert {"sqlite": "SEARCH ", "postgresql": "(cost=", "mysql": "SIMPLE"}[connection.vendor] in out.replace(
        "SCAN ", "SEARCH "
    ).replace("PRIMARY", "SIMPLE")


@pytest.mark.django_db
def test_explain_says_what_settles_and_what_reaches_the_whole_table():
    assert "Records younger than 0:15:00 by created_at are left alone." in run("explain", "orders.invoice")[1]
    assert "in one statement over the whole table" in run("explain", "groups.access")[1]


@pytest.mark.django_db
def test_runs_lists_runs_and_shows_one(lacking):
    assert "There are no runs yet." in run("runs")[1]
    run("repair", "orders.invoice", "--apply")
    key = str(Run.objects.get().pk)
    code, out, _ = run("runs")
    assert code == 0
    assert key[:8] in out
    code, out, _ = run("runs", key[:6])
    assert (code, "finished" in out, "orders.invoice" in out) == (0, True, True)
    assert run_json("runs")[1]["runs"][0]["run"] == key
    (rule,) = run_json("runs", key)[1]["rules"]
    assert rule["planned"] == rule["written"]
    assert rule["written"]["insert"] == 12


@pytest.mark.django_db
def test_runs_says_of_a_dead_one_how_to_go_on():
    run_of_then = {"now": an_hour_ago(), "started_at": an_hour_ago(), "heartbeat": an_hour_ago()}
    dead = Run.objects.create(kind="nightly", **run_of_then)
    Outcome.objects.create(run=dead, rule="x", position=0, why_stopped="because")
    assert f"reconcile runs resume {str(dead.pk)[:8]}" in run("runs")[1]
    assert "x  because" in run("runs", str(dead.pk))[1]
    Run.objects.update(state="stopped", why_stopped="somebody pressed a key")
    assert "somebody pressed a key" in run("runs", str(dead.pk))[1]
    assert f"stopped. Go on with it: reconcile runs resume {dead}" in run("runs")[1]


@pytest.mark.django_db
def test_a_run_that_goes_on_for_long_is_not_said_to_be_dead():
    long = Run.objects.create(kind="repair", now=an_hour_ago(), started_at=an_hour_ago())
    outcome = Outcome.objects.create(run=long, rule="x", position=0, state="repairing")
    WorkItem.objects.create(outcome=outcome, drift="missing", token=long.pk)
    for arguments in (["runs"], ["runs", str(long)]):
        code, out, _ = run(*arguments)
        assert (code, "running" in out, "no sign of life" in out) == (0, True, False)


@pytest.mark.once
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("paused", "paused. Go on with it: reconcile runs resume"),
        ("pausing", "Go on with it: reconcile runs resume"),
        ("cancelling", "End it: reconcile runs cancel"),
        ("cancelled", ""),
        ("finished", ""),
    ],
)
def test_runs_says_what_can_be_done_with_a_run_in_each_state(state, said):
    run_of_then = {"now": an_hour_ago(), "started_at": an_hour_ago(), "heartbeat": an_hour_ago()}
    Run.objects.create(kind="repair", state=state, **run_of_then)
    out = " ".join(run("runs")[1].split())
    assert said in out
    assert ("reconcile runs resume" in out, "no sign of life" in out) == (
        "resume" in said,
        state in {"pausing", "cancelling"},
    )


@pytest.mark.django_db
def test_a_run_that_gives_a_sign_of_life_while_it_pauses_is_left_to_itself():
    Run.objects.create(kind="repair", state="pausing", now=an_hour_ago(), started_at=an_hour_ago())
    out = run("runs")[1]
    assert ("pausing" in out, "reconcile runs resume" in out) == (True, False)


@pytest.mark.django_db
def test_resume_goes_on_with_a_stopped_run(lacking):
    stopped = Run.objects.create(kind="repair", now=timezone.now(), state="stopped")
    Outcome.objects.create(run=stopped, rule="orders.invoice", position=0, may_repair=True)
    code, out, _ = run("runs", "resume", str(stopped.pk)[:8])
    assert code == 0
    assert "12 rows written" in out


@pytest.mark.django_db
def test_the_management_command_is_the_same_group(lacking, capsys):
    with pytest.raises(CommandError) as raised:
        call_command("reconcile", "check", "--format", "json")
    assert raised.value.returncode == 1
    assert json.loads(capsys.readouterr().out)["status"] == "drift"
    call_command("reconcile", "rules")


@pytest.mark.once
@pytest.mark.process
@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["repair", "-h"], ["--version"]])
def test_help_needs_no_settings(arguments):
    bare = {"PATH": os.environ["PATH"]}
    done = run_reconcile(*arguments, env=bare)
    assert done.returncode == 0, done.stderr


@pytest.mark.once
@pytest.mark.process
@pytest.mark.parametrize(
    ("settings_module", "said"),
    [
        (None, "DJANGO_SETTINGS_MODULE is not set, and no manage.py"),
        ("no_such.settings", "can't be read: ModuleNotFoundError"),
        ("tests.broken_settings", "can't be read: ZeroDivisionError"),
        ("tests.bare_settings", "don't have 'reconcile' in INSTALLED_APPS"),
    ],
)
def test_settings_that_cannot_be_used_exit_with_2(settings_module, said, tmp_path):
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    if settings_module:
        bare["DJANGO_SETTINGS_MODULE"] = settings_module
    done = run_reconcile("check", env=bare, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.once
@pytest.mark.process
def test_an_unreachable_database_exits_with_3_and_writes_nothing(tmp_path):
    nowhere = environment(DATABASE_URL=f"sqlite:///{tmp_path}/no/such/folder/db.sqlite3")
    for arguments in (["check"], ["repair"], ["repair", "--apply"], ["runs"], ["explain", "orders.invoice"]):
        done = run_reconcile(*arguments, env=nowhere)
        assert done.returncode == 3, done
        assert "can't be reached" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once
@pytest.mark.process
def test_a_database_that_was_never_migrated_exits_with_3_and_says_to_migrate(tmp_path):
    empty = environment(DATABASE_URL=f"sqlite:///{tmp_path}/db.sqlite3")
    for arguments in (["check"], ["repair", "--apply"], ["runs"]):
        done = run_reconcile(*arguments, env=empty)
        assert done.returncode == 3, done
        assert "manage.py migrate" in done.stdout + done.stderr


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_the_command_and_manage_py_as_processes(transactional_db):
    Order.objects.bulk_create([Order(created_at=an_hour_ago())])
    for command in (
        reconcile_command("--settings", "tests.settings", "check", "--format", "json"),
        [sys.executable, "manage.py", "reconcile", "check", "--format", "json"],
    ):
        done = subprocess.run(
            command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done.stderr
        assert json.loads(done.stdout)["status"] == "drift"


def on_a_terminal(*arguments):
    """What the command prints when standard error is a terminal, and its exit code."""
    master, terminal = pty.openpty()
    settings = environment(TERM="xterm", COLUMNS="100")
    with subprocess.Popen(
        reconcile_command(*arguments),
        env=settings,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    ) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):
            while piece := os.read(master, 65_536):
                shown += piece
        os.close(master)
        return process.wait(), shown.decode(), process.stdout.read()


@pytest.mark.once
@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_progress_is_shown_on_a_terminal_and_never_on_standard_output():
    Order.objects.bulk_create([Order(created_at=an_hour_ago()) for _ in range(3)])
    code, shown, out = on_a_terminal("check", "--format", "json")
    assert (code, json.loads(out)["status"]) == (1, "drift")
    assert "checking" in shown
    code, shown, out = on_a_terminal("repair", "orders.invoice", "--apply", "--format", "json")
    assert (code, json.loads(out)["applied"]) == (0, True)
    assert "repairing" in shown
