"""What a failing assertion says: the rule, its sentence, the keys, what is there beside what is owed, and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO

from django.utils import timezone
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from reconcile.baseline import Rows
from reconcile.errors import ReconcileError
from reconcile.judging import Judgement, judge
from reconcile.reports._judgement import subjects
from reconcile.reports.text import plural
from reconcile.testing._looking import Found

__all__ = ["raise_if_drifted", "told"]

WIDTH = 100
_KEYS = 10
"""Keys of one kind of drift that are named."""
_JUDGED = 5
"""Records of which it is said what is there and what is owed; a broken path leaves many that are alike."""


def raise_if_drifted(found: Sequence[Found], noun: str = "drifted row") -> None:
    """Raise AssertionError where one of the rules drifts, or could not be evaluated."""
    __tracebackhide__ = True
    if any(each.drifted or each.error for each in found):
        raise AssertionError(told(found, noun))


def told(found: Sequence[Found], noun: str = "drifted row") -> str:
    """The sum, then each rule that isn't true. A few statements for the first key of each kind of drift."""
    console = Console(file=StringIO(), width=WIDTH, highlight=False, no_color=True, force_terminal=False)
    with console.capture() as captured:
        console.print(Group(Text(_sum(found, noun)), *_rules(found)), crop=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _sum(found: Sequence[Found], noun: str) -> str:
    drifted = [each for each in found if each.drifted]
    failed = [each for each in found if each.error]
    rows = sum(rows.number for each in drifted for rows in each.drifted.values())
    said = [f"{plural(rows, noun)} in {len(drifted)} of {plural(len(found), 'rule')}."] if drifted else []
    said += [f"{plural(len(failed), 'rule')} could not be evaluated."] if failed else []
    return " ".join(said)


def _rules(found: Sequence[Found]) -> Iterator[RenderableType]:
    left = _JUDGED
    for each in found:
        if each.error:
            yield Text(f"\n{each.rule.name}  {each.rule.sentence}\n  could not be evaluated: {each.error}")
        if not each.drifted:
            continue
        yield Text(f"\n{each.rule.name}  {each.rule.sentence}")
        for drift, rows in each.drifted.items():
            yield Text(f"  {drift:<8}{_keys(rows)}")
        for rows in each.drifted.values():
            if left and rows.keys:
                left -= 1
                yield Padding(_judged(each, rows.keys[0]), (0, 0, 0, 2), expand=False)


def _keys(rows: Rows) -> str:
    if not rows.keys:
        return f"{rows.number:,}"
    more = rows.number - len(rows.keys[:_KEYS])
    return ", ".join(rows.keys[:_KEYS]) + (f" and {more:,} more" if more else "")


def _judged(found: Found, key: str) -> RenderableType:
    try:
        return subjects(_drifted(judge(found.rule, key, using=found.using, now=timezone.now())))
    except ReconcileError as error:
        return Text(f"\n{key}: {error}")


def _drifted(judged: Judgement) -> Judgement:
    """The judgement without what is fine: a key may be that of a record and, by chance, of another model's row."""
    kept = []
    for each in judged.subjects:
        verdicts = tuple(verdict for verdict in each.verdicts if verdict.state != "fine")
        kept += [replace(each, verdicts=verdicts)] if verdicts else []
    return replace(judged, subjects=tuple(kept))
