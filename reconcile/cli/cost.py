"""`reconcile signals cost`: the statements that signals need beyond a save's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rich_click as click

from reconcile.cli.group import exit_code, set_up_django
from reconcile.cli.options import database_option, formats_and_output, known_database, write_report
from reconcile.cli.signals import signals_group
from reconcile.errors import UsageError
from reconcile.rules.registry import rules_if_any

__all__ = ["cost_command"]


@signals_group.command("cost")
@click.argument("model", required=False)
@click.option(
    "--fixtures",
    "fixtures",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Count on the rows of these files in a throw-away database, deletes too. Repeat it for several.",
)
@click.option(
    "--on-copy",
    "is_copy",
    is_flag=True,
    help="The database is a copy: count what deletes of its rows cost, too.",
)
@database_option
@formats_and_output("text", "json", "html")
@click.pass_context
def cost_command(
    ctx: click.Context,
    model: str | None,
    fixtures: tuple[Path, ...],
    using: str,
    form: str,
    output: Path | None,
    *,
    is_copy: bool,
) -> None:
    """Count the statements that the effects of a save need beyond its own, by class of record.

    Saves up to 20 existing rows of each model again, and what the factories of rules make, each in a transaction that is rolled back. MODEL is `app.Model`, or the
    model's name if no other has it. No message, mail, connection or file gets out, and nothing is deleted unless on a copy or on fixtures.
    """
    from reconcile.audit.cost.costing import cost_of_models
    from reconcile.audit.listing import named_model
    from reconcile.detect.checking import evaluation_errors
    from reconcile.reports import cost as reports

    set_up_django()
    if fixtures and is_copy:
        raise UsageError(
            "--fixtures go into a throw-away database, and not into one that holds rows: leave out --on-copy."
        )
    models = None if model is None else [named_model(model)]
    with _database(fixtures, known_database(using)), evaluation_errors(using):
        audit = cost_of_models(rules_if_any(), models, using=using, deletes=is_copy or bool(fixtures))
    write_report(
        ctx,
        form,
        output,
        text=lambda: reports.as_text(audit),
        json=lambda: reports.as_json(audit),
        html=lambda: reports.as_html(audit),
    )
    ctx.exit(exit_code(error=audit.status == "error", drift=audit.status == "empty"))


@contextmanager
def _database(fixtures: tuple[Path, ...], using: str) -> Iterator[None]:
    """The configured database; with fixtures, a throw-away one that holds their rows."""
    from reconcile.testing.fixtures import load, throwaway_database

    if not fixtures:
        yield
        return
    with throwaway_database(using):
        load(fixtures, using=using, as_written=True)
        yield
