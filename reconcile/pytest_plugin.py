"""The pytest plugin. pytest imports this module in every project that has the package installed, so that nothing of
Django, and nothing more of the package, is imported until a test asks for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from reconcile.rules.rule import Rule
    from reconcile.testing.assertions import Records

__all__ = ["assert_consistent"]

_MARKER = (
    "reconcile(rules=None, *, settled=True, using='default'): after the test, fail it where what it wrote drifts from the "
    "rules. Without rules, all of the project."
)
_NO_DJANGO = (
    "needs pytest-django and Django's settings. Install pytest-django and set DJANGO_SETTINGS_MODULE."
)


def assert_consistent(
    records: Records,
    rules: Iterable[str | Rule] | None = None,
    *,
    using: str | None = None,
    settled: bool = True,
) -> None:
    """Assert that the rules are true of these records; the same as `reconcile.testing.assert_consistent`."""
    __tracebackhide__ = True
    from reconcile import testing

    testing.assert_consistent(records, rules, using=using, settled=settled)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--reconcile`, `--reconcile-fixtures`, `--reconcile-bypasses`, and the setting `reconcile_fixtures`."""
    group = parser.getgroup("reconcile")
    group.addoption(
        "--reconcile",
        action="store_true",
        help="Add a test for each rule and fixture file: the rule is true of what the file holds.",
    )
    group.addoption(
        "--reconcile-fixtures",
        action="append",
        default=[],
        metavar="FILE",
        help="Fixture file, or a pattern of several; in place of the setting reconcile_fixtures. May be given again.",
    )
    group.addoption(
        "--reconcile-bypasses",
        metavar="FILE",
        help="Record which calls wrote past signals and methods, for `reconcile signals bypasses --seen FILE`.",
    )
    parser.addini(
        "reconcile_fixtures",
        "Fixture files for --reconcile, or patterns, one a line, from the root folder.",
        type="linelist",
        default=[],
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known; where Django is there, watch for it, and collect the fixture files."""
    config.addinivalue_line("markers", _MARKER)
    if _has_django(config):
        from reconcile.testing import pytest_marker as watching

        config.pluginmanager.register(watching, "reconcile-watching")
    if config.getoption("--reconcile"):
        if not _has_django(config):
            raise pytest.UsageError(f"--reconcile {_NO_DJANGO}")
        from reconcile.testing import pytest_fixture_files as fixture_files

        config.pluginmanager.register(fixture_files.prepare_collector(config), "reconcile-collecting")
        config.pluginmanager.register(fixture_files, "reconcile-fixture-files")
    if config.getoption("--reconcile-bypasses"):
        if not _has_django(config):
            raise pytest.UsageError(f"--reconcile-bypasses {_NO_DJANGO}")
        from reconcile.testing.pytest_bypasses import Recorder

        path = Path(config.invocation_params.dir, config.getoption("--reconcile-bypasses"))
        if not path.parent.is_dir():
            raise pytest.UsageError(f"--reconcile-bypasses: {str(path)!r} is not in a folder that exists.")
        config.pluginmanager.register(Recorder(path), "reconcile-bypasses")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A marker that nobody watches for must not look like a test that has passed."""
    if item.get_closest_marker("reconcile") is not None and not _has_django(item.config):
        pytest.fail(f"@pytest.mark.reconcile {_NO_DJANGO}", pytrace=False)


@pytest.fixture
def reconcile_check(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`reconcile_check(*rules, using="default", settled=True)`: fail the test unless the rules are true of every record.

    Rules by name or as they are; without any, all of the project.
    """
    if not _has_django(request.config):
        pytest.fail(f"reconcile_check {_NO_DJANGO}", pytrace=False)
    request.getfixturevalue("db")

    def check(*rules: str | Rule, using: str = "default", settled: bool = True) -> None:
        __tracebackhide__ = True
        from reconcile import testing

        testing.assert_rules(*rules, using=using, settled=settled)

    return check


def _has_django(config: pytest.Config) -> bool:
    """Whether pytest-django works here: it leaves a project alone that has no settings, and so does this."""
    if not config.pluginmanager.hasplugin("django"):
        return False
    conf: Any = sys.modules.get("django.conf")
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE")) or bool(conf and conf.settings.configured)
