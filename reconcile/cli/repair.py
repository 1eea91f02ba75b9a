"""`reconcile repair` and `reconcile runs resume`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from reconcile.cli.group import exit_code, reconcile
from reconcile.cli.options import (
    DEFAULT_SAMPLES,
    Limit,
    allow_empty_option,
    chosen_keys,
    chosen_rules,
    database_option,
    keys_option,
    known_database,
    output_options,
    progress_bar,
    rule_arguments,
    write_report,
    write_text,
)
from reconcile.cli.runs import runs_group
from reconcile.core.drift import Drift, Sample
from reconcile.core.scopes import EVERYTHING, Keys, Scope
from reconcile.db.clock import clock_skew, database_now
from reconcile.detect.listing import drifted_rows
from reconcile.errors import UnknownNameError, UsageError
from reconcile.repair.plan_file import PlanFile, read_plan
from reconcile.reports import json, text
from reconcile.reports.findings import RepairReport, RowsByDrift, local_time
from reconcile.reports.repair_sql import repair_sql
from reconcile.rules.registry import project_rules
from reconcile.rules.rule import Rule

if TYPE_CHECKING:
    from reconcile.runs import RuleRepair


@reconcile.command("repair")
@rule_arguments
@database_option
@click.option(
    "--apply", "applied", is_flag=True, help="Write. Without it the plan is printed and nothing is written."
)
@click.option(
    "--max-repairs",
    type=Limit(),
    help="Stop before the first write if a rule plans more; instead of the rule's own cap.",
)
@click.option("--max-deletes", type=Limit(), help="The same for rows that would be deleted.")
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write only what this plan has: the JSON report of an earlier repair without --apply.",
)
@click.option(
    "--show",
    type=click.IntRange(min=0),
    metavar="N",
    help="Of each kind of drift, rows of a plan to show as there → owed. [default: 3 on a terminal, else 0]",
)
@click.option(
    "--values", is_flag=True, help="With --format json: the same rows in the report; without it, it has none."
)
@click.option(
    "--sql",
    "sql_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write into FILE what would be executed, as SQL to read: a chunk of each kind of drift.",
)
@keys_option
@allow_empty_option
@output_options
@click.pass_context
def repair_command(
    ctx: click.Context,
    names: tuple[str, ...],
    selectors: tuple[str, ...],
    using: str,
    max_repairs: int | str | None,
    max_deletes: int | str | None,
    plan_file: Path | None,
    key_texts: tuple[str, ...],
    show: int | None,
    sql_file: Path | None,
    form: str,
    output: Path | None,
    *,
    applied: bool,
    values: bool,
    allow_empty: bool,
) -> None:
    """Print what a repair would write; with --apply, write it and verify it."""
    from reconcile import runs
    from reconcile.repair.caps import Caps

    started = time.monotonic()
    _refuse_combinations(ctx.params)
    rules = chosen_rules(names, selectors, using)
    only = chosen_keys(key_texts, rules, using)
    kept = read_plan(plan_file) if plan_file else None
    if kept is not None:
        rules = _rules_of_plan(rules, kept, names, using)
    given: Mapping[str, Any] = {
        "using": using, "caps": Caps(max_repairs=max_repairs, max_deletes=max_deletes), "kept_plan": kept, "only": only,
    }  # fmt: skip
    run = None
    rows: Mapping[str, RowsByDrift] = {}
    if applied:
        _tell_of_clock(using)
        with progress_bar("repairing", total=None) as advance:
            run, repairs = runs.repair(rules, progress=advance, **given)
    else:
        number = _number_of_rows(show, form, output, values=values)
        samples = max(number, show or 0, DEFAULT_SAMPLES)
        repairs = runs.preview(rules, now=database_now(using), samples=samples, **given)
        rows = _rows_of_plan(rules, repairs, number, using, only)
    report = RepairReport(
        asked=applied,
        run=str(run.pk) if run else None,
        database=using,
        repairs=repairs,
        rows=rows,
        seconds=time.monotonic() - started,
        allow_empty=allow_empty,
    )
    if sql_file is not None:
        _write_sql(sql_file, report, rules, show or SHOWN, only)
    _write_report_and_exit(ctx, report, form, output)


def _refuse_combinations(given: Mapping[str, Any]) -> None:
    """Raise UsageError for options that don't go together, by the names of the command's parameters."""
    if given["values"] and given["form"] != "json":
        raise UsageError("--values is for --format json. A plan for people has them by --show N.")
    if given["key_texts"] and given["plan_file"]:
        raise UsageError("--plan has been made for all records of its rules. Leave --keys out.")
    if given["sql_file"] and given["applied"]:
        raise UsageError("--sql writes what a repair would execute. Leave --apply out, and read it first.")
    if given["sql_file"]:
        _refuse_sql_file(given["sql_file"], given["plan_file"], given["output"], given["show"])


MOST_IN_SQL = 500
"""Records of one kind of drift in the SQL of a repair; each statement takes as many."""


def _refuse_sql_file(file: Path, plan_file: Path | None, output: Path | None, show: int | None) -> None:
    """Raise UsageError for a file that is another of the command's, or can't be written, and for a number of records that it can't have."""
    for option, other in (("--plan", plan_file), ("--output", output)):
        if other is not None and other.resolve() == file.resolve():
            raise UsageError(f"--sql and {option} name the same file: {str(file)!r}. Give --sql another.")
    if not file.resolve().parent.is_dir():
        raise UsageError(f"The SQL can't be written to {str(file)!r}: there is no such folder.")
    if show is not None and not 1 <= show <= MOST_IN_SQL:
        raise UsageError(f"--sql has 1 to {MOST_IN_SQL} records of each kind of drift, and --show is {show}.")


def _write_sql(
    file: Path,
    report: RepairReport,
    rules: Mapping[str, Rule],
    number: int,
    only: Mapping[str, Sequence[Any]],
) -> None:
    """Write a chunk of the first records of each kind of drift as SQL. Raises UsageError if the file can't be written."""
    from reconcile.repair.spelling import spell_chunks

    using = report.database
    now = database_now(using)
    chunks = {
        each.rule: spell_chunks(
            rules[each.rule],
            _first_of_each(each.samples, number),
            using=using,
            now=now,
            scope=_scope(only, each.rule),
        )
        for each in report.repairs
        if each.planned_records.total and not each.why_stopped
    }
    sql = repair_sql(report, rules, chunks, at=local_time(now))
    write_text(file, f"{sql}\n", "The SQL")


SHOWN = 3
"""Rows of each kind of drift that a plan shows on a terminal."""


def _number_of_rows(show: int | None, form: str, output: Path | None, *, values: bool) -> int:
    """How many rows of each kind a plan shows. Values may be nobody else's business, so a file has them only if it is asked to."""
    if form == "json":
        return (show or SHOWN) if values else 0
    if show is not None:
        return show
    return SHOWN if output is None and sys.stdout.isatty() else 0


def _rows_of_plan(
    rules: Mapping[str, Rule],
    repairs: Sequence[RuleRepair],
    number: int,
    using: str,
    only: Mapping[str, Sequence[Any]],
) -> Mapping[str, RowsByDrift]:
    """The first rows that the plan would write, by rule; none if no row is asked for."""
    if not number:
        return {}
    now = database_now(using)
    planned = (each for each in repairs if each.planned_records.total)
    return {
        each.rule: drifted_rows(
            rules[each.rule],
            _first_of_each(each.samples, number),
            using=using,
            now=now,
            scope=_scope(only, each.rule),
        )
        for each in planned
    }


def _scope(only: Mapping[str, Sequence[Any]], rule: str) -> Scope:
    return Keys(only[rule]) if rule in only else EVERYTHING


def _first_of_each(samples: Sequence[Sample], number: int) -> Sequence[Sample]:
    return [each for drift in Drift for each in [every for every in samples if every.drift is drift][:number]]


def _tell_of_clock(using: str) -> None:
    if skew := clock_skew(using):
        click.echo(skew, err=True)


def _rules_of_plan(
    rules: Mapping[str, Rule], kept: PlanFile, names: tuple[str, ...], using: str
) -> Mapping[str, Rule]:
    """The chosen rules that the plan has, with those that had nothing to write: a repair may give them something.

    Raises UsageError if the plan has none of them, or is for another database.
    """
    if kept.database != using:
        raise UsageError(
            f"The plan {kept.file!r} is for database {kept.database!r}: add --database {kept.database}."
        )
    for name in kept.rules:
        if name not in project_rules() and kept.writes(name):
            raise UnknownNameError(
                "rule", name, project_rules(), instead=f" The plan {kept.file!r} names it."
            )
    for name in names:
        if not kept.writes(name):
            raise UsageError(f"The plan {kept.file!r} has nothing for rule {name!r}. Make a new one.")
    chosen = {
        name: rule
        for name, rule in rules.items()
        if kept.writes(name) or (name in kept.rules and any(rule.remedy(drift).repairs for drift in Drift))
    }
    if not any(map(kept.writes, chosen)):
        raise UsageError(f"The plan {kept.file!r} has nothing to write for these rules.")
    return chosen


@runs_group.command("resume")
@click.argument("run")
@database_option
@allow_empty_option
@output_options
@click.pass_context
def resume_command(
    ctx: click.Context, run: str, using: str, form: str, output: Path | None, *, allow_empty: bool
) -> None:
    """Go on with a run that was paused, stopped or killed, where it was. RUN is its id, or the beginning of it."""
    from reconcile import runs

    started = time.monotonic()
    if run in (rules := project_rules()):
        raise UsageError(
            f"{run!r} is a rule. To have the nightly job repair it again: reconcile rules resume {run}"
        )
    stored_run = runs.find_run(run, using=known_database(using))
    _tell_of_clock(using)
    with progress_bar("repairing", total=None) as advance:
        repairs = runs.resume(stored_run, rules, using=using, progress=advance)
    seconds = time.monotonic() - started
    report = RepairReport(
        run=str(stored_run.pk), database=using, repairs=repairs, seconds=seconds, allow_empty=allow_empty
    )
    _write_report_and_exit(ctx, report, form, output)


def _write_report_and_exit(ctx: click.Context, report: RepairReport, form: str, output: Path | None) -> None:
    write_report(
        ctx, form, output, text=lambda: text.repair_report(report), json=lambda: json.repair_report(report)
    )
    ctx.exit(
        exit_code(
            error=any(repair.result == "error" for repair in report.repairs),
            leased=any(repair.lease_held for repair in report.repairs),
            incomplete=any(repair.incomplete for repair in report.repairs),
            drift=report.fails,
        )
    )
