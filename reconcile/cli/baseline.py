"""`reconcile baseline update` and `reconcile baseline verify`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import rich_click as click

from reconcile.baseline import (
    LIMIT,
    Baseline,
    Entry,
    as_toml,
    compare,
    known_rules,
    prune_entry,
    read_baseline,
    update_entry,
    with_entries,
)
from reconcile.cli.group import exit_code, reconcile
from reconcile.cli.options import (
    ReportFile,
    allow_empty_option,
    check_all,
    choice_words,
    chosen_rules,
    database_option,
    fail_on_option,
    output_options,
    require_package,
    rule_arguments,
    write_report,
    write_text,
)
from reconcile.db.clock import database_now
from reconcile.reports import json
from reconcile.reports.findings import BaselineReport
from reconcile.reports.text_baseline import baseline_text
from reconcile.rules.registry import project_rules, select
from reconcile.rules.rule import Rule

DEFAULT_FILE = "reconcile-baseline.toml"

Command = Callable[..., Any]


@reconcile.group("baseline", cls=click.RichGroup)
def baseline_group() -> None:
    """Accept today's drift, and fail on new drift alone."""


def file_option(kind: click.Path) -> Callable[[Command], Command]:
    """The option `--file`. `kind` says whether the file must be writable."""
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
    require_package("tomlkit", "baseline update")
    rules = chosen_rules(names, selectors, using)
    baseline = read_baseline(file) if file.exists() or only_mended else {}
    report = _compare_rules(rules, baseline, using=using, file=file, started=started)
    known = baseline.get(using, {})
    new_entry = prune_entry if only_mended else update_entry
    entries = {
        comparison.check.rule.name: new_entry(comparison.check, known.get(comparison.check.rule.name))
        for comparison in report.comparisons
    }
    report = replace(report, rows_in_file={name: _number(entry) for name, entry in entries.items()})
    everything = not names and rules.keys() == select(project_rules(), using=using).keys()
    others = () if everything else known
    if not report.failed:
        _write_baseline(file, with_entries(baseline, entries, using=using, others=others))
    _write_report(ctx, form, output, report)
    ctx.exit(exit_code(error=report.failed))


@baseline_group.command("verify")
@rule_arguments
@database_option
@file_option(click.Path(dir_okay=False, path_type=Path))
@fail_on_option("severity of new drift")
@allow_empty_option
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
    *,
    allow_empty: bool,
) -> None:
    """Fail on drift that the baseline doesn't have, and on drift that it has and that is mended. Reads only."""
    started = time.monotonic()
    rules = chosen_rules(names, selectors, using)
    baseline = read_baseline(file)
    known_rules(baseline, project_rules(), using=using, command=_update_command("", using, file))
    report = _compare_rules(rules, baseline, using=using, file=file, started=started)
    report = replace(report, allow_empty=allow_empty)
    _write_report(ctx, form, output, report)
    failing = {"drift", "warn"} if fail_on == "warn" else {"drift"}
    failing |= set() if allow_empty else {"empty"}
    ctx.exit(exit_code(error=report.status == "error", drift=report.status in failing))


def _compare_rules(
    rules: Mapping[str, Rule], baseline: Baseline, *, using: str, file: Path, started: float
) -> BaselineReport:
    """Check the rules, and report how the drift compares with the baseline. Nothing is written."""
    checks = check_all(rules, using=using, now=database_now(using), samples=LIMIT)
    known = baseline.get(using, {})
    return BaselineReport(
        database=using,
        file=str(file),
        comparisons=[compare(check, known.get(check.rule.name)) for check in checks],
        seconds=time.monotonic() - started,
        prune=_update_command("--only-mended", using, file),
    )


def _number(entry: Entry | None) -> int:
    """The number of drifted rows in an entry."""
    return sum(rows.number for rows in entry.drifted.values()) if entry else 0


def _write_baseline(file: Path, baseline: Baseline) -> None:
    write_text(file, as_toml(baseline), "The baseline")


def _write_report(ctx: click.Context, form: str, output: Path | None, report: BaselineReport) -> None:
    write_report(
        ctx, form, output, text=lambda: baseline_text(report), json=lambda: json.baseline_report(report)
    )


def _update_command(flag: str, using: str, file: Path) -> str:
    """The command that updates the baseline. Options that have their default are left out."""
    words = ["reconcile baseline update", *([flag] if flag else []), *choice_words((), (), using)]
    if str(file) != DEFAULT_FILE:
        words.append(f"--file {shlex.quote(str(file))}")
    return " ".join(words)
