"""The verbs and their groups: what is chosen, where help and settings come from, and what reaches a terminal."""

import re
import shlex
import subprocess

import click
import pytest
from django.db.models import F
from django.utils import timezone

from reconcile import HaveRow, HaveValues, Rule
from reconcile.cli import reconcile
from reconcile.models import Run
from reconcile.reports import graph
from reconcile.rules.order import sort_rules
from reconcile.rules.registry import valid_rules
from sample_project.shop.models import Order
from tests.cli.test_cli import lacking, rules, run, run_json
from tests.helpers import ROOT, an_hour_ago, environment, reconcile_command
from tests.processes import run_reconcile
from tests.zoo.models import Basket, Bill

__all__ = ["lacking", "rules"]

pytestmark = pytest.mark.once

# Which rules, and where they are.


def rules_of(*arguments):
    return {each["rule"] for each in run_json("check", "--allow-empty", *arguments)[1]["rules"]}


@pytest.mark.django_db
def test_rules_are_selected_by_app_and_excluded_by_anything():
    every = rules_of()
    assert rules_of("--select", "app:shop") == every
    assert rules_of("--exclude", "orders.invoice") == every - {"orders.invoice"}
    assert rules_of("--exclude", "owner:billing") == every - {"orders.invoice", "items.archived_charges"}
    orders = {name for name, rule in valid_rules().items() if rule.model_label == "shop.Order"}
    assert rules_of("--exclude", "model:shop.Order", "--exclude", "notes.target") == every - orders - {
        "notes.target"
    }
    assert rules_of("orders.invoice", "orders.total", "--exclude", "tag:money") == {"orders.total"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--exclude", "orders.invioce"], "Did you mean 'orders.invoice'?"),
        (["--exclude", "app:shpo"], "There is no rule about app 'shpo'. Did you mean 'shop'?"),
        (
            ["--exclude", "colour:red"],
            "--exclude 'colour:red' is none of tag:NAME, owner:NAME, model:APP.MODEL and app:APP.",
        ),
        (
            ["--select", "app:shop", "--exclude", "app:shop"],
            "No rule matches --select app:shop --exclude app:shop.",
        ),
        ([""], "There is no rule ''. `reconcile rules` lists them."),
    ],
)
@pytest.mark.django_db
def test_what_is_excluded_must_be_there_and_leave_something(arguments, said):
    code, _, err = run("check", *arguments)
    assert (code, said in err) == (2, True), err
    assert "Did you mean ''" not in err


def test_a_hint_repeats_what_is_excluded(lacking):
    assert "reconcile repair --exclude orders.total" in run("check", "--exclude", "orders.total")[1]


@pytest.mark.process
def test_the_settings_are_those_of_the_manage_py_here_or_above(tmp_path):
    project = tmp_path / "project"
    (project / "deep" / "er").mkdir(parents=True)
    (project / "manage.py").write_text(
        'import os\nif __name__ == "__main__":\n    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "their_settings")\n'
    )
    (project / "their_settings.py").write_text("INSTALLED_APPS = []\n")
    own = {name: value for name, value in environment().items() if name != "DJANGO_SETTINGS_MODULE"}
    for folder in (project, project / "deep" / "er"):
        done = run_reconcile("rules", env=own, cwd=folder)
        assert (done.returncode, "Settings 'their_settings' don't have 'reconcile'" in done.stderr) == (
            2,
            True,
        ), done.stderr
    nowhere = run_reconcile("rules", env=own, cwd=tmp_path)
    assert (nowhere.returncode, "no manage.py in this folder or above names one" in nowhere.stderr) == (
        2,
        True,
    )
    (project / "manage.py").write_text(
        'import os, sys\nname = "DJANGO_SETTINGS_MODULE"\nif "test" in sys.argv:\n'
        '    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "of_tests")\n'
        'else:\n    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "their_settings")\n'
    )
    done = run_reconcile("rules", env=own, cwd=project)
    assert (done.returncode, "names several settings modules: of_tests, their_settings" in done.stderr) == (
        2,
        True,
    )
    done = run_reconcile("--settings", "their_settings", "rules", env=own, cwd=project)
    assert "Settings 'their_settings' don't have 'reconcile'" in done.stderr
    (project / "manage.py").write_text("not python (")
    assert run_reconcile("rules", env=own, cwd=project).returncode == 2


def leaves(group, words=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield [*words, name]
            yield from leaves(command, (*words, name))
        else:
            yield [*words, name]


@pytest.mark.process
def test_help_goes_to_standard_output_of_every_verb(tmp_path):
    nowhere = {name: value for name, value in environment().items() if name != "DJANGO_SETTINGS_MODULE"}
    for words in ([], *leaves(reconcile)):
        code, out, err = run(*words, "--help")
        assert (code, err, "Usage: reconcile" in out) == (0, "", True), words
    done = run_reconcile("undo", "--help", env=nowhere, cwd=tmp_path)
    assert (done.returncode, "Usage: reconcile undo" in done.stdout, done.stderr) == (0, True, "")


def test_the_verbs_stand_in_their_groups():
    out = run("--help")[1]
    places = [out.index(title) for title in ("Look and mend", "Rules", "The night")]
    assert places == sorted(places)
    for name in reconcile.commands:
        assert re.search(rf"│ {name} ", out), name


def test_a_word_before_a_run_or_a_rule_may_be_left_out(lacking):
    run("repair", "orders.invoice", "--apply")
    one = str(Run.objects.get())
    assert run("runs")[1] == run("runs", "list")[1]
    assert run("runs", one)[1] == run("runs", "show", one)[1]
    assert run("rules", "orders.invoice")[1] == run("rules", "list", "orders.invoice")[1]
    assert run("runs", "--format", "json")[0] == 0


def test_a_rule_is_resumed_among_the_rules_and_a_run_among_the_runs(db):
    code, _, err = run("runs", "resume", "orders.invoice")
    assert (code, "reconcile rules resume orders.invoice" in err) == (2, True)
    assert run("rules", "resume", "nosuch")[0] == 2


def test_a_run_that_is_followed_is_shown_when_it_has_ended(lacking):
    run("repair", "orders.invoice", "--apply")
    code, out, _ = run("runs", "show", str(Run.objects.get()), "--follow")
    assert (code, "1 repaired; 12 rows written, 0 left" in out) == (0, True)


def test_no_control_character_of_a_name_a_reason_or_an_error_reaches_a_terminal(rules, db):
    rules(
        'r = Rule(every=Basket, must=HaveValues(label="\\x1b]0;x\\x07"), reason="\\x1b[31mred", owner="\\x1b[1m")'
    )
    Basket.objects.create()
    for arguments in (["check"], ["rules"], ["explain", "own.r"], ["repair"], ["check", "\x1b[31m"]):
        _, out, err = run(*arguments)
        assert "\x1b" not in out + err, arguments
        assert "\x07" not in out + err, arguments
    assert "\\x1b[31mred" in run("rules")[1]


@pytest.mark.process
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(shell, tmp_path):
    nowhere = {name: value for name, value in environment().items() if name != "DJANGO_SETTINGS_MODULE"}
    done = run_reconcile(env={**nowhere, "_RECONCILE_COMPLETE": f"{shell}_source"}, cwd=tmp_path)
    assert (done.returncode, "_reconcile_completion" in done.stdout, done.stderr) == (0, True, "")


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("reconcile ru", ["rules", "runs"]),
        ("reconcile runs res", ["resume"]),
        ("reconcile check orders.in", ["orders.invoice"]),
        ("reconcile explain orders.not", ["orders.notification"]),
        ("reconcile rules resume articles.s", ["articles.slug"]),
        ("reconcile check --allow", ["--allow-empty"]),
        ("reconcile check --exclude orders.in", ["orders.invoice"]),
        ("reconcile check --database defa", ["default"]),
    ],
)
def test_verbs_flags_and_rules_are_completed(words, offered):
    asked = {
        "_RECONCILE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = run_reconcile(env={**environment(), **asked})
    assert [line.partition(",")[2] for line in done.stdout.split()] == offered


@pytest.mark.process
def test_a_project_that_cannot_be_set_up_completes_no_rules_and_says_nothing(tmp_path):
    asked = {"_RECONCILE_COMPLETE": "bash_complete", "COMP_WORDS": "reconcile check or", "COMP_CWORD": "2"}
    done = run_reconcile(env={**environment(), **asked, "DJANGO_SETTINGS_MODULE": "no_such"}, cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr) == ("", "")


# The order of rules, drawn.


def test_the_order_of_rules_is_drawn():
    code, out, err = run("rules", "graph", "orders.invoice", "orders.total", "orders.item_count")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "flowchart LR",
        '    r0["orders.total"]',
        '    r1["orders.item_count"]',
        '    r2["orders.invoice"]',
        '    r0 -->|"Order.total"| r2',
    ]
    code, out, err = run("rules", "graph", "orders.invoice", "orders.total", "--format", "dot")
    assert (code, err) == (0, "")
    assert '    "orders.total" -> "orders.invoice" [label="Order.total"];' in out.splitlines()


def test_a_circle_is_dotted_and_many_columns_are_cut():
    both = {
        name: Rule(name=name, every=Basket, must=must)
        for name, must in {
            'a "quoted" \\ name': HaveValues(score=F("quantity"), note=F("label"), price=F("quantity")),
            "b": HaveValues(quantity=F("score")),
            "c": HaveRow(
                Bill,
                link={"basket_number": F("pk")},
                values={"amount": F("price"), "kind": F("note"), "score": F("score")},
            ),
        }.items()
    }
    order = sort_rules(both, using="default", now=timezone.now())
    assert "Basket.note, Basket.price, Basket.score" in graph.mermaid(order)
    assert "-.->" in graph.mermaid(order)
    assert "style=dotted" in graph.dot(order)
    assert 'r0["a #34;quoted#34; #92; name"]' in graph.mermaid(order).replace("r1[", "r0[")
    assert '"a \\"quoted\\" \\\\ name"' in graph.dot(order)


def test_a_reader_that_stops_early_is_no_rule_that_could_not_be_evaluated():
    command = f"{shlex.join(reconcile_command('rules'))} | {{ exec 0<&-; sleep 5; }}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (141, False), done.stderr


@pytest.mark.django_db
def test_the_next_step_names_the_rules_that_drift(settings):
    settings.RECONCILE = {"RULES": ["rules"]}
    Order.objects.create(created_at=an_hour_ago(), total=0)
    Order.objects.update(total=3)
    _, out, _ = run("check", "orders.total", "customers.order_count", "articles.slug")
    assert out.splitlines()[-1] == "See what a repair would do: reconcile repair orders.total"


@pytest.mark.django_db
def test_rows_of_several_rules_are_said_to_be_those_of_now(settings):
    settings.RECONCILE = {"RULES": ["rules"]}
    Order.objects.bulk_create([Order(created_at=an_hour_ago(), total=3)])
    _, out, _ = run("repair", "orders.total", "orders.invoice", "--show", "1")
    assert "a rule may change what a later one reads" in out
    _, out, _ = run("repair", "orders.total", "--show", "1")
    assert "a rule may change" not in out


@pytest.mark.django_db(transaction=True)
def test_a_night_that_may_be_empty_does_not_say_how_to_allow_that(settings):
    settings.RECONCILE = {"RULES": ["rules"]}
    assert "If there may be none: --allow-empty." in run("nightly")[1]
    code, out, _ = run("nightly", "--allow-empty")
    assert (code, "0 records checked" in out, "If there may be none" in out) == (0, True, False)
