"""The file of a baseline: TOML, sorted and small, so that people can read what changed in a diff."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Array, Table

from reconcile.baseline import LIMIT, Baseline, Entry, Rows, ordered
from reconcile.drift import Drift
from reconcile.errors import UsageError, nearest

__all__ = ["VERSION", "as_toml", "read"]

VERSION = 1

_HEAD = f"""\
Drift that is known, by database and rule: the keys of the drifted rows, or their number where there are more than {LIMIT}.
`reconcile baseline verify` fails where drift is new, and where drift that stands here is mended.
`reconcile baseline update` writes this file anew. It keeps each rule's `reason`, which is yours to write, and no comments."""

_KEYS = ("reason", *map(str, Drift))


def read(path: Path) -> Baseline:
    """The baseline in the file; raises UsageError where there is none, or one that can't be understood."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no baseline {str(path)!r}. Write it with: reconcile baseline update --file {path}"
        ) from error
    except OSError as error:
        raise UsageError(f"The baseline {str(path)!r} can't be read: {error.strerror or error}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _broken(path, str(error)) from error
    version = found.pop("version", None)
    if version != VERSION:
        raise _broken(path, f"version is {version!r}, and this release reads version {VERSION}")
    drift = found.pop("drift", {})
    if found:
        raise _broken(path, f"it has {next(iter(found))!r}, and only 'version' and 'drift' belong there")
    return {
        using: {name: _entry(path, f'drift.{using}."{name}"', entry) for name, entry in rules.items()}
        for using, rules in _tables(path, "drift", drift).items()
    }


def as_toml(baseline: Baseline) -> str:
    """The text of the file."""
    document = tomlkit.document()
    for line in _HEAD.splitlines():
        document.add(tomlkit.comment(line))
    document.add(tomlkit.nl())
    document.add("version", tomlkit.item(VERSION))
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
    table = tomlkit.table()
    if entry.reason:
        table.add("reason", entry.reason)
    for drift in Drift:
        rows = entry.drifted.get(drift)
        if rows is not None:
            table.add(str(drift), _keys(rows.keys) if rows.named and rows.number <= LIMIT else rows.number)
    return table


def _keys(keys: tuple[str, ...]) -> Array:
    """A key a line: a diff then shows the keys that came and went, and no others."""
    array = tomlkit.array()
    array.extend(ordered(keys))
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
        raise _broken(path, f"{place} is {value!r}, and not a table")
    return value


def _entry(path: Path, place: str, entry: Any) -> Entry:
    for key in _table_at(path, place, entry):
        if key not in _KEYS:
            raise _broken(path, f"[{place}] has an unknown key {key!r}.{nearest(key, _KEYS)}".rstrip("."))
    reason = entry.get("reason", "")
    if not isinstance(reason, str):
        raise _broken(path, f"[{place}] reason is {reason!r}, and not a text")
    drifted = {drift: _rows(path, place, drift, entry[drift]) for drift in Drift if drift in entry}
    return Entry(reason=reason, drifted=drifted)


def _rows(path: Path, place: str, drift: Drift, value: Any) -> Rows:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return Rows(number=value)
    if isinstance(value, list) and value and all(isinstance(key, str) for key in value):
        keys = tuple(dict.fromkeys(value))
        return Rows(number=len(keys), keys=keys)
    raise _broken(
        path, f"[{place}] {drift} is {value!r}, and neither a count above 0 nor a list of keys as texts"
    )


def _broken(path: Path, what: str) -> UsageError:
    return UsageError(
        f"The baseline {str(path)!r} can't be used: {what}. Mend the file; or delete it, and write it anew with: "
        f"reconcile baseline update --file {path}"
    )
