"""The formats of `check`: which are asked for, where each goes, and what makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rich_click as click

from reconcile.cli._options import ReportFile, write_report
from reconcile.errors import UsageError
from reconcile.reports import _markdown_check, concise, github, html, json, junit, sarif, text
from reconcile.reports._summary import CheckReport

__all__ = ["Asked", "asked_for", "check_output_options", "write_check"]

_MACHINE: Mapping[str, Callable[[CheckReport], str]] = {
    "concise": concise.check_report,
    "json": json.check_report,
    "junit": junit.check_report,
    "github": github.check_report,
    "sarif": sarif.check_report,
    "markdown": _markdown_check.check_report,
    "html": html.check_report,
}
_FORMS = ("text", *_MACHINE)


@dataclass(frozen=True, slots=True)
class Asked:
    """A report that was asked for, and the file that it goes to; None for standard output."""

    form: str
    output: Path | None = None


class Form(click.Choice):  # type: ignore[type-arg]
    """`FORM`, or `FORM=FILE`."""

    def __init__(self) -> None:
        super().__init__(_FORMS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Asked:
        """The format, and its file in a folder that is there."""
        if isinstance(value, Asked):
            return value
        form, equals, file = str(value).partition("=")
        chosen = str(super().convert(form, param, ctx))
        return Asked(chosen, ReportFile().convert(file, param, ctx) if equals else None)


def check_output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--format`, which may be given several times, and `--output`."""
    command = click.option(
        "--output", type=ReportFile(), metavar="FILE", help="Write the one report to this file."
    )(command)
    return click.option(
        "--format",
        "forms",
        type=Form(),
        multiple=True,
        metavar="FORM[=FILE]",
        help=f"Report format, and its file: {', '.join(_FORMS)}. Repeat it for several. [default: text]",
    )(command)


def asked_for(forms: Sequence[Asked], output: Path | None) -> Sequence[Asked]:
    """The reports to be made; raises UsageError where two would go to one place, or `--output` is in doubt."""
    asked = list(forms) or [Asked("text")]
    if output is not None:
        if len(asked) > 1 or asked[0].output:
            raise UsageError(
                "--output is for a single --format that names no file. Give each its own: "
                + " ".join(f"--format {each.form}={each.output or 'FILE'}" for each in asked)
            )
        return [Asked(asked[0].form, output)]
    printed = [each.form for each in asked if each.output is None]
    if len(printed) > 1:
        raise UsageError(
            f"{' and '.join(printed)} can't both go to standard output. "
            f"Give all but one a file: --format {printed[0]}=FILE --format {printed[-1]}"
        )
    files = [each.output.absolute() for each in asked if each.output]
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise UsageError(f"Two reports would go to {str(twice)!r}. Give each a file of its own.")
    return asked


def write_check(ctx: click.Context, asked: Sequence[Asked], report: CheckReport) -> None:
    """Make every report, then write each whole or not at all; raises UsageError where a file can't be written."""
    made = {each.form: _MACHINE[each.form](report) for each in asked if each.form in _MACHINE}
    for each in asked:
        machine = {form: partial(str, said) for form, said in made.items()}
        write_report(ctx, each.form, each.output, text=lambda: text.check_report(report), **machine)
