"""`reconcile check`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import rich_click as click
import structlog
from django.utils import timezone

from reconcile.checking import RuleCheck, check
from reconcile.cli._group import EXIT_DRIFT, EXIT_ERROR, reconcile
from reconcile.cli._options import (
    DEFAULT_SAMPLES,
    Samples,
    chosen_rules,
    database_option,
    output_options,
    rule_arguments,
    write_report,
)
from reconcile.cli._progress import bar
from reconcile.reports import json, text
from reconcile.reports._summary import CheckReport
from reconcile.rules import Rule


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
@output_options
@click.pass_context
def check_command(
    ctx: click.Context,
    names: tuple[str, ...],
    selectors: tuple[str, ...],
    using: str,
    samples: int,
    fail_on: str,
    form: str,
    output: Path | None,
) -> None:
    """Count the records of which a rule is not true. Reads only."""
    started = time.monotonic()
    rules = chosen_rules(names, selectors, using)
    run = str(uuid.uuid4())
    with structlog.contextvars.bound_contextvars(run=run):
        checks = _checked(rules, using, samples)
    hint = " ".join(
        ["reconcile repair", *names, *(f"--select {each}" for each in selectors)]
        + ([f"--database {using}"] if using != "default" else [])
    )
    seconds = time.monotonic() - started
    report = CheckReport(run=run, database=using, checks=checks, seconds=seconds, hint=hint)
    write_report(
        ctx, form, output, text=lambda: text.check_report(report), json=lambda: json.check_report(report)
    )
    ctx.exit(_code(report, fail_on))


def _checked(rules: Mapping[str, Rule], using: str, samples: int) -> list[RuleCheck]:
    now = timezone.now()
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
