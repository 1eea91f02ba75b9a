"""What the formats of a check say of one rule, in the same words: its place, its counts, its keys, and what to do next.

Text in, text out; how a format escapes and lays it out is the format's own business.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.utils import timezone

from reconcile.checking import RuleCheck
from reconcile.drift import Drift, Status
from reconcile.reports._summary import CheckReport
from reconcile.reports.text import plural
from reconcile.rules import Rule

__all__ = [
    "Keys", "counts", "headline", "keys", "local", "message", "next_step", "paragraphs", "place", "plain", "prose", "told",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Keys:
    """Drifted rows of one kind: how many, and the first of them, each with where it was loaded from, if known."""

    drift: Drift
    number: int
    shown: Sequence[tuple[str, str]]

    @property
    def more(self) -> int:
        """Rows that are counted and not shown."""
        return self.number - len(self.shown)

    def __str__(self) -> str:
        shown = ", ".join(f"{key} ({origin})" if origin else key for key, origin in self.shown)
        if not shown:
            return f"{self.drift} {self.number:,}"
        return f"{self.drift} {shown}{f' and {self.more:,} more' if self.more else ''}"


def plain(text: str) -> str:
    """Text of one line: what can't be read, such as a line feed or a terminal's escape, is written out as in Python."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )


def prose(text: str) -> str:
    """Sentences in one line, however they were broken where they stand."""
    return plain(" ".join(text.split()))


def place(rule: Rule) -> tuple[str, int] | None:
    """The rule's file, relative to the working directory where it is below it, and its line; None where it has no file."""
    file = Path(rule.declared_at.file).absolute()
    if not file.is_file():
        return None
    here = Path.cwd()
    return (file.relative_to(here) if file.is_relative_to(here) else file).as_posix(), rule.declared_at.line


def local(at: datetime) -> datetime:
    """The moment in the project's time zone; one without a time zone is there already."""
    return timezone.localtime(at) if timezone.is_aware(at) else at


def told(report: CheckReport, check: RuleCheck) -> bool:
    """Whether the rule is one to be told of: it warns, fails, or could not be evaluated."""
    return check.status is not Status.PASS or report.fails(check)


def counts(check: RuleCheck) -> str:
    """`1,022 missing and 25 stale of 1,952 checked`."""
    found = [f"{check.tally[drift]:,} {drift}" for drift in Drift if check.tally[drift]]
    return f"{' and '.join(found) or 'nothing drifted'} of {check.tally.checked:,} checked"


def headline(check: RuleCheck) -> str:
    """What was found, in a few words."""
    if check.error:
        return f"could not be evaluated: {prose(check.error)}"
    tolerated = (
        ", within what the rule tolerates" if check.status is Status.PASS and check.tally.total else ""
    )
    return f"{counts(check)}{tolerated}"


def keys(report: CheckReport, check: RuleCheck) -> Sequence[Keys]:
    """The kinds of drift that were found, with their samples."""
    return [
        Keys(
            drift,
            check.tally[drift],
            [
                (plain(each.key), plain(report.origins.get((check.rule.name, each.key), "")))
                for each in check.samples
                if each.drift is drift
            ],
        )
        for drift in Drift
        if check.tally[drift]
    ]


def next_step(report: CheckReport, check: RuleCheck) -> tuple[str, str] | None:
    """What to do next, as a clause and a command; None where nothing drifted, or the records are gone by now."""
    if check.error or not check.tally.total or not report.hint:
        return None
    database = ["--database", report.database] if report.database != "default" else []
    if any(check.tally[drift] and check.rule.remedy(drift).verb for drift in Drift):
        return "See what a repair would do", shlex.join(["reconcile", "repair", check.rule.name, *database])
    key = ["--key", check.samples[0].key] if check.samples else []
    return "A person decides. See how one stands", shlex.join(
        ["reconcile", "explain", check.rule.name, *key, *database]
    )


def paragraphs(report: CheckReport, check: RuleCheck) -> Iterator[str]:
    """All there is to say, a line each: the sentence, the counts, the keys, what was left alone, and what to do next."""
    yield prose(check.rule.sentence)
    said = headline(check).rstrip(".")
    yield f"{said[0].upper()}{said[1:]}."
    for each in keys(report, check):
        if each.shown:
            yield f"{each}."
    if check.tally.settling:
        yield f"{plural(check.tally.settling, 'record')} left alone: too young to be judged."
    if step := next_step(report, check):
        yield f"{step[0]}: {plain(step[1])}"


def message(report: CheckReport, check: RuleCheck) -> str:
    """The paragraphs as lines of one text."""
    return "\n".join(paragraphs(report, check))
