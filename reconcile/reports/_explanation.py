"""`explain` as text: the sentence, then for each kind of drift its SQL, the database's plan, and what slows it down."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from reconcile.effects import Lift
from reconcile.explaining import Explanation, Part
from reconcile.reports._facts import GUARANTEES, settled
from reconcile.sql.indexes import MissingIndex

__all__ = ["explanation"]

_MARGIN = "  "


def explanation(explained: Explanation) -> RenderableType:
    """The explanation; its statements are never broken, so that they can be pasted into a database's shell."""
    return Group(*_lines(explained))


def _lines(explained: Explanation) -> Iterator[RenderableType]:
    yield Text(f"\n{explained.rule}", style="bold")
    yield Text(explained.sentence)
    if explained.reason:
        yield Text(explained.reason, style="dim")
    yield Text.assemble("\nGuarantee ", (explained.guarantee, "bold"), f"  {GUARANTEES[explained.guarantee]}")
    if explained.lift:
        yield from _lift(explained.lift)
    if explained.settle:
        yield Text(settled(explained.settle))
    warned: set[MissingIndex] = set()
    for part in explained.parts:
        yield from _part(part)
        for missing in part.unindexed:
            if missing not in warned:
                yield from _warning(missing)
        warned |= {*part.unindexed}


def _lift(lift: Lift) -> Iterator[RenderableType]:
    if not lift.django:
        yield Text(f"No unique constraint would lift it to A. {lift.why_not}")
        return
    said = f"would not lift it to A here. {lift.why_not}" if lift.why_not else "would lift it to A:"
    yield Text(f"In Meta.constraints of {lift.model} this {said}")
    yield _unbroken(Text(lift.django, style="bold"))


def _part(part: Part) -> Iterator[RenderableType]:
    reach = "in windows, this is the first" if part.windows else "the whole table in one statement"
    yield Text.assemble(f"\n{part.drift}", (f"  remedy {part.remedy}; found {reach}", "dim"), style="bold")
    if part.sifted:
        read = "these rows are read, and" if part.sql else "the records are read, and"
        yield _unbroken(Text(f"-- {read} Python tells which of them drift", style="dim"))
        if not part.sql:
            return
    sql = part.sql or "-- never any rows"
    yield _unbroken(Syntax("", "sql", background_color="default").highlight(sql))
    if part.plan:
        yield Text("")
        yield _unbroken(Text(part.plan, style="dim"))


def _warning(missing: MissingIndex) -> Iterator[RenderableType]:
    columns = ", ".join(missing.columns)
    said = Text.assemble(
        ("warning", "yellow"),
        f"  {missing.table} is looked up by {columns}, and no index begins with that. "
        "Each window, and each chunk of a repair, may read the whole table. Make one:",
    )
    yield Padding(said, (1, 0, 0, len(_MARGIN)), expand=False)
    yield _unbroken(Text(f"{missing.create};", style="bold"), 2)
    if missing.django:
        yield _unbroken(Text(f"or in Meta.indexes: {missing.django}"), 2)


def _unbroken(text: Text, margins: int = 1) -> Text:
    lines = Text("\n").join(
        Text.assemble(_MARGIN * margins, line) if line else line for line in text.split("\n")
    )
    lines.rstrip()
    lines.no_wrap, lines.overflow = True, "ignore"
    return lines
