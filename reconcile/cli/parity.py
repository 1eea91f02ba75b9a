"""`reconcile signals parity`: whether a bulk write and `ensure` leave what saves and their signals leave, or two functions the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from reconcile.cli.group import exit_code, set_up_django
from reconcile.cli.options import (
    chosen_rules,
    database_option,
    formats_and_output,
    known_database,
    require_package,
    rule_arguments,
    write_report,
)
from reconcile.cli.signals import signals_group
from reconcile.errors import UsageError
from reconcile.rules.registry import rules_if_any

if TYPE_CHECKING:
    from reconcile.audit.parity.suite import ParityOptions, Suite

__all__ = ["parity_command"]

_BOTH = 2


@signals_group.command("parity")
@rule_arguments
@click.option("--all", "is_all", is_flag=True, help="Compare for all rules that cover something.")
@click.option(
    "--fixtures",
    "fixtures",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Records for rules without a factory. With two functions: what is there before. Repeat it for several.",
)
@click.option(
    "--on-copy",
    "is_copy",
    is_flag=True,
    help="Work on the database as it is, which is a copy, and use its rows. Without it: on a throw-away database.",
)
@click.option(
    "--volatile",
    multiple=True,
    metavar="app.Model.field",
    help="Compare only the shape of this: NULL, empty or a value. Repeat it for several.",
)
@click.option(
    "--ignore",
    "ignored",
    multiple=True,
    metavar="app.Model",
    help="Compare nothing of this table. Repeat it for several.",
)
@database_option
@formats_and_output("text", "json", "junit")
@click.pass_context
def parity_command(
    ctx: click.Context,
    names: tuple[str, ...],
    selectors: tuple[str, ...],
    fixtures: tuple[Path, ...],
    volatile: tuple[str, ...],
    ignored: tuple[str, ...],
    using: str,
    form: str,
    output: Path | None,
    *,
    is_all: bool,
    is_copy: bool,
) -> None:
    """Show that a bulk write and ensure() leave what saves and their signals leave: rows, messages and mails.

    For RULEs on the records of their factories; or for two functions, `package.module:one package.module:two`, whatever they do. Each path runs twice, and all
    is rolled back. Exits with 1 if the paths differ.
    """
    from reconcile.audit.parity.suite import ParityOptions
    from reconcile.reports import parity as reports

    if form == "junit":
        require_package("junitparser", "--format junit")
    set_up_django()
    options = ParityOptions(
        using=known_database(using), fixtures=fixtures, volatile=volatile, ignored=ignored, is_copy=is_copy
    )
    suite = _compare(names, selectors, options, is_all=is_all)
    write_report(
        ctx,
        form,
        output,
        text=lambda: reports.as_text(suite),
        json=lambda: reports.as_json(suite),
        junit=lambda: reports.as_junit(suite, rules_if_any()),
    )
    ctx.exit(exit_code(error=suite.status == "error", drift=suite.status != "same"))


def _compare(
    names: tuple[str, ...], selectors: tuple[str, ...], options: ParityOptions, *, is_all: bool
) -> Suite:
    from reconcile.audit.parity.named import named_function
    from reconcile.audit.parity.suite import compare_functions, compare_rules
    from reconcile.testing.fixtures import load

    if options.fixtures and options.is_copy:
        raise UsageError(
            "--fixtures go into a throw-away database, and not into one that holds rows: leave out --on-copy."
        )

    functions = [each for each in names if ":" in each]
    if functions:
        if len(names) != _BOTH or len(functions) != _BOTH or is_all or selectors:
            raise UsageError(
                "Two functions are compared with each other, and nothing beside them: reconcile signals parity shop.paths:one shop.paths:two"
            )
        one, two = map(named_function, functions)
        with _database(options):
            if options.fixtures:
                load(options.fixtures, using=options.using, as_written=True)
            return compare_functions(one, two, (functions[0], functions[1]), options)
    if bool(names or selectors) == is_all:
        raise UsageError("Name the rules, or two functions, or say --all.")
    rules = chosen_rules(names, selectors, options.using)
    if is_all:
        rules = {name: rule for name, rule in rules.items() if rule.covers or rule.factory}
    with _database(options):
        return compare_rules(rules, options)


@contextmanager
def _database(options: ParityOptions) -> Iterator[None]:
    """The copy, if it is one; else a throw-away database."""
    from reconcile.detect.checking import evaluation_errors
    from reconcile.testing.fixtures import throwaway_database

    if options.is_copy:
        with evaluation_errors(options.using):
            yield
    else:
        with throwaway_database(options.using):
            yield
