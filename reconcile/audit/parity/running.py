"""Runs two paths on the same state of the database, each twice, and compares what they leave behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

from reconcile.audit.capture.capturing import Captured, capture
from reconcile.audit.capture.tables import Image, read_tables
from reconcile.audit.parity.canonical import Mask
from reconcile.audit.parity.comparing import Parity, compare
from reconcile.audit.parity.schema import Schema
from reconcile.audit.parity.sequences import sequences_apart
from reconcile.errors import UsageError

__all__ = ["compare_paths", "read_volatile"]

Path = Callable[[], Any]


def compare_paths(
    one: Path, two: Path, *, using: str = "default", volatile: Iterable[str] = (), is_copy: bool = True
) -> Parity:
    """Run each path twice, roll each run back, and compare rows, messages and mails.

    volatile: `table.column`, or `task.part`, of which the shape alone is compared; what differs between two runs of one path is found by itself.
    is_copy: the database is one of tests or a copy: the sequences of its keys are pushed apart, callbacks of COMMIT are run, and files may be written;
    if not, the callbacks are counted and the world is shut.

    Raises UsageError for a volatile that names nothing, and whatever a path raises.
    """
    schema = Schema(using)
    mask = read_volatile(volatile, schema)
    with sequences_apart(using, [*schema.models.values()]) if is_copy else nullcontext():
        # Nobody else writes to a copy, and each run is rolled back.
        before = read_tables(using) if is_copy else None
        first, second = (
            [_run(each, using, before, is_copy=is_copy) for _ in range(2)] for each in (one, two)
        )
    return compare(first, second, schema, mask)


def _run(path: Path, using: str, before: Image | None, *, is_copy: bool) -> Captured:
    return capture(path, using=using, before=before, runs_callbacks=is_copy, is_shut=not is_copy)


def read_volatile(names: Iterable[str], schema: Schema) -> Mask:
    """The columns that are named as `table.column`, `app.Model.field` or `task.part`. Raises UsageError for a table without such a column."""
    return frozenset(_read_one(each, schema) for each in names)


def _read_one(text: str, schema: Schema) -> tuple[str, str]:
    name, _, part = text.rpartition(".")
    models = {each._meta.label_lower: table for table, each in schema.models.items()}
    table = models.get(name.lower(), name)
    if not name or not part:
        raise UsageError(f"{text!r} names no column: write app.Model.field, table.column or task.argument.")
    if table in schema.models:
        fields = schema.table(table).fields
        columns = {spelled: column for column, each in fields.items() for spelled in (column, each.name)}
        if part.partition("$")[0] not in columns:
            known = ", ".join(sorted({each.name for each in fields.values()}))
            raise UsageError(f"{name} has no column {part!r}; it has {known}.")
        first, mark, rest = part.partition("$")
        return table, f"{columns[first]}{mark}{rest}"
    return name, part
