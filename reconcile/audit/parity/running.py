"""Runs two paths on the same state of the database, each twice, and compares what they leave behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from django.apps import apps

from reconcile.audit.capture.capturing import Captured, capture
from reconcile.audit.capture.tables import RowChange, read_tables
from reconcile.audit.parity.canonical import Mask
from reconcile.audit.parity.comparing import Parity, compare
from reconcile.audit.parity.schema import Schema
from reconcile.audit.parity.sequences import sequences_apart
from reconcile.errors import UsageError, nearest
from reconcile.receipts import receipt

__all__ = ["compare_paths", "read_ignored", "read_volatile"]

Path = Callable[[], Any]


def compare_paths(
    one: Path,
    two: Path,
    *,
    using: str = "default",
    volatile: Iterable[str] = (),
    ignored: Iterable[str] = (),
    is_shut: bool = False,
) -> Parity:
    """Run each path twice, roll each run back, and compare rows, messages and mails.

    volatile: `table.column`, or `task.part`, of which the shape alone is compared; what differs between two runs of one path is found by itself.
    ignored: models as `app.Model`, or tables, of which nothing is compared.
    is_shut: files, sockets and programs are refused; messages and mails go nowhere in any case.

    The database must be one of tests or a copy: the sequences of its keys are pushed apart, and callbacks of COMMIT are run. Raises UsageError for a
    volatile or ignored that names nothing, and whatever a path raises.
    """
    schema = Schema(using)
    mask, left_out = read_volatile(volatile, schema), read_ignored(ignored, schema)
    with sequences_apart(using, [*schema.models.values()]) as schema.least_made:
        # Nobody else writes to a copy, and each run is rolled back.
        before = read_tables(using)
        first, second = (
            [_without(capture(each, using=using, before=before, is_shut=is_shut), left_out) for _ in range(2)]
            for each in (one, two)
        )
    return compare(first, second, schema, mask)


def _without(captured: Captured, tables: frozenset[str]) -> Captured:
    kept = [each for each in captured.changes if each.table not in tables and not _is_promise(each)]
    return replace(captured, changes=kept)


def _is_promise(change: RowChange) -> bool:
    """Whether it is the note of a message that is on its way: the message itself is compared, and whoever sends it otherwise keeps no such note."""
    receipts = receipt()
    return (
        change.table == receipts._meta.db_table
        and change.before is None
        and change.after is not None
        and change.after["state"] != receipts.State.DONE
    )


def read_ignored(names: Iterable[str], schema: Schema) -> frozenset[str]:
    """The tables of these names. Raises UsageError for one that no model has."""
    labels = {each._meta.label_lower: table for table, each in schema.models.items()}
    found = frozenset(labels.get(each.lower(), each) for each in names)
    for each in sorted(found - {*schema.models}):
        raise UsageError(f"{each!r} is no model and no table.{nearest(each, [*labels, *schema.models])}")
    return found


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
    app, _, model = name.rpartition(".")
    if model[:1].isupper() and app in {each.label for each in apps.get_app_configs()}:
        raise UsageError(f"There is no model {name!r}.{nearest(name.lower(), models)}")
    return name, part
