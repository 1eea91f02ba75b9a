"""`reconcile explain`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from reconcile.cli.group import reconcile
from reconcile.cli.options import (
    chosen_rules,
    complete_rules,
    database_option,
    output_options,
    write_report,
)
from reconcile.db.clock import database_now
from reconcile.detect.explaining import explain
from reconcile.detect.inspecting import inspect_record
from reconcile.detect.listing import listings
from reconcile.errors import UsageError
from reconcile.reports import json
from reconcile.reports.text_explain import explanation, inspection, listing


@reconcile.command("explain")
@click.argument("rule", shell_complete=complete_rules)
@click.option(
    "--key", metavar="KEY", help="Say instead how the record, or the extra row, of this key stands."
)
@click.option(
    "--sql",
    "as_sql",
    is_flag=True,
    help="Print SQL alone, to be pasted: the drifted rows of the whole table, as they are and as they must be.",
)
@database_option
@output_options
@click.pass_context
def explain_command(
    ctx: click.Context,
    rule: str,
    key: str | None,
    using: str,
    form: str,
    output: Path | None,
    *,
    as_sql: bool,
) -> None:
    """Say what a rule means: its sentence, its SQL, the database's plan for it, and how safe its repair is.

    With --key, say what one record owes, what is there, and what a repair would do.
    """
    if as_sql and key is not None:
        raise UsageError("--sql lists all drifted rows, and --key names one record. Give one of them.")
    chosen = chosen_rules((rule,), (), using)[rule]
    if as_sql:
        listed = listings(chosen, using=using, now=database_now(using))
        write_report(
            ctx,
            form,
            output,
            text=lambda: listing(chosen, listed),
            json=lambda: json.listing(chosen, listed, using=using),
        )
        return
    if key is None:
        explained = explain(chosen, using=using, now=database_now(using))
        write_report(
            ctx, form, output, text=lambda: explanation(explained), json=lambda: json.explanation(explained)
        )
        return
    inspected = inspect_record(chosen, key, using=using, now=database_now(using))
    write_report(
        ctx, form, output, text=lambda: inspection(inspected), json=lambda: json.inspection(inspected)
    )
