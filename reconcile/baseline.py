"""The baseline: drift that is known and accepted, as values, and what has become new or mended since.

The file that holds it is `_baseline_file`'s; nothing here reads or writes one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconcile.checking import RuleCheck
from reconcile.drift import Drift, Status, Tally
from reconcile.errors import UsageError, nearest
from reconcile.rules import Rule

__all__ = [
    "LIMIT", "Baseline", "Comparison", "Entry", "Rows", "compared", "found_in", "known_rules", "ordered", "pruned", "updated",
    "with_entries",
]  # fmt: skip

LIMIT = 100
"""Keys of one kind of drift that a baseline names; where there are more it holds their number."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Drifted rows of one kind: how many, and the keys of all of them, of the first few, or of none."""

    number: int = 0
    keys: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether every row's key is known."""
        return self.number == len(self.keys)

    def without(self, other: Rows) -> Rows:
        """The rows of these that aren't among `other`; their number alone where the keys of either aren't known."""
        keys = tuple(each for each in self.keys if each not in set(other.keys)) if other.named else ()
        if self.named and other.named:
            return Rows(number=len(keys), keys=keys)
        surplus = max(self.number - other.number, 0)
        return Rows(number=surplus, keys=keys[:surplus])

    def also_in(self, other: Rows) -> Rows:
        """The rows of these that are among `other`, too; as many, where the keys of either aren't known."""
        if self.named and other.named:
            keys = tuple(each for each in self.keys if each in set(other.keys))
            return Rows(number=len(keys), keys=keys)
        return min(self, other, key=lambda rows: rows.number)


_NOTHING = Rows()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a baseline holds of one rule. `reason` is a person's, and is kept as long as the rule has drift."""

    reason: str = ""
    drifted: Mapping[Drift, Rows] = field(default_factory=dict)


Baseline = Mapping[str, Mapping[str, Entry]]
"""The known drift, by database and rule."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a check found for one rule beside what the baseline holds of it.

    new: drift that the baseline doesn't have. mended: drift that it has and that isn't there any more.
    """

    check: RuleCheck
    known: int
    new: Mapping[Drift, Rows]
    mended: Mapping[Drift, Rows]

    @property
    def status(self) -> Status:
        """As the rule judges what is new; FAIL where something is mended and still in the baseline."""
        if self.check.error:
            return Status.ERROR
        return Status.FAIL if self.mended else self.new_status

    @property
    def new_status(self) -> Status:
        """How the rule's `warn_if` and `error_if` judge what is new, if that were all of its drift."""
        drifted = {drift: rows.number for drift, rows in self.new.items()}
        return self.check.rule.status(Tally(checked=self.check.tally.checked, drifted=drifted))


def known_rules(baseline: Baseline, rules: Mapping[str, Rule], *, using: str, command: str) -> None:
    """Raise UsageError where the baseline has, for the database `using`, a rule that the project doesn't have there."""
    here = [name for name, rule in rules.items() if rule.is_on(using)]
    for name in baseline.get(using, {}):
        if name not in here:
            what = f"is not about database {using!r}" if name in rules else "does not exist"
            raise UsageError(
                f"The baseline has a rule {name!r}, which {what}.{nearest(name, here)} Rename it in the file, "
                f"or have it taken out: {command}"
            )


def found_in(check: RuleCheck) -> Mapping[Drift, Rows]:
    """What a check found that took LIMIT samples, by kind of drift; kinds of which there is none left out."""
    return {
        drift: Rows(
            number=check.tally[drift],
            keys=tuple(each.key for each in check.samples if each.drift is drift),
        )
        for drift in Drift
        if check.tally[drift]
    }


def compared(check: RuleCheck, entry: Entry | None) -> Comparison:
    """The check beside what the baseline holds of its rule."""
    known = entry.drifted if entry else {}
    found = found_in(check)
    new = {drift: found.get(drift, _NOTHING).without(known.get(drift, _NOTHING)) for drift in Drift}
    mended = {drift: known.get(drift, _NOTHING).without(found.get(drift, _NOTHING)) for drift in Drift}
    judged = not check.error
    return Comparison(
        check=check,
        known=sum(rows.number for rows in known.values()),
        new={drift: rows for drift, rows in new.items() if rows.number and judged},
        mended={drift: rows for drift, rows in mended.items() if rows.number and judged},
    )


def updated(check: RuleCheck, entry: Entry | None) -> Entry | None:
    """What the baseline is to hold of the rule from now on; None where it drifts by no more than it tolerates."""
    if check.status is Status.PASS:
        return None
    return Entry(reason=entry.reason if entry else "", drifted=found_in(check))


def pruned(check: RuleCheck, entry: Entry | None) -> Entry | None:
    """What the baseline holds of the rule, without what is mended; nothing new gets in."""
    if entry is None:
        return None
    found = found_in(check)
    still = {drift: rows.also_in(found.get(drift, _NOTHING)) for drift, rows in entry.drifted.items()}
    drifted = {drift: rows for drift, rows in still.items() if rows.number}
    return replace(entry, drifted=drifted) if drifted else None


def with_entries(
    baseline: Baseline, entries: Mapping[str, Entry | None], *, using: str, others: Iterable[str]
) -> Baseline:
    """The baseline with these entries for the database `using`; of its other rules there only `others` are kept."""
    here = baseline.get(using, {})
    kept = {name: here[name] for name in others if name in here and name not in entries}
    new = {name: entry for name, entry in entries.items() if entry is not None}
    return {**baseline, using: {**kept, **new}}


def ordered(keys: Sequence[str]) -> list[str]:
    """Keys as a file has them, whatever order the database has: numbers by size, then texts."""
    return sorted(keys, key=_place)


def _place(key: str) -> tuple[bool, int, str]:
    number = key.removeprefix("-").isdecimal()
    return not number, int(key) if number else 0, key
