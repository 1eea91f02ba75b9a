"""`reconcile explain`."""

from __future__ import annotations

from pathlib import Path

import rich_click as click
from django.utils import timezone

from reconcile.cli._group import reconcile
from reconcile.cli._options import (
    chosen_rules,
    database_option,
    output_options,
    write_report,
)
from reconcile.explaining import explain
from reconcile.judging import judge
from reconcile.reports import json
from reconcile.reports._explanation import explanation
from reconcile.reports._judgement import judgement


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
    found = chosen_rules((rule,), (), using)[rule]
    if key is None:
        explained = explain(found, using=using, now=timezone.now())
        write_report(
            ctx, form, output, text=lambda: explanation(explained), json=lambda: json.explanation(explained)
        )
        return
    judged = judge(found, key, using=using, now=timezone.now())
    write_report(ctx, form, output, text=lambda: judgement(judged), json=lambda: json.judgement(judged))
