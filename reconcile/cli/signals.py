"""`reconcile signals`: what a save sets off, and which rule covers it."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from reconcile.cli.group import Subject, exit_code, reconcile, set_up_django
from reconcile.cli.options import fail_on_option, formats_and_output, write_report
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


@signals_group.command("coverage")
@click.option(
    "--third-party", is_flag=True, help="Count the effects of Django and of installed packages, too."
)
@click.option(
    "--fail-under",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Exit with 1 if rules cover less of the effects.",
)
@fail_on_option("severity of what is not covered")
@formats_and_output("text", "json")
@click.pass_context
def coverage_command(
    ctx: click.Context,
    fail_under: float | None,
    fail_on: str,
    form: str,
    output: Path | None,
    *,
    third_party: bool,
) -> None:
    """Say which effects no rule covers. One that decides what is written is an error, any other a warning. Asks no database."""
    from reconcile.audit.coverage import coverage_of
    from reconcile.audit.listing import audit_signals
    from reconcile.conf import exempt_effects
    from reconcile.reports import signals as reports

    set_up_django()
    rules = project_rules()
    coverage = coverage_of(audit_signals(rules), rules, exempt_effects(), third_party=third_party)
    write_report(
        ctx,
        form,
        output,
        text=lambda: reports.coverage_as_text(coverage),
        json=lambda: reports.coverage_as_json(coverage),
    )
    fails = coverage.status == "error" or (coverage.status == "warn" and fail_on == "warn")
    ctx.exit(exit_code(drift=fails or (fail_under is not None and coverage.percent < fail_under)))
