"""Traps that other tools fell into: what machines read. What is tested elsewhere in full:

Output: progress on a terminal -> tests/cli/test_cli.py::test_progress_is_shown_on_a_terminal_and_never_on_standard_output
"""

import io
import json
import shlex
import subprocess
from pathlib import Path

import click
import pytest
from django.utils import timezone
from rich.console import Console

from reconcile.cli import reconcile
from reconcile.models import Outcome, Run
from reconcile.reports.layout import table
from sample_project.shop.models import Invoice, Order
from tests.helpers import ROOT, an_hour_ago, environment, reconcile_command
from tests.processes import run_reconcile

pytestmark = [pytest.mark.once, pytest.mark.django_db]


NOISY = """
import logging, sys
from django.db.models import F
from reconcile import FromPython, HaveRow, HaveValues, Rule
from sample_project.shop.models import Invoice, Order

logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
print("printed by a rule file")

def named(status):
    print("printed by a function")
    logging.getLogger("shop").warning("logged by a function")
    return status.upper()

name = Rule(every=Order, must=HaveValues(customer_name=FromPython(named, reads=["status"])), tags=["noisy"], owner="me")
invoice = Rule(every=Order, must=HaveRow(Invoice, link={"order": F("pk")}, values={"amount": 3}), tags=["noisy"], owner="me")
"""


@pytest.fixture
def noisy(transactional_db, tmp_path):
    """A project whose rules print and log; its settings' environment, and where it may write."""
    (tmp_path / "noisy.py").write_text(NOISY)
    (tmp_path / "covered.toml").write_text("version = 1")
    (tmp_path / "seen.json").write_text('{"version": 1, "calls": []}')
    (tmp_path / "noisy_settings.py").write_text(
        'from tests.settings import *\nRECONCILE = {"RULES": ["noisy"]}\nDEBUG = True\n'
    )
    Order.objects.bulk_create([Order(created_at=an_hour_ago()) for _ in range(3)])
    return environment(DJANGO_SETTINGS_MODULE="tests.settings", PYTHONPATH=f"{tmp_path}:{ROOT}"), tmp_path


MENDED = str(ROOT / "sample_project" / "fixtures" / "mended.json")


def invocations(key, run, folder):
    """Every command in its JSON mode with every flag it has, in an order in which each finds what it needs."""
    always = ["--database", "default", "--format", "json"]
    kept = [*always, "--output", str(folder / "report.json")]
    chosen = ["--select", "tag:noisy", "--select", "owner:me"]
    return [
        (
            ["check", *always, *chosen, "--exclude", "invoice", "--samples", "1", "--fail-on", "warn"],
            1,
            "rules",
        ),
        (["check", "name", *kept, "--why"], 1, "rules"),
        (
            ["check", "name", *always, "--fixtures", MENDED, "--as-written", "--fixture-limit", "9"],
            1,
            "rules",
        ),
        (["check", "invoice", *always, "--allow-empty", "--keys", key], 1, "rules"),
        (
            [
                "repair",
                "invoice",
                *always,
                "--show",
                "1",
                "--values",
                "--keys",
                key,
                "--sql",
                str(folder / "repair.sql"),
            ],
            0,
            "rules",
        ),
        (["rules", "list", *always, *chosen, "--exclude", "invoice"], 0, "rules"),
        (["rules", "list", *kept], 0, "rules"),
        (["rules", "graph", *always, *chosen, "--exclude", "invoice"], 0, "rules"),
        (["rules", "graph", *kept], 0, "rules"),
        (["explain", "invoice", *always], 0, "rule"),
        (["explain", "invoice", *always, "--sql"], 0, "statements"),
        (["explain", "invoice", *always, "--key", key], 0, "rule"),
        (["explain", "name", *kept, "--key", key], 0, "rule"),
        (["repair", *always, *chosen, "--exclude", "invoice", "--max-repairs", "2"], 4, "rules"),
        (
            ["repair", *always, *chosen, "--max-deletes", "2", "--output", str(folder / "plan.json")],
            0,
            "rules",
        ),
        (["repair", *always, *chosen, "--plan", str(folder / "plan.json")], 0, "rules"),
        (["repair", *kept, *chosen, "--max-repairs", "100%", "--apply", "--allow-empty"], 0, "rules"),
        (["signals", "list", "shop.Order", "--format", "json", "--third-party", "--no-cache"], 0, "models"),
        (
            ["signals", "list", "shop.Order", "--format", "json", "--run", "--database", "default"],
            0,
            "models",
        ),
        (["signals", "list", "--format", "json", "--output", str(folder / "report.json")], 0, "models"),
        (
            [
                *(
                    "signals",
                    "bypasses",
                    "sample_project",
                    "--format",
                    "json",
                    "--show",
                    "all",
                    "--tests",
                    "--migrations",
                ),
                *(
                    "--baseline",
                    str(folder / "bypasses.toml"),
                    "--update-baseline",
                    "--output",
                    str(folder / "report.json"),
                ),
            ],
            0,
            "findings",
        ),
        (["signals", "bypasses", "--format", "json", "--seen", str(folder / "seen.json")], 1, "findings"),
        (["signals", "bypasses", "--format", "json", "--diff", "HEAD", "--no-cache"], 0, "findings"),
        (
            [
                "signals",
                "coverage",
                "report",
                "--accepted",
                str(folder / "covered.toml"),
                "--format",
                "json",
                "--third-party",
                "--fail-under",
                "0",
                "--fail-on",
                "error",
                "--no-cache",
                "--output",
                str(folder / "report.json"),
            ],
            1,
            "effects",
        ),
        (
            [
                "signals",
                "coverage",
                "accept",
                "name",
                "--accepted",
                str(folder / "covered.toml"),
                *always[2:],
            ],
            2,
            None,
        ),
        (["signals", "coverage", "accept", "name", "--output", str(folder / "report.json")], 2, None),
        (["signals", "cost", "Order", *kept, "--on-copy"], 0, "models"),
        (["init", "Order", *kept, "--watch", "--folder", str(folder / "watched")], 0, "drafts"),
        (["signals", "cost", *always, "--fixtures", MENDED], 0, "models"),
        (["signals", "parity", *always, "--all", "--fixtures", MENDED], 1, "comparisons"),
        (
            [
                *("signals", "parity", *kept, *chosen, "--exclude", "invoice", "--on-copy"),
                *("--volatile", "shop.Order.total", "--ignore", "shop.Item"),
            ],
            # What drifts is brought into being by ensure, and not by a save.
            1,
            "comparisons",
        ),
        (["init", "shop.Order", *always, "--folder", str(folder / "drafts")], 0, "drafts"),
        (["init", "shop.Order", *kept, "--folder", str(folder / "drafts")], 0, "drafts"),
        (["nightly", *always], 0, "rules"),
        (["nightly", *kept, "--allow-empty"], 0, "rules"),
        (["runs", "list", *always], 0, "runs"),
        (["runs", "list", *kept], 0, "runs"),
        (["runs", "show", run, "--follow", *always], 0, "rules"),
        (["runs", "show", run, *kept], 0, "rules"),
        (
            [
                "baseline",
                "update",
                *always,
                *chosen,
                "--exclude",
                "invoice",
                "--file",
                str(folder / "baseline.toml"),
            ],
            0,
            "rules",
        ),
        (
            ["baseline", "update", "name", *kept, "--only-mended", "--file", str(folder / "baseline.toml")],
            0,
            "rules",
        ),
        (
            [
                "baseline",
                "verify",
                *always,
                *chosen,
                "--allow-empty",
                "--exclude",
                "invoice",
                "--file",
                str(folder / "baseline.toml"),
            ],
            0,
            "rules",
        ),
        (
            [
                "baseline",
                "verify",
                "name",
                *kept,
                "--fail-on",
                "warn",
                "--file",
                str(folder / "baseline.toml"),
            ],
            0,
            "rules",
        ),
        (["rules", "resume", "name", *always], 2, None),
        (["rules", "resume", "name", *kept], 2, None),
        (["runs", "pause", run, *always], 2, None),
        (["runs", "pause", run, *kept], 2, None),
        (["runs", "resume", run, *always, "--allow-empty"], 0, "rules"),
        (["runs", "resume", run, *kept], 2, None),
        (["undo", run, *always], 2, None),
        (["undo", run, *kept, "--apply"], 2, None),
        (["runs", "cancel", run, *always], 2, None),
        (["runs", "cancel", run, *kept], 2, None),
        (["check", *always], 0, "rules"),
    ]


@pytest.mark.process
def test_every_command_in_json_mode_as_a_process_prints_json_and_nothing_else(noisy):
    settings, folder = noisy
    stopped = Run.objects.create(kind="repair", now=timezone.now(), state="stopped")
    Outcome.objects.create(run=stopped, rule="invoice", position=0, may_repair=True)
    key = str(Order.objects.first().pk)
    for arguments, code, has in invocations(key, str(stopped.pk), folder):
        report = (
            Path(arguments[arguments.index("--output") + 1])
            if "--output" in arguments
            else folder / "report.json"
        )
        report.unlink(missing_ok=True)
        done = run_reconcile("--settings", "noisy_settings", "--verbose", *arguments, env=settings)
        assert done.returncode == code, (arguments, done)
        assert "Traceback" not in done.stderr, (arguments, done.stderr)
        if code == 2:
            assert done.stdout == ""
            continue
        if "--output" in arguments:
            assert done.stdout == "", arguments
        said = report.read_text() if "--output" in arguments else done.stdout
        assert has in json.loads(said), arguments
        assert "printed by a rule file" in done.stderr or arguments[0] in {"runs", "init"}, arguments


def leaves(group, words=()):
    """Each command that does something, with the words that lead to it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*words, name))
        else:
            yield [*words, name], command


def test_no_command_and_no_flag_of_the_json_modes_is_left_out_above(tmp_path):
    run = [arguments for arguments, *_ in invocations("1", "x", tmp_path)]
    for words, command in leaves(reconcile):
        name = " ".join(words)
        options = {each for each in command.params if each.param_type_name == "option"}
        forms = next((each for each in options if "--format" in each.opts), None)
        assert forms is not None, f"{name} has no --format"
        assert "json" in forms.type.choices, f"{name} has no JSON mode"
        given = {word for arguments in run if arguments[: len(words)] == words for word in arguments}
        # `rules --check` compares a page of markdown.
        flags = {each.opts[0] for each in options} - {"--check", "--help"}
        assert flags <= given, (name, flags - given)


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("out", ["full", "closed"])
def test_a_report_that_can_t_be_written_is_an_error_and_what_was_written_stands(out):
    Order.objects.bulk_create([Order(total=3, created_at=an_hour_ago())])
    command = reconcile_command("repair", "orders.invoice", "--apply")
    shell = f"{shlex.join(command)} {'> /dev/full' if out == 'full' else '>&-'}"
    done = subprocess.run(
        ["sh", "-c", shell], env=environment(), cwd=ROOT, capture_output=True, text=True, check=False
    )
    why = {"full": "No space left on device", "closed": "it is closed"}[out]
    assert done.stderr == (
        f"Error: The report can't be written to standard output: {why}. What a repair or an undo has written stands; see: "
        "reconcile runs\n"
    )
    assert (done.returncode, Invoice.objects.count()) == (3, 1)


def test_no_figure_is_cut_off_where_the_terminal_is_narrow():
    rows = table("", "Rule", "Checked", "Guarantee", "Time", numbers=("Checked", "Time"))
    rows.add_row("error", "customers.order_count", "1,000,000", "constraint", "12.50")
    narrow = Console(width=52, file=io.StringIO())
    narrow.print(rows)
    said = narrow.file.getvalue()
    assert "…" not in said
    assert all(each in said for each in ("error", "1,000,000", "Guarantee", "constraint", "12.50"))
    assert "errorcustomers.order_count" in "".join(
        word for word in said.split() if word.islower() and word != "constraint"
    )
