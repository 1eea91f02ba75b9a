"""`--reconcile`: pytest takes each fixture file for a module that has one test for each rule.

A file is loaded once for all of its tests, in a transaction that is rolled back. With pytest-xdist, each worker loads it once.
"""

from __future__ import annotations

import shlex
import types
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from reconcile.rules.rule import Rule

_USING = "default"

_FILES = pytest.StashKey[Mapping[Path, Sequence[Path]]]()
"""For each fixture file, the files to load: first those that it refers to, then the file itself."""


@dataclass(frozen=True)
class FixtureCollector:
    """The pytest hook that makes tests of the fixture files, wherever pytest finds them."""

    files: Collection[Path]

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """A collector for a fixture file; None for any other file."""
        return FixtureFile.from_parent(parent, path=file_path) if file_path in self.files else None


def prepare_collector(config: pytest.Config) -> FixtureCollector:
    """Prepare the collection of the fixture files that the option or the setting names, and return its hook.

    The files are stored in `config`. They are added to what pytest collects, unless the command line names some of them.
    Raises UsageError if no file is named, or if a named file does not exist.
    """
    files = dict(_fixture_files(config))
    if not files:
        raise pytest.UsageError(
            "--reconcile finds no fixture files. Name them with --reconcile-fixtures FILE, or in the setting "
            "reconcile_fixtures."
        )
    config.stash[_FILES] = files
    asked = {(config.invocation_params.dir / arg.partition("::")[0]).resolve() for arg in config.args}
    if not asked & set(files):
        config.args += [str(path) for path in files]
    return FixtureCollector(files.keys())


def _fixture_files(config: pytest.Config) -> Iterator[tuple[Path, Sequence[Path]]]:
    """Each fixture file, with the files to load for it. In one line, all files but the last pattern are loaded first."""
    given = config.getoption("--reconcile-fixtures")
    base = config.invocation_params.dir if given else config.rootpath
    for line in given or config.getini("reconcile_fixtures"):
        *first, last = [_paths_of_pattern(base, pattern) for pattern in shlex.split(line)]
        before = [path for paths in first for path in paths]
        for path in last:
            yield path, (*before, path)


def _paths_of_pattern(base: Path, pattern: str) -> Sequence[Path]:
    """The files that a name or a pattern names. Raises UsageError if there are none."""
    if has_magic(pattern):
        found = sorted(base.glob(pattern))
    else:
        found = [base / pattern] if (base / pattern).is_file() else []
    if not found:
        raise pytest.UsageError(f"There is no fixture file {pattern!r} in {base}.")
    return [path.resolve() for path in found]


class FixtureFile(pytest.Module):
    """One fixture file. Its tests have the names of the rules."""

    def _getobj(self) -> types.ModuleType:
        return types.ModuleType(self.path.stem, "The tests of a fixture file.")

    def collect(self) -> Iterator[pytest.Item]:
        """One test for each rule that is about the database. Raises CollectError if the project has none."""
        from reconcile.errors import ReconcileError
        from reconcile.rules.registry import project_rules

        try:
            rules = project_rules()
        except ReconcileError as error:
            raise self.CollectError(str(error)) from error
        for name, rule in rules.items():
            if rule.is_on(_USING):
                test = RuleTest.from_parent(self, name=name, callobj=_test_of(rule))
                # Without this marker pytest-django makes no test database, and the test would use the real one.
                test.add_marker(pytest.mark.django_db)
                yield test


class RuleTest(pytest.Function):
    """A test that checks one rule on the contents of the file."""

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The place of the test: the fixture file. pytest's own method would change the dots of a rule's name."""
        return self.path, None, f"{self.name} on {self.path.name}"


def _test_of(rule: Rule) -> Callable[..., None]:
    def test(reconcile_loaded: None) -> None:  # noqa: ARG001 - a fixture is asked for by its name
        __tracebackhide__ = True
        from reconcile.core.drift import Status
        from reconcile.testing.assertions import describe_drift, find_drift

        found = find_drift(rule, using=_USING)
        if found.status in {Status.FAIL, Status.ERROR}:
            pytest.fail(describe_drift([found]), pytrace=False)

    return test


@pytest.fixture(scope="module")
def reconcile_loaded(
    request: pytest.FixtureRequest,
    django_db_setup: None,  # noqa: ARG001 - a fixture is asked for by its name
    django_db_blocker: Any,
) -> Generator[None]:
    """Load the fixture file of the test. It is rolled back after the last test of the file."""
    from django.db import transaction

    with django_db_blocker.unblock(), transaction.atomic(using=_USING):
        try:
            _load(request.config.stash[_FILES][request.path])
            yield
        finally:
            transaction.set_rollback(True, using=_USING)


def _load(files: Sequence[Path]) -> None:
    from reconcile.errors import ReconcileError
    from reconcile.testing.fixtures import load

    try:
        load(files, using=_USING)
    except ReconcileError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
