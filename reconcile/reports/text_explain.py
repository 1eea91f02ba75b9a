"""The `text` format of `explain`: what a rule means, or how one record stands under it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

from pygments.token import Comment, Keyword, Number, String, Token
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.text import Text

from reconcile.core.drift import GUARANTEE_MEANINGS, Guarantee
from reconcile.core.verbs import VERBS, Written
from reconcile.db.indexes import MissingIndex
from reconcile.detect.explaining import Explanation, Part
from reconcile.detect.inspecting import NOT_STATED, Inspection, MadeInPython, Row, State, Subject, Verdict
from reconcile.detect.listing import Listing
from reconcile.kinds import ConstraintAdvice
from reconcile.kinds.uniqueness import FOREIGN
from reconcile.reports.facts import plural, settle_in_words
from reconcile.reports.findings import local_time, prose
from reconcile.reports.layout import indented
from reconcile.rules.rule import Rule

__all__ = ["explanation", "inspection", "listing", "subjects", "value_in_words"]

_MARGIN = "  "

_SQL = ANSISyntaxTheme(
    {
        Token: Style(),
        Keyword: Style(bold=True),
        Comment: Style(dim=True),
        Number: Style(color="cyan"),
        String.Single: Style(color="green"),
    }
)
"""The terminal's own colours, so that it can be read on a dark and on a light one."""


def explanation(explained: Explanation) -> RenderableType:
    """The explanation. Its SQL is never wrapped, so that it can be pasted into the shell of a database."""
    return Group(*_explanation_lines(explained))


def _explanation_lines(explained: Explanation) -> Iterator[RenderableType]:
    yield Text(f"\n{explained.rule}", style="bold")
    yield Text(explained.sentence)
    if explained.reason:
        yield Text(explained.reason, style="dim")
    yield Text.assemble(
        "\nGuarantee ", (explained.guarantee, "bold"), f"  {GUARANTEE_MEANINGS[explained.guarantee]}"
    )
    for remark in explained.remarks:
        yield Text(remark, style="yellow")
    if explained.in_vain:
        yield Text(f"unattended=True is in vain: {explained.in_vain}", style="yellow")
    if explained.lift:
        yield from _lift(explained.lift)
    if explained.settle:
        yield Text(settle_in_words(explained.settle))
    warned: set[MissingIndex] = set()
    for part in explained.parts:
        yield from _part(part)
        for missing in part.unindexed:
            if missing not in warned:
                yield from _warning(missing)
        warned |= {*part.unindexed}


def _lift(lift: ConstraintAdvice) -> Iterator[RenderableType]:
    if not lift.django:
        yield Text(f"No unique constraint would lift the guarantee. {lift.refusal}")
        return
    result = f"would lift the guarantee to {Guarantee.CONSTRAINT}:"
    if lift.refusal is not None:
        result = f"would not lift the guarantee here. {lift.refusal}"
    yield Text(f"In Meta.constraints of {lift.model} this {result}")
    yield _unwrapped(Text(lift.django, style="bold"))
    if lift.foreign:
        yield Text(f"{lift.model} is another package's: {FOREIGN}")


def listing(rule: Rule, listed: Sequence[Listing]) -> RenderableType:
    """SQL to be pasted into the shell of the database: what is no SELECT is a comment, and nothing is wrapped."""
    return Group(*(_unwrapped(Text(line), 0) for line in _listing_lines(rule, listed)))


def _listing_lines(rule: Rule, listed: Sequence[Listing]) -> Iterator[str]:
    yield f"-- {prose(rule.name)}: {' '.join(rule.sentence.split())}"
    for each in listed:
        yield f"\n-- {each.drift}, of {each.model}"
        for remark in each.remarks:
            yield f"-- {remark}"
        if each.sql is not None:
            yield f"{each.sql};"


def _part(part: Part) -> Iterator[RenderableType]:
    reach = "in windows, this is the first" if part.windows else "in one statement over the whole table"
    yield Text.assemble(f"\n{part.drift}", (f"  remedy {part.remedy}; found {reach}", "dim"), style="bold")
    if part.advice:
        yield Text(part.advice, style="dim")
    if part.needs_python:
        rows = "these rows" if part.sql else "the records"
        yield _unwrapped(Text(f"-- {rows} are read, and Python tells which of them drift", style="dim"))
        if not part.sql:
            return
    sql = part.sql or part.nothing
    yield _unwrapped(Syntax("", "sql", theme=_SQL).highlight(sql))
    if part.plan:
        yield Text("")
        yield _unwrapped(Text(part.plan, style="dim"))


def _warning(missing: MissingIndex) -> Iterator[RenderableType]:
    columns = ", ".join(missing.columns)
    text = Text.assemble(
        ("warning", "yellow"),
        f"  {missing.table} is looked up by {columns}, and no index begins with that. "
        "Each window, and each chunk of a repair, may read the whole table. Make one:",
    )
    yield Padding(text, (1, 0, 0, len(_MARGIN)), expand=False)
    yield _unwrapped(Text(f"{missing.create};", style="bold"), 2)
    if missing.django:
        yield _unwrapped(Text(f"or in Meta.indexes: {missing.django}"), 2)


def _unwrapped(text: Text, margins: int = 1) -> Text:
    """A copy of the text that is indented, and whose lines the console neither wraps nor cuts."""
    lines = Text("\n").join(
        Text.assemble(_MARGIN * margins, line) if line else line for line in text.split("\n")
    )
    lines.rstrip()
    lines.no_wrap, lines.overflow = True, "ignore"
    return lines


_LONGEST = 120
"""The number of characters of a value that are shown."""

_STATES: dict[State, tuple[str, str]] = {
    "drifted": ("yes", "red"),
    "young": ("not yet", "yellow"),
    "fine": ("no", "green"),
}


def inspection(inspected: Inspection) -> RenderableType:
    """The sentence of the rule, then what the key names: a record, an extra row, or both."""
    return Group(*_inspection_lines(inspected))


def subjects(inspected: Inspection) -> RenderableType:
    """Only what the key names, for a report that names the rule elsewhere."""
    return Group(
        *(line for subject in inspected.subjects for line in _subject(subject, settles=inspected.settles))
    )


def _inspection_lines(inspected: Inspection) -> Iterator[RenderableType]:
    yield Text(f"\n{inspected.rule}", style="bold")
    yield Text(inspected.sentence)
    for subject in inspected.subjects:
        yield from _subject(subject, settles=inspected.settles)
    yield Text.assemble(
        "\nGuarantee ", (inspected.guarantee, "bold"), f"  {GUARANTEE_MEANINGS[inspected.guarantee]}"
    )


def _subject(subject: Subject, *, settles: bool) -> Iterator[RenderableType]:
    yield Text.assemble("\n", (_name(subject.row), "bold"), (f"  {_role(subject, settles=settles)}", "dim"))
    for condition in subject.unmet:
        yield indented(Text(f"Condition not met: {condition}"))
    yield _cells(subject.row)
    for row in subject.linked:
        yield Text.assemble(
            "\n",
            (_name(row), "bold"),
            ("  is there, and nothing owes it: extra", "red") if row.extra else ("  is there", "dim"),
        )
        yield _cells(row)
    if subject.more:
        yield indented(Text(f"and {plural(subject.more, 'row')} more", style="dim"))
    yield Text("")
    if not subject.verdicts:
        noun = "row" if subject.named_by_every is None else "record"
        yield Text(f"No drift of this {noun} is looked for.")
    for verdict in subject.verdicts:
        yield _verdict(verdict)
    for verdict in subject.verdicts:
        for row in verdict.owed:
            yield Text.assemble("\n", (f"a new {row.model}", "bold"), ("  is owed", "dim"))
            yield _cells(row)


def _name(row: Row) -> str:
    return row.model if row.key is None else f"{row.model} {row.key}"


def _role(subject: Subject, *, settles: bool) -> str:
    """What the subject is to the rule: a record of `every=`, another record, or a row that is owed or extra."""
    if subject.named_by_every is None:
        return "a row, owed or extra"
    if not subject.named_by_every:
        return "no record of every=, so it owes nothing"
    if subject.young_until:
        return f"a record of every=, left alone until {_moment(subject.young_until)}: too young to be judged"
    if settles:
        return "a record of every=, old enough to be judged"
    return "a record of every="


def _verdict(verdict: Verdict) -> Text:
    answer, style = _STATES[verdict.state]
    return Text.assemble((f"{verdict.drift:<9}", "bold"), (answer, style), f"  {_remedy(verdict)}".rstrip())


def _remedy(verdict: Verdict) -> str:
    if verdict.state == "fine":
        return ""
    if verdict.refusal:
        return f"{verdict.remedy}: a repair can't write it: {verdict.refusal.removesuffix('.')}."
    if not verdict.would.total:
        return f"{verdict.remedy}: a repair writes nothing, a person decides"
    would = "would" if verdict.state == "drifted" else "would then"
    return f"{verdict.remedy}: a repair {would} {_acts(verdict.would)}"


def _acts(written: Written) -> str:
    acts = (f"{verb.act} {plural(written[name], 'row')}" for name, verb in VERBS.items() if written[name])
    return " and ".join(acts)


def _cells(row: Row) -> RenderableType:
    """A table of the columns of one row. A long value goes on in the next line; it is not cut off."""
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", show_edge=False
    )
    shown = [
        side for side in ("there", "owed") if any(getattr(cell, side) is not NOT_STATED for cell in row.cells)
    ]
    for heading in ("column", *shown):
        table.add_column(heading.capitalize(), overflow="fold")
    for cell in row.cells:
        style = "red" if cell.differs else ""
        table.add_row(
            cell.column, *(Text(value_in_words(getattr(cell, side)), style=style) for side in shown)
        )
    return Padding(table, (0, 0, 0, 2), expand=False)


def value_in_words(value: Any) -> str:
    """A value of a column for people, in one line; empty for one that isn't stated."""
    if value is NOT_STATED:
        return ""
    if value is None:
        return "NULL"
    if isinstance(value, MadeInPython):
        return "made in Python, once a row"
    if isinstance(value, date):
        return _moment(value)
    if isinstance(value, bytes | memoryview):
        text = f"0x{bytes(value).hex()}"
    elif isinstance(value, str):
        # The quotes show spaces at the end, and the escapes keep control characters from the terminal.
        text = repr(value)
    else:
        text = str(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}… ({len(text):,} characters)"


def _moment(moment: date) -> str:
    if not isinstance(moment, datetime):
        return moment.isoformat()
    return local_time(moment).isoformat(" ")
