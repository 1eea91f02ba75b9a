"""`--reconcile`: each fixture file as a module of tests, one for each rule.

A file is loaded once for all of its tests, in a transaction that is rolled back; with pytest-xdist, once in each worker.
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
    from reconcile.rules import Rule

_USING = "default"


_FILES = pytest.StashKey[Mapping[Path, Sequence[Path]]]()
"""For each fixture file the files to load, itself the last: a fixture may refer to what others hold."""


@dataclass(frozen=True)
class _Collecting:
    """The hook that makes tests of the fixture files, wherever pytest comes across them."""

    files: Collection[Path]

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """The fixture file as a collector; None for any other file."""
        return FixtureFile.from_parent(parent, path=file_path) if file_path in self.files else None


def collecting(config: pytest.Config) -> _Collecting:
    """The hook for the files that the options or the settings name; they are collected along with what was asked for.

    Raises UsageError where there is no such file, or none is named.
    """
    files = dict(_files(config))
    if not files:
        raise pytest.UsageError(
            "--reconcile finds no fixture files. Name them with --reconcile-fixtures FILE, or in the setting "
            "reconcile_fixtures."
        )
    config.stash[_FILES] = files
    asked = {(config.invocation_params.dir / each.partition("::")[0]).resolve() for each in config.args}
    if not asked & set(files):
        config.args += [str(path) for path in files]
    return _Collecting(files.keys())


def _files(config: pytest.Config) -> Iterator[tuple[Path, Sequence[Path]]]:
    given = config.getoption("--reconcile-fixtures")
    base = config.invocation_params.dir if given else config.rootpath
    for line in given or config.getini("reconcile_fixtures"):
        *first, last = [_matching(base, pattern) for pattern in shlex.split(line)]
        before = [path for paths in first for path in paths]
        for path in last:
            yield path, (*before, path)


def _matching(base: Path, pattern: str) -> Sequence[Path]:
    if has_magic(pattern):
        found = sorted(base.glob(pattern))
    else:
        found = [base / pattern] if (base / pattern).is_file() else []
    if not found:
        raise pytest.UsageError(f"There is no fixture file {pattern!r} in {base}.")
    return [path.resolve() for path in found]


class FixtureFile(pytest.Module):
    """One fixture file; its tests are called as the rules are."""

    def _getobj(self) -> types.ModuleType:
        return types.ModuleType(self.path.stem, "The tests of a fixture file.")

    def collect(self) -> Iterator[pytest.Item]:
        """A test for each rule that is about the database."""
        from reconcile.errors import ReconcileError
        from reconcile.registry import valid_rules

        try:
            rules = valid_rules()
        except ReconcileError as error:
            raise self.CollectError(str(error)) from error
        for name, rule in rules.items():
            if rule.is_on(_USING):
                test = RuleTest.from_parent(self, name=name, callobj=_test_of(rule))
                # Without a test that says so, pytest-django makes no test database, and the real one would be used.
                test.add_marker(pytest.mark.django_db)
                yield test


class RuleTest(pytest.Function):
    """One rule, checked on what the file holds."""

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the test is said to be: in the fixture file. pytest would take a name with dots for one with colons."""
        return self.path, None, f"{self.name} on {self.path.name}"


def _test_of(rule: Rule) -> Callable[..., None]:
    def test(reconcile_loaded: None) -> None:  # noqa: ARG001 - a fixture is asked for by its name
        __tracebackhide__ = True
        from reconcile.drift import Status
        from reconcile.testing._looking import look
        from reconcile.testing._telling import told

        found = look(rule, using=_USING)
        if found.status in {Status.FAIL, Status.ERROR}:
            pytest.fail(told([found]), pytrace=False)

    return test


@pytest.fixture(scope="module")
def reconcile_loaded(
    request: pytest.FixtureRequest,
    django_db_setup: None,  # noqa: ARG001 - a fixture is asked for by its name
    django_db_blocker: Any,
) -> Generator[None]:
    """The file of the test is loaded; rolled back after the last test of the file."""
    from django.db import transaction

    with django_db_blocker.unblock(), transaction.atomic(using=_USING):
        try:
            _load(request.config.stash[_FILES][request.path])
            yield
        finally:
            transaction.set_rollback(True, using=_USING)


def _load(files: Sequence[Path]) -> None:
    from reconcile.errors import ReconcileError
    from reconcile.fixtures import load

    try:
        load(files, using=_USING)
    except ReconcileError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
