"""`reconcile check`, with its formats and `--fixtures`."""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import rich_click as click
import structlog
from django.db import DatabaseError

from reconcile.cli.culprits import culprits_of, suspects_named
from reconcile.cli.group import exit_code, reconcile
from reconcile.cli.options import (
    DEFAULT_SAMPLES,
    ReportFile,
    Samples,
    allow_empty_option,
    check_all,
    choice_words,
    chosen_keys,
    chosen_rules,
    database_option,
    fail_on_option,
    keys_option,
    known_database,
    require_package,
    rule_arguments,
    write_report,
)
from reconcile.db.clock import database_now
from reconcile.detect.checking import RuleCheck
from reconcile.detect.culprit import KEPT
from reconcile.errors import UsageError
from reconcile.reports import concise, github, html, json, markdown, sarif, text
from reconcile.reports.findings import CheckReport
from reconcile.rules.registry import project_rules
from reconcile.testing.fixtures import MEGABYTES, find_origins, load, throwaway_database

if TYPE_CHECKING:
    from reconcile.runs.results import PastRun

__all__ = [
    "Fixtures",
    "ReportRequest",
    "check_output_options",
    "fixture_options",
    "load_fixtures",
    "requested_reports",
    "split_arguments",
    "write_check",
]


def _junit_report(report: CheckReport) -> str:
    # The format needs a package of the extra `ci`, which may be missing.
    from reconcile.reports import junit

    return junit.check_report(report)


_MACHINE_FORMATS: Mapping[str, Callable[[CheckReport], str]] = {
    "concise": concise.check_report,
    "json": json.check_report,
    "junit": _junit_report,
    "github": github.check_report,
    "sarif": sarif.check_report,
    "markdown": markdown.check_report,
    "html": html.check_report,
}
_FORMS = ("text", *_MACHINE_FORMATS)


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """A report to write: its format, and its file; None for standard output."""

    form: str
    output: Path | None = None


class Form(click.Choice):  # type: ignore[type-arg]
    """The type of `--format`: `FORM` or `FORM=FILE`."""

    def __init__(self) -> None:
        super().__init__(_FORMS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ReportRequest:
        """The format and its file. Fails for an unknown format, and for a file in a folder that does not exist."""
        if isinstance(value, ReportRequest):
            return value
        form, equals, file = str(value).partition("=")
        chosen = str(super().convert(form, param, ctx))
        if not equals:
            return ReportRequest(chosen)
        return ReportRequest(chosen, ReportFile().convert(file, param, ctx))


def check_output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the options `--format`, which may be given several times, and `--output`."""
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


def requested_reports(forms: Sequence[ReportRequest], output: Path | None) -> Sequence[ReportRequest]:
    """The reports to write; a text report to standard output if none is asked for.

    Raises UsageError if two reports would go to one place, if `--output` could be the file of several, or if a format needs
    a package that is not installed.
    """
    asked = list(forms) or [ReportRequest("text")]
    if any(each.form == "junit" for each in asked):
        require_package("junitparser", "--format junit")
    if output is not None:
        if len(asked) > 1 or asked[0].output:
            raise UsageError(
                "--output is for a single --format that names no file. Give each its own: "
                + " ".join(f"--format {each.form}={each.output or 'FILE'}" for each in asked)
            )
        return [ReportRequest(asked[0].form, output)]
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


def write_check(ctx: click.Context, asked: Sequence[ReportRequest], report: CheckReport) -> None:
    """Make all reports first, then write them. Each is written as a whole or not at all.

    Raises UsageError if a file can't be written.
    """
    made = {each.form: _MACHINE_FORMATS[each.form](report) for each in asked if each.form in _MACHINE_FORMATS}
    machine = {form: partial(str, content) for form, content in made.items()}
    for each in asked:
        write_report(ctx, each.form, each.output, text=lambda: text.check_report(report), **machine)


Command = Callable[..., Any]
Origins = Callable[[Sequence[RuleCheck]], Mapping[tuple[str, str], str]]


@dataclass(frozen=True, kw_only=True)
class Fixtures:
    """The fixture files of a check, in the order of loading. Without files, the configured database is checked.

    as_written: no receiver is called while they are loaded.
    """

    files: Sequence[Path] = ()
    as_written: bool = False
    limit: int = MEGABYTES


def fixture_options(command: Command) -> Command:
    """Give the command the options `--fixtures`, `--as-written` and `--fixture-limit`."""
    command = click.option(
        "--fixture-limit",
        type=click.IntRange(min=1),
        metavar="MEGABYTES",
        default=MEGABYTES,
        show_default=True,
        help="How large a fixture may be, unpacked; loading takes about twice as much memory.",
    )(command)
    command = click.option(
        "--as-written",
        is_flag=True,
        help="With --fixtures: call no receiver while loading; the rows are what the files say.",
    )(command)
    return click.option(
        "--fixtures",
        "fixtures",
        multiple=True,
        metavar="FILE...",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Check these files in a throw-away database; the configured one is not touched.",
    )(command)


def split_arguments(
    names: tuple[str, ...], files: tuple[Path, ...], *, as_written: bool, limit: int = MEGABYTES
) -> tuple[tuple[str, ...], Fixtures]:
    """Split the arguments into names of rules and fixture files.

    With `--fixtures`, an argument that is a file and not a rule is one more fixture, so that `--fixtures shop/*.json` loads
    them all. Raises UsageError if a file is given twice, or if `--as-written` is given without files.
    """
    if not files:
        if as_written:
            raise UsageError("--as-written goes with --fixtures FILE: the configured database is what it is.")
        return names, Fixtures()
    rules = project_rules()
    more = [name for name in names if name not in rules and Path(name).is_file()]
    every = [*files, *map(Path, more)]
    seen: set[Path] = set()
    for file in every:
        if file.resolve() in seen:
            raise UsageError(f"Fixture {str(file)!r} is given twice. Leave one out.")
        seen.add(file.resolve())
    named = tuple(name for name in names if name not in more)
    return named, Fixtures(files=every, as_written=as_written, limit=limit)


@contextmanager
def load_fixtures(fixtures: Fixtures, using: str) -> Iterator[Origins]:
    """Load the fixtures into a throw-away database, which stands in for `using` during the block.

    Yields a function that finds the origins of the drifted rows of some checks. Without fixtures, `using` stays the configured
    database, and the function finds nothing. Raises FixtureError, and every error of `throwaway_database`.
    """
    if not fixtures.files:
        yield lambda _: {}
        return
    with throwaway_database(known_database(using)):
        places = load(fixtures.files, using=using, as_written=fixtures.as_written, limit=fixtures.limit)
        yield lambda checks: find_origins(checks, places, using=using, now=database_now(using))


@reconcile.command("check")
@rule_arguments
@database_option
@click.option(
    "--samples",
    type=Samples(),
    default=DEFAULT_SAMPLES,
    show_default=True,
    help="How many keys to show for each drift.",
)
@fail_on_option("severity")
@keys_option
@allow_empty_option
@click.option(
    "--why",
    is_flag=True,
    help="Say what sets the drifted records apart from the others, and which calls in the source may have caused it.",
)
@fixture_options
@check_output_options
@click.pass_context
def check_command(
    ctx: click.Context,
    names: tuple[str, ...],
    selectors: tuple[str, ...],
    using: str,
    samples: int,
    fail_on: Literal["warn", "error"],
    key_texts: tuple[str, ...],
    fixtures: tuple[Path, ...],
    forms: tuple[ReportRequest, ...],
    output: Path | None,
    *,
    allow_empty: bool,
    why: bool,
    as_written: bool,
    fixture_limit: int,
) -> None:
    """Count the records of which a rule is not true. Reads only."""
    asked = requested_reports(forms, output)
    if why and key_texts:
        raise UsageError(
            "--why and --keys don't go together: what sets records apart is told by all the others."
        )
    names, loaded = split_arguments(names, fixtures, as_written=as_written, limit=fixture_limit)
    rules = chosen_rules(names, selectors, using)
    run = str(uuid.uuid4())
    with load_fixtures(loaded, using) as find_origins_of:
        only = chosen_keys(key_texts, rules, using)
        started, now = time.monotonic(), database_now(using)
        with structlog.contextvars.bound_contextvars(run=run):
            checks = check_all(
                rules, using=using, now=now, samples=samples, only=only, keep=KEPT if why else 0
            )
        seconds = time.monotonic() - started
        culprits = culprits_of(checks, using=using, now=now) if why else {}
        has_trend = any(each.form == "html" for each in asked) and not fixtures and not only
        report = CheckReport(
            run=run,
            database=using,
            checks=checks,
            seconds=seconds,
            hint="" if fixtures else _repair_command(checks, names, selectors, using, key_texts),
            at=now,
            fail_on=fail_on,
            past=_past_runs(checks, using) if has_trend else {},
            origins=find_origins_of(checks),
            keys=key_texts,
            allow_empty=allow_empty,
            culprits=culprits,
            suspects=suspects_named(culprits) if culprits else {},
        )
        write_check(ctx, asked, report)
    ctx.exit(exit_code(error=report.status == "error", drift=report.failed))


def _repair_command(
    checks: Sequence[RuleCheck],
    names: Sequence[str],
    selectors: Sequence[str],
    using: str,
    keys: Sequence[str],
) -> str:
    """What prints the plan for what has drifted: of rules that were named, those that have."""
    drifted = {each.rule.name for each in checks if each.tally.total}
    some = [name for name in names if name in drifted]
    return shlex.join(["reconcile", "repair", *choice_words(some or names, selectors, using, keys)])


def _past_runs(checks: Sequence[RuleCheck], using: str) -> Mapping[str, Sequence[PastRun]]:
    """What earlier runs found for these rules. If the database can't tell, there is a remark and the report has no trend."""
    from reconcile.runs.results import past_runs

    evaluated = [each.rule.name for each in checks if not each.error]
    try:
        return past_runs(evaluated, using=using) if evaluated else {}
    except DatabaseError as error:
        click.echo(f"There is no trend: {str(error).strip()}", err=True)
        return {}
