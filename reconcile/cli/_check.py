"""`reconcile check`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import rich_click as click
import structlog
from django.db import DatabaseError
from django.utils import timezone

from reconcile.checking import RuleCheck, check
from reconcile.cli._fixtures import fixture_options, holding, taken_from
from reconcile.cli._forms import Asked, asked_for, check_output_options, write_check
from reconcile.cli._group import EXIT_DRIFT, EXIT_ERROR, reconcile
from reconcile.cli._options import (
    DEFAULT_SAMPLES,
    Samples,
    chosen_rules,
    database_option,
    rule_arguments,
)
from reconcile.cli._progress import bar
from reconcile.reports._summary import CheckReport
from reconcile.rules import Rule

if TYPE_CHECKING:
    from reconcile.history import Past


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
@click.option(
    "--fail-on",
    type=click.Choice(["warn", "error"]),
    default="error",
    show_default=True,
    help="Least severity that makes the exit code 1.",
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
    fixtures: tuple[Path, ...],
    forms: tuple[Asked, ...],
    output: Path | None,
    *,
    fast: bool,
    as_written: bool,
) -> None:
    """Count the records of which a rule is not true. Reads only."""
    asked = asked_for(forms, output)
    names, loaded = taken_from(names, fixtures, fast=fast, as_written=as_written)
    rules = chosen_rules(names, selectors, using)
    run = str(uuid.uuid4())
    with holding(loaded, using) as origins:
        started, now = time.monotonic(), timezone.now()
        with structlog.contextvars.bound_contextvars(run=run):
            checks = _checked(rules, using, samples, now)
        hint = " ".join(
            ["reconcile repair", *names, *(f"--select {each}" for each in selectors)]
            + ([f"--database {using}"] if using != "default" else [])
        )
        seconds = time.monotonic() - started
        trend = any(each.form == "html" for each in asked) and not fixtures
        report = CheckReport(
            run=run,
            database=using,
            checks=checks,
            seconds=seconds,
            hint="" if fixtures else hint,
            at=now,
            fail_on=fail_on,
            past=_past(checks, using) if trend else {},
            origins=origins(checks),
        )
        write_check(ctx, asked, report)
    ctx.exit(_code(report, fail_on))


def _past(checks: Sequence[RuleCheck], using: str) -> Mapping[str, Sequence[Past]]:
    """What earlier runs found; where the database won't say, a report has no trend, and is none the worse for it."""
    from reconcile.history import past

    evaluated = [each.rule.name for each in checks if not each.error]
    try:
        return past(evaluated, using=using) if evaluated else {}
    except DatabaseError as error:
        click.echo(f"There is no trend: {str(error).strip()}", err=True)
        return {}


def _checked(rules: Mapping[str, Rule], using: str, samples: int, now: datetime) -> list[RuleCheck]:
    checks = []
    with bar("checking", total=len(rules)) as advance:
        for name, rule in rules.items():
            advance(name, 0)
            checks.append(check(rule, using=using, now=now, samples=samples))
            advance(name, 1)
    return checks


def _code(report: CheckReport, fail_on: str) -> int:
    failing = {"drift", "warn"} if fail_on == "warn" else {"drift"}
    if report.status == "error":
        return EXIT_ERROR
    return EXIT_DRIFT if report.status in failing else 0
