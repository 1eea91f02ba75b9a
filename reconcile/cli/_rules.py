"""`reconcile rules`."""

from __future__ import annotations

import shlex
from pathlib import Path

import rich_click as click

from reconcile.checking import evaluated
from reconcile.cli._group import EXIT_DRIFT, reconcile
from reconcile.cli._options import (
    chosen_rules,
    database_option,
    formats_and_output,
    known_database,
    rule_arguments,
    write_report,
)
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
    with evaluated(using):
        page = markdown.catalogue(rules, using=using) if form == "markdown" else ""
    if only_compare and output is not None:
        ctx.exit(_compared(page, output, _command(names, selectors, using, output)))
    write_report(
        ctx,
        form,
        output,
        text=lambda: text.rules_report(rules, using=using),
        json=lambda: json.rules_report(rules, using=using),
        markdown=lambda: page,
    )


def _compared(page: str, file: Path, command: str) -> int:
    """The exit code, after saying what of the page in `file` is stale."""
    try:
        stale = markdown.stale_in(file.read_text(encoding="utf-8"), page)
        said = f"is stale; {'; '.join(stale)}." if stale else ""
    except FileNotFoundError:
        said = "isn't there."
    except (OSError, UnicodeDecodeError) as error:
        said = f"can't be read: {error}."
    if not said:
        click.echo(f"{file} is up to date.", err=True)
        return 0
    click.echo(f"{file} {said}\nWrite it anew: {command}", err=True)
    return EXIT_DRIFT


def _command(names: tuple[str, ...], selectors: tuple[str, ...], using: str, output: Path) -> str:
    words = ["reconcile", "rules", *names, *(word for each in selectors for word in ("--select", each))]
    words += ["--database", using] if using != "default" else []
    return shlex.join([*words, "--format", "markdown", "--output", str(output)])
