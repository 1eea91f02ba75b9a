"""The baseline: drift that is known and accepted, kept in a TOML file, and what is new or mended since.

Reading the file takes the standard library alone; writing it takes tomlkit, which the extra `ci` installs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconcile.core.drift import Drift, Status, Tally
from reconcile.detect.checking import RuleCheck
from reconcile.errors import UsageError, nearest
from reconcile.rules.rule import Rule

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Array, Table

__all__ = [
    "LIMIT",
    "VERSION",
    "Baseline",
    "Comparison",
    "Entry",
    "Rows",
    "as_toml",
    "compare",
    "drifted_rows",
    "known_rules",
    "new_document",
    "prune_entry",
    "read_baseline",
    "sort_keys",
    "update_entry",
    "with_entries",
]

LIMIT = 100
"""Keys of one kind of drift that a baseline names. If there are more, it has their number alone."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Drifted rows of one kind: their number, and the keys of all, of the first few, or of none."""

    number: int = 0
    keys: tuple[str, ...] = ()

    @property
    def knows_all_keys(self) -> bool:
        """Whether the key of every row is known."""
        return self.number == len(self.keys)

    def without(self, other: Rows) -> Rows:
        """The rows that are not in `other`; their number alone if the keys of either are not known."""
        keys = (
            tuple(each for each in self.keys if each not in set(other.keys)) if other.knows_all_keys else ()
        )
        if self.knows_all_keys and other.knows_all_keys:
            return Rows(number=len(keys), keys=keys)
        surplus = max(self.number - other.number, 0)
        return Rows(number=surplus, keys=keys[:surplus])

    def also_in(self, other: Rows) -> Rows:
        """The rows that are in `other` too; their number alone if the keys of either are not known."""
        if self.knows_all_keys and other.knows_all_keys:
            keys = tuple(each for each in self.keys if each in set(other.keys))
            return Rows(number=len(keys), keys=keys)
        return min(self, other, key=lambda rows: rows.number)


_NOTHING = Rows()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The known drift of one rule. A person writes `reason`, and it stays as long as the rule has drift."""

    reason: str = ""
    drifted: Mapping[Drift, Rows] = field(default_factory=dict)


Baseline = Mapping[str, Mapping[str, Entry]]
"""The known drift, by database and rule."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a check found for one rule, beside its known drift.

    new: drift that the baseline doesn't have. mended: drift that it has and that isn't there any more.
    """

    check: RuleCheck
    known: int
    new: Mapping[Drift, Rows]
    mended: Mapping[Drift, Rows]

    @property
    def status(self) -> Status:
        """The status by the new drift alone; FAIL if known drift is mended and still in the baseline."""
        if self.check.error:
            return Status.ERROR
        return Status.FAIL if self.mended else self.new_status

    @property
    def new_status(self) -> Status:
        """The status by `warn_if` and `error_if`, as if the new drift were all."""
        drifted = {drift: rows.number for drift, rows in self.new.items()}
        return self.check.rule.status(Tally(checked=self.check.tally.checked, drifted=drifted))


def known_rules(baseline: Baseline, rules: Mapping[str, Rule], *, using: str, command: str) -> None:
    """Raise UsageError if the baseline has a rule, for the database `using`, that the project doesn't have there."""
    here = [name for name, rule in rules.items() if rule.is_on(using)]
    for name in baseline.get(using, {}):
        if name not in here:
            what = f"is not about database {using!r}" if name in rules else "does not exist"
            raise UsageError(
                f"The baseline has a rule {name!r}, which {what}.{nearest(name, here)} Rename it in the file, "
                f"or have it taken out: {command}"
            )


def drifted_rows(check: RuleCheck) -> Mapping[Drift, Rows]:
    """The drifted rows of a check that took LIMIT samples, by kind of drift, without kinds that have none."""
    return {
        drift: Rows(
            number=check.tally[drift],
            keys=tuple(each.key for each in check.samples if each.drift is drift),
        )
        for drift in Drift
        if check.tally[drift]
    }


def compare(check: RuleCheck, entry: Entry | None) -> Comparison:
    """Compare a check with the known drift of its rule."""
    known = entry.drifted if entry else {}
    found = drifted_rows(check)
    new = {drift: found.get(drift, _NOTHING).without(known.get(drift, _NOTHING)) for drift in Drift}
    mended = {drift: known.get(drift, _NOTHING).without(found.get(drift, _NOTHING)) for drift in Drift}
    judged = not check.error
    return Comparison(
        check=check,
        known=sum(rows.number for rows in known.values()),
        new={drift: rows for drift, rows in new.items() if rows.number and judged},
        mended={drift: rows for drift, rows in mended.items() if rows.number and judged},
    )


def update_entry(check: RuleCheck, entry: Entry | None) -> Entry | None:
    """The new entry of the rule; None if the rule drifts by no more than it tolerates."""
    if check.status is Status.PASS:
        return None
    return Entry(reason=entry.reason if entry else "", drifted=drifted_rows(check))


def prune_entry(check: RuleCheck, entry: Entry | None) -> Entry | None:
    """The entry of the rule without mended drift. New drift is not added."""
    if entry is None:
        return None
    found = drifted_rows(check)
    still = {drift: rows.also_in(found.get(drift, _NOTHING)) for drift, rows in entry.drifted.items()}
    drifted = {drift: rows for drift, rows in still.items() if rows.number}
    return replace(entry, drifted=drifted) if drifted else None


def with_entries(
    baseline: Baseline, entries: Mapping[str, Entry | None], *, using: str, others: Iterable[str]
) -> Baseline:
    """The baseline with these entries for the database `using`; of its other rules there, only `others` stay."""
    here = baseline.get(using, {})
    kept = {name: here[name] for name in others if name in here and name not in entries}
    new = {name: entry for name, entry in entries.items() if entry is not None}
    return {**baseline, using: {**kept, **new}}


def sort_keys(keys: Sequence[str]) -> list[str]:
    """Sort keys for the file, whatever the order of the database: numbers by size, then texts."""
    return sorted(keys, key=_sort_key)


def _sort_key(key: str) -> tuple[bool, int, str]:
    number = key.removeprefix("-").isdecimal()
    return not number, int(key) if number else 0, key


VERSION = 1

_HEAD = f"""\
Drift that is known, by database and rule: the keys of the drifted rows, or their number where there are more than {LIMIT}.
`reconcile baseline verify` fails where drift is new, and where drift that stands here is mended.
`reconcile baseline update` writes this file anew. It keeps each rule's `reason`, which is yours to write, and no comments."""

_KEYS = ("reason", *map(str, Drift))


def read_baseline(path: Path) -> Baseline:
    """Read the baseline from the file. Raises UsageError if there is none, or if it can't be read."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no baseline {str(path)!r}. Write it with: reconcile baseline update --file {path}"
        ) from error
    except OSError as error:
        raise UsageError(f"The baseline {str(path)!r} can't be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    version = found.pop("version", None)
    if version != VERSION:
        raise _unreadable(path, f"version is {version!r}, and this release reads version {VERSION}")
    drift = found.pop("drift", {})
    if found:
        raise _unreadable(path, f"it has {next(iter(found))!r}, and only 'version' and 'drift' belong there")
    return {
        using: {name: _entry(path, f'drift.{using}."{name}"', entry) for name, entry in rules.items()}
        for using, rules in _tables(path, "drift", drift).items()
    }


def new_document(head: str, version: int) -> TOMLDocument:
    """A document that begins with the lines of the head as comments, and its version. Raises ImportError if tomlkit is not installed."""
    import tomlkit

    document = tomlkit.document()
    for line in head.splitlines():
        document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    document.add("version", tomlkit.item(version))
    return document


def as_toml(baseline: Baseline) -> str:
    """The text of the file. Raises ImportError if tomlkit is not installed."""
    import tomlkit

    document = new_document(_HEAD, VERSION)
    drift = tomlkit.table(is_super_table=True)
    for using in sorted(using for using, rules in baseline.items() if rules):
        rules = tomlkit.table(is_super_table=True)
        for name in sorted(baseline[using]):
            rules.add(name, _table(baseline[using][name]))
        drift.add(using, rules)
    if drift:
        document.add("drift", drift)
    return tomlkit.dumps(document)


def _table(entry: Entry) -> Table:
    import tomlkit

    table = tomlkit.table()
    if entry.reason:
        table.add("reason", entry.reason)
    for drift in Drift:
        rows = entry.drifted.get(drift)
        if rows is not None:
            table.add(
                str(drift), _keys(rows.keys) if rows.knows_all_keys and rows.number <= LIMIT else rows.number
            )
    return table


def _keys(keys: tuple[str, ...]) -> Array:
    """One key on each line, so that a diff shows the keys that came and went, and no others."""
    import tomlkit

    array = tomlkit.array()
    array.extend(sort_keys(keys))
    array.multiline(multiline=True)
    return array


def _tables(path: Path, place: str, value: Any) -> Mapping[str, Mapping[str, Any]]:
    """`value` as a table of tables."""
    tables: Mapping[str, Mapping[str, Any]] = _table_at(path, place, value)
    for key, each in tables.items():
        _table_at(path, f"{place}.{key}", each)
    return tables


def _table_at(path: Path, place: str, value: Any) -> Any:
    if not isinstance(value, dict):
        raise _unreadable(path, f"{place} is {value!r}, and not a table")
    return value


def _entry(path: Path, place: str, entry: Any) -> Entry:
    for key in _table_at(path, place, entry):
        if key not in _KEYS:
            raise _unreadable(path, f"[{place}] has an unknown key {key!r}.{nearest(key, _KEYS)}".rstrip("."))
    reason = entry.get("reason", "")
    if not isinstance(reason, str):
        raise _unreadable(path, f"[{place}] reason is {reason!r}, and not a text")
    drifted = {drift: _rows(path, place, drift, entry[drift]) for drift in Drift if drift in entry}
    return Entry(reason=reason, drifted=drifted)


def _rows(path: Path, place: str, drift: Drift, value: Any) -> Rows:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return Rows(number=value)
    if isinstance(value, list) and value and all(isinstance(key, str) for key in value):
        keys = tuple(dict.fromkeys(value))
        return Rows(number=len(keys), keys=keys)
    raise _unreadable(
        path, f"[{place}] {drift} is {value!r}, and neither a count above 0 nor a list of keys as texts"
    )


def _unreadable(path: Path, what: str) -> UsageError:
    return UsageError(
        f"The baseline {str(path)!r} can't be used: {what}. Mend the file; or delete it, and write it anew with: "
        f"reconcile baseline update --file {path}"
    )
