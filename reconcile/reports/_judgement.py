"""`explain --key` as text: how one record stands, what is owed beside what is there, and what a repair would do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

from django.utils import timezone
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconcile.drift import VERBS, Written
from reconcile.judging import UNSAID, Judgement, Made, Row, State, Subject, Verdict
from reconcile.reports._facts import GUARANTEES
from reconcile.reports.text import plural

__all__ = ["judgement", "subjects"]

_LONGEST = 120
"""Characters of a value that are shown."""

_STATES: dict[State, tuple[str, str]] = {
    "drifted": ("yes", "red"),
    "young": ("not yet", "yellow"),
    "fine": ("no", "green"),
}

_ACTS = {
    "insert": "insert",
    "update": "update",
    "delete": "delete",
    "called": "call for",
    "enqueued": "enqueue",
}


def judgement(judged: Judgement) -> RenderableType:
    """The rule's sentence, then what the key names: a record, an extra row, or both."""
    return Group(*_lines(judged))


def subjects(judged: Judgement) -> RenderableType:
    """What the key names alone, for where the rule is told already."""
    return Group(*(part for each in judged.subjects for part in _subject(each, settles=judged.settles)))


def _lines(judged: Judgement) -> Iterator[RenderableType]:
    yield Text(f"\n{judged.rule}", style="bold")
    yield Text(judged.sentence)
    for subject in judged.subjects:
        yield from _subject(subject, settles=judged.settles)
    yield Text.assemble("\nGuarantee ", (judged.guarantee, "bold"), f"  {GUARANTEES[judged.guarantee]}")


def _subject(subject: Subject, *, settles: bool) -> Iterator[RenderableType]:
    what = "row" if subject.named is None else "record"
    yield Text.assemble(
        "\n", (_name(subject.row), "bold"), (f"  {_standing(subject, settles=settles)}", "dim")
    )
    for condition in subject.unmet:
        yield _indented(Text(f"Condition not met: {condition}"))
    yield _cells(subject.row)
    for row in subject.linked:
        yield Text.assemble(
            "\n",
            (_name(row), "bold"),
            ("  is there, and nothing owes it: extra", "red") if row.extra else ("  is there", "dim"),
        )
        yield _cells(row)
    if subject.more:
        yield _indented(Text(f"and {plural(subject.more, 'row')} more", style="dim"))
    yield Text("")
    if not subject.verdicts:
        yield Text(f"No drift of this {what} is looked for.")
    for verdict in subject.verdicts:
        yield _verdict(verdict)
    for row in (each for verdict in subject.verdicts for each in verdict.owed):
        yield Text.assemble("\n", (f"a new {row.model}", "bold"), ("  is owed", "dim"))
        yield _cells(row)


def _name(row: Row) -> str:
    return row.model if row.key is None else f"{row.model} {row.key}"


def _standing(subject: Subject, *, settles: bool) -> str:
    if subject.named is None:
        return "a row, owed or extra"
    if not subject.named:
        return "no record of every=, so it owes nothing"
    if subject.young_until:
        return f"a record of every=, left alone until {_moment(subject.young_until)}: too young to be judged"
    return f"a record of every={', old enough to be judged' if settles else ''}"


def _verdict(verdict: Verdict) -> Text:
    said, style = _STATES[verdict.state]
    return Text.assemble((f"{verdict.drift:<9}", "bold"), (said, style), f"  {_remedy(verdict)}".rstrip())


def _remedy(verdict: Verdict) -> str:
    if verdict.state == "fine":
        return ""
    if not verdict.would.total:
        return f"{verdict.remedy}: a repair writes nothing, a person decides"
    would = "would" if verdict.state == "drifted" else "would then"
    return f"{verdict.remedy}: a repair {would} {_acts(verdict.would)}"


def _acts(written: Written) -> str:
    counts = written.as_dict()
    return " and ".join(f"{_ACTS[verb]} {plural(counts[verb], 'row')}" for verb in VERBS if counts[verb])


def _cells(row: Row) -> RenderableType:
    """The columns of one row, values folded rather than cut."""
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", show_edge=False
    )
    shown = [
        each for each in ("there", "owed") if any(getattr(cell, each) is not UNSAID for cell in row.cells)
    ]
    for heading in ("column", *shown):
        table.add_column(heading.capitalize(), overflow="fold")
    for cell in row.cells:
        style = "red" if cell.differs else ""
        table.add_row(cell.column, *(Text(_said(getattr(cell, each)), style=style) for each in shown))
    return Padding(table, (0, 0, 0, 2), expand=False)


def _said(value: Any) -> str:
    if value is UNSAID:
        return ""
    if value is None:
        return "NULL"
    if isinstance(value, Made):
        return "made in Python, once a row"
    if isinstance(value, date):
        return _moment(value)
    if isinstance(value, bytes | memoryview):
        said = f"0x{bytes(value).hex()}"
    else:
        # Quoted as a constant, which also shows spaces at the end, and holds back what a terminal would obey.
        said = repr(value) if isinstance(value, str) else str(value)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}… ({len(said):,} characters)"


def _moment(moment: date) -> str:
    if isinstance(moment, datetime) and timezone.is_aware(moment):
        moment = timezone.localtime(moment)
    return moment.isoformat(" ") if isinstance(moment, datetime) else moment.isoformat()


def _indented(line: Text) -> Padding:
    return Padding(line, (0, 0, 0, 2), expand=False)
