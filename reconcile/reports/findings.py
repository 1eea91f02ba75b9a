"""The reports as values, and what every format of a check says: status, place, counts, keys, and the next step.

Each format escapes the text and lays it out itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from django.utils import timezone

from reconcile.baseline import Comparison
from reconcile.core.drift import Drift, Status
from reconcile.core.scopes import Coverage
from reconcile.detect.checking import RuleCheck
from reconcile.detect.culprit import Culprit
from reconcile.detect.inspecting import Row
from reconcile.reports.facts import key_words, plural
from reconcile.rules.rule import Rule

if TYPE_CHECKING:
    from reconcile.audit.skipping import Suspects
    from reconcile.runs import RuleRepair, RuleUndo
    from reconcile.runs.results import PastRun

__all__ = [
    "BaselineReport",
    "CheckReport",
    "Keys",
    "Overall",
    "RepairReport",
    "RowsByDrift",
    "UndoReport",
    "counts",
    "empty_in_words",
    "has_part",
    "headline",
    "is_reported",
    "keys",
    "local_time",
    "message",
    "next_step",
    "nothing_judged",
    "others",
    "overall",
    "paragraphs",
    "place",
    "plain",
    "prose",
    "why",
    "word",
]

RowsByDrift = Mapping[Drift, Sequence[Row]]

Overall = Literal["clean", "empty", "warn", "drift", "error"]
"""`empty`: nothing was looked at, so nothing is known."""

EMPTY = "0 records checked, so nothing is known"
"""What each format says of a check that has judged no record."""


def overall(statuses: Sequence[Status]) -> Overall:
    """The worst of the rules' statuses. A rule that could not be evaluated is worse than drift."""
    if Status.ERROR in statuses:
        return "error"
    if Status.FAIL in statuses:
        return "drift"
    return "warn" if Status.WARN in statuses else "clean"


def word(check: RuleCheck) -> str:
    """The status of a rule; `skipped` if it has judged no record, which is no pass."""
    if check.status is Status.PASS and not check.tally.checked and not check.tally.total:
        return "skipped"
    return str(check.status)


def nothing_judged(*, allowed: bool, rules: int = 0, young: str = "") -> str:
    """What is said where no record was judged, by how many rules if that is given, with the way out."""
    said = f"{EMPTY}, by {plural(rules, 'rule')}." if rules else f"{EMPTY}."
    return " ".join(filter(None, [said, young, "" if allowed else "If there may be none: --allow-empty."]))


def empty_in_words(report: CheckReport) -> str:
    """The same of a check."""
    return nothing_judged(allowed=report.allow_empty, rules=len(report.checks), young=report.young)


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """One check of several rules. `run` names this execution in the logs; the database does not store a check.

    at: the moment at which the check began. fail_on: the least severity that fails the check. past: for each rule, what
    earlier runs found, oldest first. origins: for the name of a rule and the key of a sample, the file and the object that
    the record was loaded from, if known. keys: the texts that name the records, if only some were looked at. culprits, suspects: for the
    name of a rule what sets its drifted records apart, and the calls that skip what it covers, if that was asked for.
    """

    run: str
    database: str
    checks: Sequence[RuleCheck]
    seconds: float
    hint: str = ""
    """The command that shows what a repair would do; empty if there is nothing to repair."""
    at: datetime | None = None
    fail_on: Literal["warn", "error"] = "error"
    past: Mapping[str, Sequence[PastRun]] = field(default_factory=dict)
    origins: Mapping[tuple[str, str], str] = field(default_factory=dict)
    keys: Sequence[str] = ()
    allow_empty: bool = False
    culprits: Mapping[str, Sequence[Culprit]] = field(default_factory=dict)
    suspects: Mapping[str, Suspects] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether no rule has judged any record, or found any drift or error."""
        return all(word(check) == "skipped" for check in self.checks)

    def fails(self, check: RuleCheck) -> bool:
        """Whether the rule's drift reaches the severity that fails the check."""
        return check.status is Status.FAIL or (check.status is Status.WARN and self.fail_on == "warn")

    @property
    def status(self) -> Overall:
        """The worst status of the rules; `empty` if none has judged a record."""
        return "empty" if self.is_empty else overall([check.status for check in self.checks])

    @property
    def failed(self) -> bool:
        """Whether the check fails: by drift, or since it has looked at nothing and that isn't allowed."""
        return (self.is_empty and not self.allow_empty) or any(map(self.fails, self.checks))

    @property
    def extent(self) -> str:
        """` for 3 records alone` if only some were looked at; else empty."""
        if all(check.coverage is Coverage.FULL for check in self.checks):
            return ""
        return f" for {plural(sum(check.tally.checked for check in self.checks), 'record')} alone"

    @property
    def young(self) -> str:
        """`3 records are too young to be judged.`; empty if there are none."""
        number = sum(check.tally.settling for check in self.checks)
        are = "is" if number == 1 else "are"
        return f"{plural(number, 'record')} {are} too young to be judged." if number else ""


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """One repair of several rules, or its preview. `run` is the id of the stored run; None for a preview.

    asked: whether --apply was given. There is no run all the same if the plan is out of date, since nothing was begun. rows: the first
    rows that a plan would write, by rule; none unless they are asked for.
    """

    asked: bool = False
    run: str | None
    database: str
    repairs: Sequence[RuleRepair]
    seconds: float
    rows: Mapping[str, RowsByDrift] = field(default_factory=dict)
    allow_empty: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether a repair was asked for, and no rule found any record to look at."""
        return self.applied and all(each.result == "skipped" for each in self.repairs)

    @property
    def applied(self) -> bool:
        """Whether something may have been written."""
        return self.run is not None

    @property
    def status(self) -> Overall:
        """The worst status of the rules; `empty` if none found a record."""
        return "empty" if self.is_empty else overall([repair.status for repair in self.repairs])

    @property
    def fails(self) -> bool:
        """Whether something was repaired, or should have been, and a check would fail all the same."""
        if self.is_empty and not self.allow_empty:
            return True
        return self.applied and any(repair.status is Status.FAIL for repair in self.repairs)


@dataclass(frozen=True, kw_only=True)
class UndoReport:
    """One undo, or its preview. `by` is the run that takes back the writes of `run`; None in a preview."""

    run: str
    by: str | None
    database: str
    rules: Sequence[RuleUndo]
    seconds: float

    @property
    def applied(self) -> bool:
        """Whether something may have been written."""
        return self.by is not None

    @property
    def status(self) -> Literal["whole", "conflicts", "stopped"]:
        """Whether everything is taken back, or would be: `whole` if so."""
        if any(rule.incomplete and not rule.left for rule in self.rules):
            return "stopped"
        return "conflicts" if any(rule.left for rule in self.rules) else "whole"


@dataclass(frozen=True, kw_only=True)
class BaselineReport:
    """Several rules, compared with the baseline in `file`.

    prune: the command that takes mended drift out of the file and adds no new drift. rows_in_file: of an update, the number
    of drifted rows that the file now has for each rule; None for a verification, which writes nothing.
    """

    database: str
    file: str
    comparisons: Sequence[Comparison]
    seconds: float
    prune: str
    rows_in_file: Mapping[str, int] | None = None
    allow_empty: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether no rule found any record to look at, or any drift."""
        return all(word(each.check) == "skipped" and not each.mended for each in self.comparisons)

    @property
    def failed(self) -> bool:
        """Whether a rule could not be evaluated."""
        return any(comparison.check.error for comparison in self.comparisons)

    @property
    def status(self) -> Overall:
        """The worst status of the rules. An update that wrote the file is `clean`, whatever drift it has accepted."""
        if self.rows_in_file is not None and not self.failed:
            return "clean"
        if self.is_empty:
            return "empty"
        return overall([comparison.status for comparison in self.comparisons])


@dataclass(frozen=True, slots=True)
class Keys:
    """Drifted rows of one kind: their number, and the first few, each as its key and its origin (empty if not known)."""

    drift: Drift
    number: int
    shown: Sequence[tuple[str, str]]

    @property
    def more(self) -> int:
        """The number of rows that are counted and not shown."""
        return self.number - len(self.shown)

    def __str__(self) -> str:
        shown = ", ".join(f"{key} ({origin})" if origin else key for key, origin in self.shown)
        if not shown:
            return f"{self.drift} {self.number:,}"
        more = f" and {self.more:,} more" if self.more else ""
        return f"{self.drift} {shown}{more}"


def plain(text: str) -> str:
    """The text in one line. Characters that can't be printed, such as a line feed, are written as Python's escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def prose(text: str) -> str:
    """Sentences in one line, whatever line breaks and indents they had."""
    return plain(" ".join(text.split()))


def place(rule: Rule) -> tuple[str, int] | None:
    """The file and the line of the rule; None if it has no file. The path is relative if the file is below the current folder."""
    at = rule.declared_at
    return (at.path, at.line) if at and Path(at.file).is_file() else None


def local_time(at: datetime) -> datetime:
    """The moment in the project's time zone. A moment without a time zone is returned as it is."""
    return timezone.localtime(at) if timezone.is_aware(at) else at


def is_reported(report: CheckReport, check: RuleCheck) -> bool:
    """Whether the rule warns, fails, or could not be evaluated."""
    return check.status is not Status.PASS or report.fails(check)


def has_part(report: CheckReport, check: RuleCheck) -> bool:
    """Whether a page has a part about the rule: it is reported, or there are remarks about it."""
    return is_reported(report, check) or bool(check.remarks)


def others(report: CheckReport) -> Sequence[tuple[str, str, Sequence[RuleCheck]]]:
    """The rules without a part of their own: those that passed, and apart from them those that saw no record, each with their status and a title."""
    found = [check for check in report.checks if not has_part(report, check)]
    seen = [check for check in found if word(check) != "skipped"]
    unseen = [check for check in found if word(check) == "skipped"]
    groups = (("pass", "passed", seen), ("skipped", "saw no record", unseen))
    return [
        (status, f"{plural(len(those), 'rule')} {what}", those) for status, what, those in groups if those
    ]


def counts(check: RuleCheck) -> str:
    """The counts in words, such as `1,022 missing and 25 stale of 1,952 checked`."""
    found = [f"{check.tally[drift]:,} {drift}" for drift in Drift if check.tally[drift]]
    if not found and not check.tally.checked:
        return "0 checked, so nothing is known"
    return f"{' and '.join(found) or 'nothing drifted'} of {check.tally.checked:,} checked"


def headline(check: RuleCheck) -> str:
    """The result of the check in a few words."""
    if check.error:
        return f"could not be evaluated: {prose(check.error)}"
    if check.status is Status.PASS and check.tally.total:
        return f"{counts(check)}, within what the rule tolerates"
    return counts(check)


def keys(report: CheckReport, check: RuleCheck) -> Sequence[Keys]:
    """The kinds of drift that were found, each with its samples."""
    return [
        Keys(
            drift,
            check.tally[drift],
            [
                (plain(sample.key), plain(report.origins.get((check.rule.name, sample.key), "")))
                for sample in check.samples
                if sample.drift is drift
            ],
        )
        for drift in Drift
        if check.tally[drift]
    ]


def next_step(report: CheckReport, check: RuleCheck) -> tuple[str, str] | None:
    """What to do next, as a clause and a command; None if nothing drifted, or if the records are gone by now."""
    if check.error or not check.tally.total or not report.hint:
        return None
    database = ["--database", report.database] if report.database != "default" else []
    some = key_words(report.keys)
    mended = sum(check.tally[drift] for drift in Drift if check.rule.remedy(drift).repairs)
    if mended > check.unrepairable:
        return "See what a repair would do", shlex.join(
            ["reconcile", "repair", check.rule.name, *some, *database]
        )
    key = ["--key", check.samples[0].key] if check.samples else []
    return "A person decides. See how one stands", shlex.join(
        ["reconcile", "explain", check.rule.name, *key, *database]
    )


def paragraphs(report: CheckReport, check: RuleCheck) -> Iterator[str]:
    """The lines about one rule: its sentence, the counts, the keys, what is to be known, what was left alone, and the next step."""
    yield prose(check.rule.sentence)
    result = headline(check).rstrip(".")
    yield f"{result[0].upper()}{result[1:]}."
    for drifted in keys(report, check):
        if drifted.shown:
            yield f"{drifted}."
    yield from why(report, check)
    yield from (prose(remark) for remark in check.remarks)
    if check.tally.settling:
        yield f"{plural(check.tally.settling, 'record')} left alone: too young to be judged."
    if step := next_step(report, check):
        yield f"{step[0]}: {plain(step[1])}"


def why(report: CheckReport, check: RuleCheck) -> Sequence[str]:
    """Sentences that say what sets the drifted records apart, and which calls may have caused it; none unless that was asked for."""
    culprits = report.culprits.get(check.rule.name, ())
    suspects = report.suspects.get(check.rule.name)
    said = [sentence for each in culprits for sentence in each.sentences]
    return [plain(each) for each in (*said, *(suspects.sentences if suspects is not None else ()))]


def message(report: CheckReport, check: RuleCheck) -> str:
    """The lines about one rule, as one text."""
    return "\n".join(paragraphs(report, check))
