"""`reconcile check --fixtures`: exit codes, where drift comes from, and a configured database that nobody touches."""

import bz2
import gzip
import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from django.db import connection, connections

from reconcile.cli import reconcile
from tests.helpers import ROOT, environment, reconcile_command
from tests.reports.readers import READERS

FIXTURES = ROOT / "sample_project" / "fixtures"
BROKEN, MENDED = str(FIXTURES / "broken.json"), str(FIXTURES / "mended.json")

pytestmark = pytest.mark.django_db(databases=["default", "archive"])


@pytest.fixture(autouse=True)
def _unmigrated(monkeypatch):
    """Throw-away databases of this process take a second and not four: tables are made from the models."""
    for settings in connections.settings.values():
        monkeypatch.setitem(settings["TEST"], "MIGRATE", False)


def run(*arguments):
    """The command line in this process: exit code, standard output, standard error."""
    result = CliRunner().invoke(reconcile, list(arguments), prog_name="reconcile", env={"COLUMNS": "160"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, " ".join(result.stderr.replace("│", " ").split())


def drifted(report):
    return {
        rule["rule"]: [rule["missing"], rule["stale"], rule["extra"]]
        for rule in report["rules"]
        if rule["status"] != "pass"
    }


def test_the_mended_fixture_passes_with_and_without_receivers():
    assert run("check", "--fixtures", MENDED)[0] == 0
    assert run("check", "--fixtures", MENDED, "--as-written")[0] == 0


def test_the_broken_fixture_fails_with_what_the_bulk_paths_left_undone():
    code, out, err = run("check", "--fixtures", BROKEN, "--as-written", "--format", "json")
    report = json.loads(out)
    assert (code, report["status"], err) == (1, "drift", "")
    assert drifted(report) == {
        "customers.order_count": [0, 1, 0],
        "customers.last_order": [0, 1, 0],
        "customers.preferences": [0, 1, 0],
        "customers.welcome": [1, 0, 0],
        "items.archived": [0, 1, 0],
        "items.archived_charges": [0, 1, 0],
        "items.storefront": [1, 0, 0],
        "orders.total": [0, 1, 0],
        "orders.item_count": [0, 1, 0],
        "orders.customer_name": [0, 2, 0],
        "orders.invoice": [3, 1, 0],
        "orders.notification": [2, 0, 0],
    }


def test_receivers_that_do_not_look_at_raw_mend_some_of_it_while_it_is_loaded():
    code, out, _ = run("check", "--fixtures", BROKEN, "--format", "json")
    assert code == 1
    assert drifted(json.loads(out)) == {
        "customers.welcome": [1, 0, 0],
        "items.archived_charges": [0, 1, 0],
        "items.storefront": [1, 0, 0],
        "orders.invoice": [3, 0, 0],
        "orders.notification": [2, 0, 0],
    }


@pytest.mark.once
def test_the_file_and_the_object_of_each_sample_are_said(monkeypatch):
    monkeypatch.chdir(FIXTURES)
    arguments = (
        "check",
        "orders.invoice",
        "--fixtures",
        "broken.json",
        "--as-written",
        "--samples",
        "2",
    )
    _, out, _ = run(*arguments, "--format", "json")
    (rule,) = json.loads(out)["rules"]
    assert rule["samples"] == [
        {"drift": "missing", "key": "1", "origin": "broken.json: shop.order 1"},
        {"drift": "missing", "key": "5", "origin": "broken.json: shop.order 5"},
        {"drift": "stale", "key": "2", "origin": "broken.json: shop.order 2"},
    ]
    _, out, _ = run(*arguments)
    said = [line.strip() for line in out.splitlines()]
    assert said[said.index("missing broken.json: shop.order 1") :][:4] == [
        "missing broken.json: shop.order 1",
        "broken.json: shop.order 5",
        "and 1 more",
        "stale   broken.json: shop.order 2",
    ]
    assert "reconcile repair" not in out


@pytest.mark.once
def test_several_files_can_follow_as_a_shell_expands_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for key in (1, 2, 3):
        order = {"model": "shop.order", "pk": key, "fields": {"created_at": "2025-01-01T00:00:00Z"}}
        Path(f"{key}.json").write_text(json.dumps([order]))
    files = ("--fixtures", "1.json", "2.json", "--fixtures", "3.json")
    code, out, _ = run("check", *files, "orders.invoice", "--format", "json")
    (rule,) = json.loads(out)["rules"]
    assert (code, rule["checked"], rule["missing"]) == (1, 3, 3)


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fixtures", "nope.json"], "File 'nope.json' does not exist."),
        (["--fixtures", str(FIXTURES)], "is a directory"),
        (["--as-written"], "--as-written goes with --fixtures FILE"),
        (["--fixtures", BROKEN, "--fixtures", f"{FIXTURES}/../fixtures/broken.json"], "is given twice. Leave one out."),
        (["--fixtures", BROKEN, "orders.invoic"], "There is no rule 'orders.invoic'. Did you mean 'orders.invoice'?"),
        (["--fixtures", BROKEN, "nope.json"], "There is no rule 'nope.json'."),
        (["--fixtures", BROKEN, "--database", "defualt"], "There is no database 'defualt'. Did you mean 'default'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_as_asked_exits_with_2(arguments, said):
    code, out, err = run("check", *arguments)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.once
@pytest.mark.parametrize("form", READERS)
def test_a_fixture_that_cannot_be_loaded_exits_with_3_and_names_the_object_whatever_the_format(
    tmp_path, form
):
    path = tmp_path / "shop.json"
    path.write_text('[{"model": "shop.order", "pk": 12, "fields": {"totl": 3}}]')
    code, out, err = run("check", "--fixtures", str(path), "--format", form)
    assert (code, out) == (3, "")
    assert f"Fixture '{path}' can't be loaded: shop.order 12: Order has no field named 'totl'." in err


@pytest.mark.once
def test_a_rule_that_cannot_be_evaluated_on_fixtures_exits_with_3(tmp_path, monkeypatch, settings):
    (tmp_path / "fixture_rules.py").write_text(
        "from reconcile import HaveValues, Rule\nfrom tests.zoo.models import Ghost\n"
        "ghost = Rule(every=Ghost, must=HaveValues(value=1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings.RECONCILE = {"RULES": ["fixture_rules"]}
    code, out, _ = run("check", "--fixtures", MENDED, "--format", "json")
    assert (code, json.loads(out)["status"]) == (3, "error")


def test_every_format_is_written_and_no_statement_reaches_the_configured_database(tmp_path):
    said = []

    def listen(execute, sql, params, many, context):
        said.append(sql)
        return execute(sql, params, many, context)

    forms = {"json": "a.json", "html": "a.html", "sarif": "a.sarif", "junit": "a.xml", "markdown": "a.md"}
    asked = [part for form, name in forms.items() for part in ("--format", f"{form}={tmp_path / name}")]
    with connection.execute_wrapper(listen):
        assert run("check", "--fixtures", BROKEN, "--as-written", *asked)[0] == 1
    assert said == []
    for name in forms.values():
        assert "broken.json: shop.order" in (tmp_path / name).read_text(), name


def nowhere():
    """Settings whose configured database does not exist, on the server that there is."""
    settings = environment()
    url = settings["DATABASE_URL"]
    there = "sqlite:////no/such/folder/shop.sqlite3"
    return {
        **settings,
        "DATABASE_URL": there if connection.vendor == "sqlite" else f"{url.rpartition('/')[0]}/no_such_shop",
    }


def process(*arguments, **options):
    command = reconcile_command("check", *arguments)
    return subprocess.Popen(
        command, env=nowhere(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.process
def test_the_configured_database_need_not_exist():
    with process("--fixtures", BROKEN, "--format", "json") as running:
        out, err = running.communicate()
    assert (running.returncode, err) == (1, "")
    assert json.loads(out)["status"] == "drift"
    with process("orders.invoice") as running:
        assert "reached" in running.communicate()[0]
    assert running.returncode == 3


def databases():
    """The throw-away databases that the server has."""
    listed = {"postgresql": "SELECT datname FROM pg_database", "mysql": "SHOW DATABASES"}[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(listed)
        return {name for (name,) in cursor.fetchall() if "_fixtures_" in name}


@pytest.mark.server
# A connection that nobody has closed says so when it goes; here its going is what is asked for.
@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
def test_an_interrupt_while_connecting_leaves_no_database_behind(monkeypatch):
    before, connect = databases(), type(connections["default"]).get_new_connection
    asked = []

    def interrupted(self, parameters):
        opened = connect(self, parameters)
        asked.append(str(self.settings_dict["NAME"]))
        if "_fixtures_" in asked[-1] and opened:
            raise KeyboardInterrupt
        return opened

    monkeypatch.setattr(type(connections["default"]), "get_new_connection", interrupted)
    assert run("check", "--fixtures", MENDED)[0] == 130
    assert any("_fixtures_" in name for name in asked)
    assert not [name for name in databases() - before if f"_{os.getpid()}_" in name]


@pytest.mark.process
@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_check_leaves_no_database_behind(tmp_path, number):
    many = tmp_path / "many.json"
    order = {"model": "shop.order", "fields": {"status": "draft"}}
    many.write_text(json.dumps([{**order, "pk": key} for key in range(1, 30_000)]))
    # A shell that starts these tests in the background has them ignore SIGINT, which a child would inherit.
    heard = partial(signal.signal, number, signal.SIG_DFL)
    with process("--fixtures", str(many), preexec_fn=heard) as running:
        until = time.monotonic() + 60
        while not (there := {name for name in databases() if f"_{running.pid}_" in name}):
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(running.pid, number)
        _, err = running.communicate(timeout=60)
    assert (running.returncode, "Interrupted." in err) == (130, True), err
    assert databases().isdisjoint(there)


@pytest.mark.once
@pytest.mark.parametrize("opener", [open, gzip.open, bz2.open], ids=["plain", "gz", "bz2"])
def test_a_file_that_is_larger_than_the_limit_is_refused_before_it_is_loaded(opener, tmp_path):
    """A compressed one counts unpacked: a small file may hold anything."""
    ending = {open: "", gzip.open: ".gz", bz2.open: ".bz2"}[opener]
    file = tmp_path / f"many.json{ending}"
    objects = [
        {"model": "zoo.team", "pk": number, "fields": {"name": "x" * 20}} for number in range(1, 30_000)
    ]
    with opener(file, "wt") as stream:
        json.dump(objects, stream)
    code, _, err = run("check", "--fixtures", str(file), "--fixture-limit", "1")
    assert code == 3
    assert "more than 1 megabytes, unpacked" in err
    assert "--fixture-limit" in err
