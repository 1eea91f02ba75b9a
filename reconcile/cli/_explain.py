"""`reconcile explain`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import rich_click as click
import sqlparse
from django.utils import timezone
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from reconcile.checking import evaluated
from reconcile.cli._group import reconcile, standard_output
from reconcile.cli._options import WIDTH, chosen_rules, database_option, known_database
from reconcile.finders import Finder
from reconcile.rules import CompiledRule, Rule
from reconcile.sql.statements import select_sql
from reconcile.windows import EVERYTHING, Window, walk

_GUARANTEES = {
    "A": "A unique constraint, or the record's own row lock, keeps a repair and live writers apart.",
    "B": "Handlers take the same lock as the repair.",
    "C": "The repair's lock keeps handlers in flight apart, not ones that insert later without asking.",
    "D": "Best effort: no constraint and no lock covers the link. A unique constraint on it would lift the rule to A.",
}


@reconcile.command("explain")
@click.argument("rule")
@database_option
@click.pass_context
def explain_command(ctx: click.Context, rule: str, using: str) -> None:
    """Say what a rule means: its sentence, its SQL, the database's plan for it, and how safe its repair is."""
    found = chosen_rules((rule,), ())[rule]
    using = known_database(using)
    with evaluated(using):
        explained = Group(*_explained(found, using))
    output = standard_output(ctx)
    # Never cropped or folded: what is printed can be pasted into a database's shell.
    Console(file=output, highlight=False, width=None if output.isatty() else WIDTH).print(
        explained, soft_wrap=True
    )


def _explained(rule: Rule, using: str) -> Iterator[RenderableType]:
    compiled = rule.compile(using=using, now=timezone.now())
    yield Text(f"\n{rule.name}", style="bold")
    yield rule.sentence
    if rule.reason:
        yield Text(rule.reason, style="dim")
    guarantee = rule.guarantee(using)
    yield Text.assemble("\nGuarantee ", (guarantee, "bold"), f"  {_GUARANTEES[guarantee]}")
    if rule.settle:
        yield f"Records younger than {rule.settle.age} by {rule.settle.column} are left alone."
    window = next(walk(rule.model, using=using), EVERYTHING)
    for finder in compiled.finders:
        yield from _finder(compiled, finder, window)


def _finder(compiled: CompiledRule, finder: Finder, window: Window) -> Iterator[RenderableType]:
    remedy = compiled.rule.remedy(finder.drift)
    scope = window if finder.carried else EVERYTHING
    reach = "in windows, this is the first" if finder.carried else "the whole table in one statement"
    yield Text.assemble(
        f"\n{finder.drift}", (f"  remedy {type(remedy).__name__}; found {reach}", "dim"), style="bold"
    )
    found = finder.find(scope).values("pk")
    highlighted = Syntax("", "sql", background_color="default").highlight(_sql(found))
    yield Padding(highlighted, (0, 0, 0, 2), expand=False)
    yield Padding(Text(found.explain(), style="dim"), (1, 0, 0, 2), expand=False)


def _sql(queryset: Any) -> str:
    selected = select_sql(queryset)
    if selected is None:
        return "-- never any rows"
    sql, params = selected
    literal = sql % tuple(_literal(param) for param in params)
    return sqlparse.format(literal, reindent=True)


def _literal(value: Any) -> str:
    """A parameter as people would write it; for reading, never for a database."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return str(value)
    quoted = str(value).replace("'", "''")
    return f"'{quoted}'"
