"""Options that several commands share, and what they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import rich_click as click
from django.db import connections
from rich.console import Console, RenderableType

from reconcile.cli._group import standard_output
from reconcile.errors import ReconcileError, UnknownNameError, UsageError
from reconcile.limits import is_limit
from reconcile.registry import select, valid_rules
from reconcile.rules import Rule

__all__ = [
    "DEFAULT_SAMPLES", "WIDTH", "Limit", "Samples", "chosen_rules", "database_option", "formats_and_output", "known_database", "output_options", "rule_arguments",
    "stderr_console", "write_report",
]  # fmt: skip

Command = Callable[..., Any]

DEFAULT_SAMPLES = 5

WIDTH = 140
"""Columns of a text report that does not go to a terminal."""


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
        limit = int(value) if re.fullmatch(r"[0-9]+", str(value)) else value
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


class ReportFile(click.Path):
    """A file that a report can be written to; looked at before anything is run."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, in a folder that is there."""
        path = Path(str(super().convert(value, param, ctx)))
        if not str(value) or not path.parent.is_dir():
            self.fail(f"{str(value)!r} is not in a folder that exists.", param, ctx)
        return path


def formats_and_output(*forms: str) -> Callable[[Command], Command]:
    """`--format`, with these to choose from, and `--output`."""

    def options(command: Command) -> Command:
        command = click.option(
            "--output", type=ReportFile(), metavar="FILE", help="Write the report to this file."
        )(command)
        return click.option(
            "--format",
            "form",
            type=click.Choice(forms),
            default="text",
            show_default=True,
            help="Report format.",
        )(command)

    return options


output_options = formats_and_output("text", "json")


def chosen_rules(
    names: tuple[str, ...], selectors: tuple[str, ...], using: str | None = None
) -> Mapping[str, Rule]:
    """The project's rules that were asked for, and are about the database `using`; raises UsageError."""
    return select(valid_rules(), names, selectors, using=known_database(using) if using else None)


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
    output: Path | None,
    *,
    text: Callable[[], RenderableType],
    **machine: Callable[[], str],
) -> None:
    """Write the report in the chosen format to the file, whole or not at all, or to standard output.

    `machine` has what makes each of the other formats, under its name.
    """

    def write(target: Any) -> None:
        if form in machine:
            said = machine[form]()
            # A format that has a line for each thing found is empty where there is none.
            target.write(f"{said}\n" if said else "")
        else:
            width = None if target.isatty() else WIDTH
            Console(file=target, highlight=False, width=width).print(text(), crop=False)
        target.flush()

    if output is None:
        _write_out(standard_output(ctx), write)
        return
    try:
        _write_file(output, write)
    except OSError as error:
        raise UsageError(
            f"The report can't be written to {str(output)!r}: {error.strerror or error}."
        ) from error


def _write_out(target: Any, write: Callable[[Any], None]) -> None:
    """Write the report to standard output; whoever reads only its beginning is click's to deal with."""
    if target is None:
        raise _unwritten("it is closed")
    try:
        write(target)
    except BrokenPipeError:
        raise
    except OSError as error:
        with suppress(OSError, AttributeError):
            # What the buffer still holds would fail again at the very end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), target.fileno())
        raise _unwritten(error.strerror or str(error)) from error


def _unwritten(why: str) -> ReconcileError:
    return ReconcileError(
        f"The report can't be written to standard output: {why}. What a repair or an undo has written stands; see: reconcile runs"
    )


def _write_file(output: Path, write: Callable[[Any], None]) -> None:
    if output.exists() and not output.is_file():
        # A device or a pipe can only be written through; there is nothing to replace.
        with output.open("w", encoding="utf-8") as target:
            write(target)
        return
    with NamedTemporaryFile(
        "w", encoding="utf-8", dir=output.parent, prefix=f".{output.name}.", delete=False
    ) as temporary:
        try:
            write(temporary)
        except BaseException:
            Path(temporary.name).unlink()
            raise
    Path(temporary.name).chmod(0o644)
    Path(temporary.name).replace(output)
