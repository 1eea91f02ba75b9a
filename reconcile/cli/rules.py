"""`reconcile rules`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import rich_click as click
from django.utils import timezone

from reconcile.cli.group import Subject, exit_code, reconcile
from reconcile.cli.options import (
    choice_words,
    chosen_rules,
    complete_rules,
    database_option,
    formats_and_output,
    known_database,
    output_options,
    rule_arguments,
    write_report,
)
from reconcile.db.dialects import dialect_of
from reconcile.detect.checking import evaluation_errors
from reconcile.errors import InvalidRulesError, UsageError, with_type
from reconcile.reports import graph, json, markdown, text
from reconcile.reports.facts import plural
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.order import sort_rules
from reconcile.rules.registry import project_rules, unknown_rule, valid_rules
from reconcile.rules.rule import Rule


@reconcile.group("rules", cls=Subject, without="list", named="list")
def rules_group() -> None:
    """List the rules, as sentences or as a page, or draw their order."""


@rules_group.command("resume")
@click.argument("rule", shell_complete=complete_rules)
@database_option
@output_options
@click.pass_context
def resume_rule_command(ctx: click.Context, rule: str, using: str, form: str, output: Path | None) -> None:
    """Let the nightly job repair a suspended rule again: one that it leaves alone, since what it had repaired drifted again."""
    from reconcile.repair.regressions import resume_rule

    using = known_database(using)
    if rule not in (rules := project_rules()):
        raise unknown_rule(rule, rules)
    with evaluation_errors(using):
        was_suspended = resume_rule(rule, using=using)
    if not was_suspended:
        raise UsageError(f"Rule {rule!r} isn't suspended; the nightly job does with it what its options say.")
    write_report(
        ctx,
        form,
        output,
        text=lambda: f"The nightly job repairs {rule} again.",
        json=lambda: json.resumed_rule_report(rule, using=using),
    )


@rules_group.command("list")
@rule_arguments
@database_option
@formats_and_output("text", "json", "markdown")
@click.option(
    "--check",
    "only_compare",
    is_flag=True,
    help="Write nothing; exit with 2 if a rule can't be used. With --format markdown --output FILE: exit with 1 unless the page in FILE "
    "is as it would be written now.",
)
@click.pass_context
def rules_command(
    ctx: click.Context,
    names: tuple[str, ...],
    selectors: tuple[str, ...],
    using: str,
    form: str,
    output: Path | None,
    *,
    only_compare: bool,
) -> None:
    """List the rules, as sentences; as markdown, with their SQL, for a page that is kept beside the code."""
    if only_compare and (form == "markdown") != (output is not None):
        raise UsageError("--check compares a page with the rules by both of --format markdown --output FILE.")
    using = known_database(using)
    if only_compare or form == "markdown":
        valid_rules()
    rules = list(chosen_rules(names, selectors).values())
    if only_compare and output is None:
        _try_to_compile(rules, using)
        click.echo(f"{plural(len(rules), 'rule')} can be used.", err=True)
        return
    with evaluation_errors(using):
        page = markdown.catalogue(rules, using=using) if form == "markdown" else ""
    if only_compare and output is not None:
        difference = _difference(page, output)
        if difference:
            command = _rules_command(names, selectors, using, output)
            click.echo(f"{output} {difference}\nWrite it anew: {command}", err=True)
        else:
            click.echo(f"{output} is up to date.", err=True)
        ctx.exit(exit_code(drift=bool(difference)))
    write_report(
        ctx,
        form,
        output,
        text=lambda: text.rules_report(rules, using=using),
        json=lambda: json.rules_report(rules, using=using),
        markdown=lambda: page,
    )
    ctx.exit(exit_code(error=any(isinstance(rule, InvalidRule) for rule in rules)))


@rules_group.command("graph")
@rule_arguments
@database_option
@formats_and_output("mermaid", "dot", "json")
@click.pass_context
def graph_command(
    ctx: click.Context,
    names: tuple[str, ...],
    selectors: tuple[str, ...],
    using: str,
    form: str,
    output: Path | None,
) -> None:
    """Draw which rule runs before which, and for the sake of which columns. Needs no database."""
    using = known_database(using)
    valid_rules()
    rules = chosen_rules(names, selectors, using)
    with dialect_of(using).without_server():
        order = sort_rules(rules, using=using, now=timezone.now())
    write_report(
        ctx,
        form,
        output,
        mermaid=lambda: graph.mermaid(order),
        dot=lambda: graph.dot(order),
        json=lambda: json.order_report(order),
    )


def _try_to_compile(rules: Sequence[Rule], using: str) -> None:
    """Raise InvalidRulesError for rules that can't be compiled for the database. No statement."""
    now, failed = timezone.now(), []
    for rule in rules:
        try:
            with dialect_of(using).without_server():
                rule.compile(using=using, now=now)
        except Exception as error:  # noqa: BLE001 - whatever a rule raises, the others are tried
            failed.append(f"  Rule {rule.name!r}: it can't be compiled: {with_type(error)}")
    if failed:
        raise InvalidRulesError("\n".join(["The rules can't be used:", *failed]))


def _difference(page: str, file: Path) -> str:
    """How `file` differs from the page, as the predicate of a sentence; empty if it doesn't."""
    try:
        stale = markdown.stale_in(file.read_text(encoding="utf-8"), page)
    except FileNotFoundError:
        return "isn't there."
    except (OSError, UnicodeDecodeError) as error:
        return f"can't be read: {error}."
    return f"is stale; {'; '.join(stale)}." if stale else ""


def _rules_command(names: tuple[str, ...], selectors: tuple[str, ...], using: str, output: Path) -> str:
    words = ["reconcile", "rules", *choice_words(names, selectors, using)]
    return shlex.join([*words, "--format", "markdown", "--output", str(output)])
