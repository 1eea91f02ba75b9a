"""What the package needs to be installed beside it, and what it imports before anybody has asked for anything."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache

import pytest
from django.core.checks import run_checks

from tests.cli.test_cli import run
from tests.helpers import ROOT, environment

pytestmark = pytest.mark.once

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOMES = {
    "pytest_plugin.py": "pytest",
    "testing/pytest_bypasses.py": "pytest",
    "testing/pytest_marker.py": "pytest",
    "testing/pytest_fixture_files.py": "pytest",
}
"""The pytest plugin's files import pytest, which is there when they are loaded."""

HEAVY = [
    "celery", "click", "hypothesis", "jsonschema", "junitparser", "kombu", "rich", "rich_click", "structlog", "tomlkit",
    "reconcile.cli", "reconcile.kinds", "reconcile.rules.registry", "reconcile.reports", "reconcile.rules.rule", "reconcile.runs",
    "reconcile.tasks", "rules",
]  # fmt: skip

SETUP = """
import sys
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "reconcile"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    RECONCILE={"RULES": ["rules"]},
)
django.setup()
print("\\n".join(sys.modules))
"""


def names(requirements):
    return {re.match(r"[A-Za-z0-9-]+", each)[0].lower().replace("-", "_") for each in requirements}


@cache
def imported():
    """The top packages that each file of the package imports, at its top or where they are used."""
    found = {}
    for path in (ROOT / "reconcile").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = [each.name for node in nodes if isinstance(node, ast.Import) for each in node.names]
        names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        found[path.relative_to(ROOT / "reconcile")] = {name.partition(".")[0] for name in names}
    return found


@pytest.mark.process
def test_django_setup_imports_nothing_that_is_not_needed_yet():
    done = subprocess.run(
        [sys.executable, "-c", SETUP], env=environment(), cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert "reconcile.checks" in modules
    assert modules.isdisjoint(HEAVY), modules.intersection(HEAVY)


def test_the_system_checks_are_registered_and_import_what_they_need():
    assert {each.id for each in run_checks(tags=["reconcile"])} <= {"reconcile.W001"}


def test_all_that_is_imported_is_declared():
    declared = names(PROJECT["dependencies"]) | names(
        [*PROJECT["optional-dependencies"]["ci"], *PROJECT["optional-dependencies"]["audit"]]
    )
    for path, found in imported().items():
        others = found - set(sys.stdlib_module_names) - {"reconcile", "__future__"}
        assert others <= {*declared, HOMES.get(str(path))}, path


def test_all_that_is_declared_is_imported():
    used = set().union(*imported().values())
    assert names(PROJECT["dependencies"]) | names(PROJECT["optional-dependencies"]["ci"]) <= used


def test_django_has_no_upper_bound():
    (django,) = [each for each in PROJECT["dependencies"] if each.startswith("Django")]
    assert django == "Django>=5.2"


@pytest.mark.django_db
def test_a_junit_report_without_its_package_names_the_extra_before_anything_is_checked(monkeypatch):
    monkeypatch.setitem(sys.modules, "junitparser", None)
    code, out, err = run("check", "--format", "junit")
    assert (code, out) == (2, "")
    assert "--format junit needs the package 'junitparser', and it is not installed." in err
    assert "pip install 'django-reconcile[ci]'" in err


@pytest.mark.django_db
def test_a_baseline_can_be_verified_and_not_written_without_tomlkit(monkeypatch, tmp_path):
    kept = tmp_path / "baseline.toml"
    kept.write_text("version = 1\n")
    monkeypatch.setitem(sys.modules, "tomlkit", None)
    assert run("baseline", "verify", "--allow-empty", "--file", str(kept))[0] == 0
    code, out, err = run("baseline", "update", "--file", str(kept))
    assert (code, out) == (2, "")
    assert "baseline update needs the package 'tomlkit', and it is not installed." in err
    assert kept.read_text() == "version = 1\n"
