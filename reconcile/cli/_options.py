"""Options that several commands share, and what they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import IO, Any

import rich_click as click
from django.db import connections
from rich.console import Console, RenderableType

from reconcile.cli._group import standard_output
from reconcile.errors import UnknownNameError
from reconcile.registry import select, valid_rules
from reconcile.rules import Rule, is_limit

__all__ = [
    "Limit", "Samples", "chosen_rules", "database_option", "known_database", "output_options", "rule_arguments",
    "stderr_console", "write_report",
]  # fmt: skip

Command = Callable[..., Any]

DEFAULT_SAMPLES = 5


class Samples(click.ParamType):  # type: ignore[type-arg]
    """`N`, `keys` or `off`, as a number of keys."""

    name = "N|keys|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of keys of each kind of drift to show."""
        named = {"keys": DEFAULT_SAMPLES, "off": 0}
        if isinstance(value, int):
            return value
        if value in named:
            return named[value]
        if not re.fullmatch(r"\d{1,6}", value):
            self.fail(f"{value!r} is none of a number, 'keys' and 'off'.", param, ctx)
        return int(value)


class Limit(click.ParamType):  # type: ignore[type-arg]
    """A count of rows, or a percent of the checked records."""

    name = "N|N%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The count as a number, the percent as text."""
        limit = int(value) if isinstance(value, str) and value.isdigit() else value
        if limit is None or not is_limit(limit):
            self.fail(f"{value!r} is neither a count such as 100 nor a percent such as 0.5%.", param, ctx)
        return limit


def rule_arguments(command: Command) -> Command:
    """`[RULE…]` and `--select`."""
    command = click.option(
        "--select",
        "selectors",
        multiple=True,
        metavar="KIND:VALUE",
        help="Rules by tag:…, owner:… or model:app.Model.",
    )(command)
    return click.argument("names", nargs=-1, metavar="[RULE]...")(command)


def database_option(command: Command) -> Command:
    """`--database`."""
    return click.option(
        "--database",
        "using",
        default="default",
        show_default=True,
        metavar="ALIAS",
        help="Database to work on.",
    )(command)


def output_options(command: Command) -> Command:
    """`--format` and `--output`."""
    command = click.option(
        "--output", type=click.File("w", atomic=True, lazy=False), help="Write the report to this file."
    )(command)
    return click.option(
        "--format",
        "form",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="Report format.",
    )(command)


def chosen_rules(names: tuple[str, ...], selectors: tuple[str, ...]) -> Mapping[str, Rule]:
    """The project's rules that were asked for; raises UsageError."""
    return select(valid_rules(), names, selectors)


def known_database(using: str) -> str:
    """`using`, if the settings have it; raises UnknownNameError."""
    if using not in connections:
        raise UnknownNameError(
            "database", using, connections, instead=f" The settings have {', '.join(connections)}."
        )
    return using


def stderr_console() -> Console:
    """Where progress and remarks go."""
    return Console(stderr=True)


def write_report(
    ctx: click.Context,
    form: str,
    output: IO[str] | None,
    *,
    text: Callable[[], RenderableType],
    json: Callable[[], str],
) -> None:
    """Write the report in the chosen format to the file, or to standard output."""
    target = output or standard_output(ctx)
    if form == "json":
        target.write(f"{json()}\n")
        target.flush()
        return
    Console(file=target, highlight=False, width=None if target.isatty() else 160).print(text())
