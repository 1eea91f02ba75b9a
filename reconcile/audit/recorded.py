"""The calls that a test suite was seen to make past signals and methods, and the file that hands them on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconcile.errors import UsageError

__all__ = ["SeenCall", "as_rows", "from_rows", "read_recording", "write_recording"]

VERSION = 1
"""The version of the file."""

OPERATIONS = frozenset({"bulk_create", "bulk_update", "update", "delete", "_raw_delete", "SQL"})
"""What can be recorded."""


@dataclass(frozen=True, order=True)
class SeenCall:
    """One call site that ran. path, line: of the nearest code that is not Django's. model: `app.Model`; empty for a statement. sql: its text, else empty."""

    path: str
    line: int
    function: str
    operation: str
    model: str
    sql: str = ""


def write_recording(path: Path, calls: Mapping[SeenCall, int]) -> None:
    """Write the calls as JSON, for `reconcile signals bypasses --seen FILE`. Raises OSError."""
    path.write_text(
        json.dumps({"version": VERSION, "calls": as_rows(calls)}, indent=1) + "\n", encoding="utf-8"
    )


def read_recording(path: Path) -> Counter[SeenCall]:
    """How often each call of the file was made. Raises UsageError if the file can't be used."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise _unusable(
                path, f"version is {found['version']!r}, and this release reads version {VERSION}"
            )
        return from_rows(found["calls"])
    except OSError as error:
        raise UsageError(
            f"{str(path)!r} can't be read: {error.strerror or error}. Write it with: pytest --reconcile-bypasses {path}"
        ) from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}") from error


def _unusable(path: Path, what: str) -> UsageError:
    return UsageError(f"{str(path)!r} is nothing that pytest --reconcile-bypasses wrote: {what}.")


def as_rows(calls: Mapping[SeenCall, int]) -> list[dict[str, Any]]:
    """The calls as plain values, in a fixed order."""
    return [
        {"path": each.path, "line": each.line, "function": each.function, "operation": each.operation, "model": each.model or None, "sql": each.sql or None, "times": calls[each]}
        for each in sorted(calls)
    ]  # fmt: skip


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Counter[SeenCall]:
    """The calls of plain values. Raises ValueError, KeyError or TypeError if they are none."""
    found: Counter[SeenCall] = Counter()
    for row in rows:
        if row["operation"] not in OPERATIONS:
            raise ValueError(f"{row['operation']!r} is no operation")
        call = SeenCall(
            path=str(Path(row["path"]).resolve()),
            line=int(row["line"]),
            function=str(row["function"]),
            operation=str(row["operation"]),
            model=row["model"] or "",
            sql=row["sql"] or "",
        )
        found[call] += int(row["times"])
    return found
