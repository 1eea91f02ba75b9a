"""`reconcile signals`: what a save sets off, and which rule covers it."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from reconcile.cli.group import Subject, reconcile
from reconcile.cli.options import formats_and_output, write_report
from reconcile.rules.registry import project_rules


@reconcile.group("signals", cls=Subject, without="list", named="list")
def signals_group() -> None:
    """List what writing a record of each model sets off, and which rule covers it; with a MODEL, of that one."""


@signals_group.command("list")
@click.argument("model", required=False)
@click.option(
    "--third-party", is_flag=True, help="Show the effects of Django and of installed packages, too."
)
@formats_and_output("text", "json", "mermaid")
@click.pass_context
def list_command(
    ctx: click.Context, model: str | None, form: str, output: Path | None, *, third_party: bool
) -> None:
    """List what writing a record sets off: receivers, overridden methods, fields with a pre_save of their own, deletes of others.

    MODEL is `app.Model`, or the model's name if no other has it. Asks no database.
    """
    from reconcile.audit.listing import audit_signals, named_model
    from reconcile.cli.group import set_up_django
    from reconcile.reports import signals as reports

    set_up_django()
    models = None if model is None else [named_model(model)]
    audit = audit_signals(project_rules(), models)
    write_report(
        ctx,
        form,
        output,
        text=lambda: reports.as_text(audit, third_party=third_party or model is not None),
        json=lambda: reports.as_json(audit),
        mermaid=lambda: reports.as_mermaid(audit, third_party=third_party),
    )
