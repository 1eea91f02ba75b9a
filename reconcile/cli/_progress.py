"""A progress bar on a terminal; nothing where standard error is piped, or has log lines on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rich_click as click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reconcile.cli._options import stderr_console

if TYPE_CHECKING:
    from reconcile.runs import Progress as Advance

__all__ = ["bar"]


@contextmanager
def bar(what: str, *, total: int | None) -> Iterator[Advance]:
    """Yield a function that is told the rule at hand and how many more steps are done."""
    console = stderr_console()
    context = click.get_current_context(silent=True)
    logging_steps = context is not None and context.find_root().params.get("verbose")
    if not console.is_terminal or logging_steps:
        yield lambda *_: None
        return
    columns = (
        TextColumn(f"{what} {{task.fields[rule]}}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total, rule="")
        yield lambda rule, steps: progress.update(task, advance=steps, rule=rule)
