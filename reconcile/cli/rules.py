"""`reconcile rules`."""

from __future__ import annotations

import shlex
from pathlib import Path

import rich_click as click

from reconcile.cli.group import exit_code, reconcile
from reconcile.cli.options import (
    choice_words,
    chosen_rules,
    database_option,
    formats_and_output,
    known_database,
    rule_arguments,
    write_report,
)
from reconcile.detect.checking import evaluation_errors
from reconcile.errors import UsageError
from reconcile.reports import json, markdown, text


@reconcile.command("rules")
@rule_arguments
@database_option
@formats_and_output("text", "json", "markdown")
@click.option(
    "--check",
    "only_compare",
    is_flag=True,
    help="Write nothing; exit with 1 unless the markdown in --output FILE is as it would be written now.",
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
    if only_compare and (form != "markdown" or output is None):
        raise UsageError("--check compares a page with the rules: add --format markdown --output FILE.")
    rules = list(chosen_rules(names, selectors).values())
    using = known_database(using)
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
