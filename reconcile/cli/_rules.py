"""`reconcile rules`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from reconcile.cli._group import reconcile
from reconcile.cli._options import (
    chosen_rules,
    database_option,
    known_database,
    output_options,
    rule_arguments,
    write_report,
)
from reconcile.reports import json, text


@reconcile.command("rules")
@rule_arguments
@database_option
@output_options
@click.pass_context
def rules_command(
    ctx: click.Context,
    names: tuple[str, ...],
    selectors: tuple[str, ...],
    using: str,
    form: str,
    output: Path | None,
) -> None:
    """List the rules, as sentences."""
    rules = list(chosen_rules(names, selectors).values())
    using = known_database(using)
    write_report(
        ctx,
        form,
        output,
        text=lambda: text.rules_report(rules, using=using),
        json=lambda: json.rules_report(rules, using=using),
    )
