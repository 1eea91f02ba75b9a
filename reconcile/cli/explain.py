"""`reconcile explain`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from reconcile.cli.group import reconcile
from reconcile.cli.options import (
    chosen_rules,
    database_option,
    output_options,
    write_report,
)
from reconcile.db.clock import database_now
from reconcile.detect.explaining import explain
from reconcile.detect.inspecting import inspect_record
from reconcile.reports import json
from reconcile.reports.text_explain import explanation, inspection


@reconcile.command("explain")
@click.argument("rule")
@click.option(
    "--key", metavar="KEY", help="Say instead how the record, or the extra row, of this key stands."
)
@database_option
@output_options
@click.pass_context
def explain_command(
    ctx: click.Context, rule: str, key: str | None, using: str, form: str, output: Path | None
) -> None:
    """Say what a rule means: its sentence, its SQL, the database's plan for it, and how safe its repair is.

    With --key, say what one record owes, what is there, and what a repair would do.
    """
    chosen = chosen_rules((rule,), (), using)[rule]
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
