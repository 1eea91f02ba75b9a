"""`reconcile baseline update` and `reconcile baseline verify`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rich_click as click
from django.utils import timezone

from reconcile._baseline_file import as_toml, read
from reconcile.baseline import (
    LIMIT,
    Baseline,
    Comparison,
    compared,
    known_rules,
    pruned,
    updated,
    with_entries,
)
from reconcile.checking import RuleCheck, check
from reconcile.cli._group import EXIT_DRIFT, EXIT_ERROR, reconcile
from reconcile.cli._options import (
    ReportFile,
    _write_file,
    chosen_rules,
    database_option,
    output_options,
    rule_arguments,
    write_report,
)
from reconcile.cli._progress import bar
from reconcile.errors import UsageError
from reconcile.registry import valid_rules
from reconcile.reports._baseline import BaselineReport, as_json, as_text
from reconcile.rules import Rule

DEFAULT_FILE = "reconcile-baseline.toml"

Command = Callable[..., Any]


@reconcile.group("baseline", cls=click.RichGroup)
def baseline_group() -> None:
    """Accept today's drift, and fail on new drift alone."""


def file_option(kind: click.Path) -> Callable[[Command], Command]:
    """`--file`, of which `kind` says what it must allow."""
    return click.option(
        "--file", type=kind, default=DEFAULT_FILE, show_default=True, metavar="FILE", help="The baseline."
    )


@baseline_group.command("update")
@rule_arguments
@database_option
@file_option(ReportFile())
@click.option("--only-mended", is_flag=True, help="Take out what is mended, and let nothing new in.")
@output_options
@click.pass_context
def update_command(
    ctx: click.Context,
    names: tuple[str, ...],
    selectors: tuple[str, ...],
    using: str,
    file: Path,
    *,
    only_mended: bool,
    form: str,
    output: Path | None,
) -> None:
    """Write the drift that there is into the baseline. With rules, only theirs is written anew."""
    started = time.monotonic()
    rules = chosen_rules(names, selectors, using)
    baseline = read(file) if file.exists() or only_mended else {}
    checks = _checked(rules, using)
    here = baseline.get(using, {})
    held = pruned if only_mended else updated
    entries = {each.rule.name: held(each, here.get(each.rule.name)) for each in checks}
    others = here if names or selectors else ()
    report = BaselineReport(
        database=using,
        file=str(file),
        comparisons=_compared(checks, baseline, using),
        seconds=time.monotonic() - started,
        prune=_command("--only-mended", using, file),
        held={
            name: sum(rows.number for rows in entry.drifted.values()) if entry else 0
            for name, entry in entries.items()
        },
    )
    if not report.failed:
        _write_baseline(file, with_entries(baseline, entries, using=using, others=others))
    _write(ctx, form, output, report)
    ctx.exit(EXIT_ERROR if report.failed else 0)


@baseline_group.command("verify")
@rule_arguments
@database_option
@file_option(click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--fail-on",
    type=click.Choice(["warn", "error"]),
    default="error",
    show_default=True,
    help="Least severity of new drift that makes the exit code 1.",
)
@output_options
@click.pass_context
def verify_command(
    ctx: click.Context,
    names: tuple[str, ...],
    selectors: tuple[str, ...],
    using: str,
    file: Path,
    fail_on: str,
    form: str,
    output: Path | None,
) -> None:
    """Fail on drift that the baseline doesn't have, and on drift that it has and that is mended. Reads only."""
    started = time.monotonic()
    rules = chosen_rules(names, selectors, using)
    baseline = read(file)
    known_rules(baseline, valid_rules(), using=using, command=_command("", using, file))
    comparisons = _compared(_checked(rules, using), baseline, using)
    report = BaselineReport(
        database=using,
        file=str(file),
        comparisons=comparisons,
        seconds=time.monotonic() - started,
        prune=_command("--only-mended", using, file),
    )
    _write(ctx, form, output, report)
    failing = {"drift", "warn"} if fail_on == "warn" else {"drift"}
    ctx.exit(EXIT_ERROR if report.status == "error" else EXIT_DRIFT if report.status in failing else 0)


def _write_baseline(file: Path, baseline: Baseline) -> None:
    try:
        _write_file(file, lambda target: target.write(as_toml(baseline)))
    except OSError as error:
        raise UsageError(
            f"The baseline can't be written to {str(file)!r}: {error.strerror or error}."
        ) from error


def _write(ctx: click.Context, form: str, output: Path | None, report: BaselineReport) -> None:
    write_report(ctx, form, output, text=lambda: as_text(report), json=lambda: as_json(report))


def _checked(rules: Mapping[str, Rule], using: str) -> list[RuleCheck]:
    now = timezone.now()
    checks = []
    with bar("checking", total=len(rules)) as advance:
        for name, rule in rules.items():
            advance(name, 0)
            checks.append(check(rule, using=using, now=now, samples=LIMIT))
            advance(name, 1)
    return checks


def _compared(checks: list[RuleCheck], baseline: Baseline, using: str) -> list[Comparison]:
    here = baseline.get(using, {})
    return [compared(each, here.get(each.rule.name)) for each in checks]


def _command(flag: str, using: str, file: Path) -> str:
    """How to update the baseline, as somebody would type it."""
    parts = ["reconcile baseline update", flag]
    parts += [f"--database {using}"] if using != "default" else []
    parts += [f"--file {shlex.quote(str(file))}"] if str(file) != DEFAULT_FILE else []
    return " ".join(filter(None, parts))
