"""What an act did, told without the keys that the database made for it: a new row is known by what it holds and by what it refers to.

Each new row has a colour: the digest of its columns, in which a reference to another new row is that row's colour. A whole number or UUID in a text, a
document or a message that is the key of a new row is its colour, too. Colours are made by what a row refers to first, so that an error in an
invoice is an error in one row; where two rows are then alike, what refers to them may tell them apart.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cached_property
from hashlib import sha256
from typing import Any

from django.conf import settings
from django.db.models import DateTimeField, DecimalField, JSONField
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from reconcile.audit.capture.capturing import Captured
from reconcile.audit.capture.tables import RowChange
from reconcile.audit.parity.schema import Schema, TableSchema
from reconcile.audit.sent import SentTask

__all__ = ["Canonical", "Entry", "Mask"]

ROUNDS = 12
"""How far a colour depends on others: the rows that a row refers to, those to which these refer, and so on."""

Node = tuple[str, str]
"""A new row: its table, and its key as it may stand in a text."""

Mask = frozenset[tuple[str, str]]
"""Columns whose values are told by their shape alone: (table, column), or (task or mail, part)."""

_TOKEN = re.compile(
    r"\b[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\b|(?<![\w.])\d{1,19}(?![\w]|\.\d)"
)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?")
_LEEWAY = timedelta(seconds=2)
"""By how much the clocks of the database and of this process may differ."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that was done. kind: `insert`, `update`, `delete`, `task` or `mail`. name: of the table or task. values: what it holds, by column."""

    kind: str
    name: str
    values: tuple[tuple[str, str], ...]

    @property
    def as_dict(self) -> dict[str, str]:
        """The values by column."""
        return dict(self.values)


class Canonical:
    """What an act did, without the keys that were made for it.

    entries: how often each thing. told_apart: the same, where new rows that are alike are told apart by what refers to them.
    """

    def __init__(self, captured: Captured, schema: Schema, mask: Mask = frozenset()) -> None:
        self.captured, self.schema, self.mask = captured, schema, mask
        self.new = {
            _node(each): each for each in captured.changes if each.before is None and not self._is_given(each)
        }
        self.by_key: dict[str, list[Node]] = defaultdict(list)
        for each in self.new:
            self.by_key[each[1]].append(each)
        self.began, self.ended = captured.began - _LEEWAY, captured.ended + _LEEWAY
        self.colours = {node: _digest([node[0]]) for node in self.new}
        for _ in range(ROUNDS):
            self.colours = {node: _digest([node[0], *self.texts(each)]) for node, each in self.new.items()}
        self.entries = Counter(self._entries())

    @cached_property
    def told_apart(self) -> Counter[Entry]:
        """The entries, with new rows told apart by the rows that refer to them."""
        downwards = self.colours
        for _ in range(ROUNDS):
            referring: dict[Node, list[str]] = defaultdict(list)
            for each in self.captured.changes:
                for column, node in self.referred(each):
                    referring[node].append(f"{each.table}.{column} {self._said(each)}")
            self.colours = {
                node: _digest([colour, *sorted(referring[node])]) for node, colour in self.colours.items()
            }
        try:
            return Counter(self._entries())
        finally:
            self.colours = downwards

    def _is_given(self, change: RowChange) -> bool:
        """Whether the key of a new row is none that the database has made: it is the same on each path, and small numbers are no keys elsewhere."""
        table, key = self.schema.table(change.table), {*self.schema.table(change.table).key}
        if key and key.isdisjoint(table.made) and key.isdisjoint(table.references):
            return True
        least = self.schema.least_made.get(change.table)
        return least is not None and isinstance(change.key[0], int) and change.key[0] < least

    def _said(self, change: RowChange) -> str:
        """A row as others are told apart by it: a new one by what it holds, any other by its key."""
        return _digest([change.table, *(self.texts(change) if change.before is None else [repr(change.key)])])

    def referred(self, change: RowChange) -> Iterator[tuple[str, Node]]:
        """The new rows to which a row refers, by column."""
        table = self.schema.table(change.table)
        for column, value in (change.after or {}).items():
            target = self._target(table, column, change.after or {})
            if target and (target, _plain_key(value)) in self.new:
                yield column, (target, _plain_key(value))

    # Entries.

    def _entries(self) -> Iterator[Entry]:
        """All that was done."""
        for each in self.captured.changes:
            yield self.entry(each)
        for task in self.captured.tasks:
            yield from self.tasks(task)
        for mail in self.captured.mails:
            parts = {
                "subject": mail.subject,
                "body": mail.body,
                **{name: ", ".join(people) for name, people in mail.headed},
                **{f"alternative {at}": each for at, each in enumerate(mail.alternatives)},
                **{f"attachment {at}": each for at, each in enumerate(mail.attachments)},
            }
            yield Entry(kind="mail", name="mail", values=tuple(self._parts("mail", parts)))

    def entry(self, change: RowChange) -> Entry:
        """What was done to a row."""
        key = ("key", repr(change.key))
        if change.before is None:
            known = (key,) if self._is_given(change) else ()
            return Entry(kind="insert", name=change.table, values=(*known, *self.row(change)))
        if change.after is None:
            return Entry(kind="delete", name=change.table, values=(key,))
        changed = {*change.changed}
        values = [each for each in self.row(change) if each[0].partition("$")[0] in changed]
        return Entry(kind="update", name=change.table, values=(key, *values))

    def tasks(self, task: SentTask) -> Iterator[Entry]:
        """A message, or one for each thing in the list that it is handed: a batch does what single ones do."""
        parts = {**{str(place): each for place, each in enumerate(task.args)}, **task.kwargs}
        batch = next((name for name, each in parts.items() if isinstance(each, list | tuple | set | frozenset)), None)  # fmt: skip
        for one in parts[batch] if batch is not None else [None]:
            handed = {**parts, batch: one} if batch is not None else parts
            yield Entry(kind="task", name=task.name, values=tuple(self._parts(task.name, handed)))

    def _parts(self, name: str, parts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for part, value in sorted(parts.items()):
            for path, leaf in _leaves(part, value):
                yield path, self._masked(name, path, leaf, self.value(leaf))

    # Rows.

    def row(self, change: RowChange) -> Iterator[tuple[str, str]]:
        """The columns of a row with what they hold, without keys that were made."""
        table = self.schema.table(change.table)
        for column, value in (change.after or {}).items():
            if column not in table.made:
                yield from self.column(change, table, column, value)

    def texts(self, change: RowChange) -> list[str]:
        """The columns of a row, each as one text."""
        return [f"{path}={value}" for path, value in self.row(change)]

    def column(self, change: RowChange, table: TableSchema, column: str, value: Any) -> Iterator[tuple[str, str]]:  # fmt: skip
        """What a column holds; of a document, what each of its keys does."""
        target = self._target(table, column, change.after or {})
        if target and value is not None:
            said = self.colours.get((target, _plain_key(value)), f"{target} {_plain_key(value)}")
            yield column, self._masked(change.table, column, value, said)
            return
        kind = table.fields.get(column)
        if isinstance(kind, JSONField) and isinstance(value, str | bytes | dict | list):
            for path, leaf in _leaves(f"{column}$", _document(value)):
                yield path, self._masked(change.table, path, leaf, self.value(leaf))
            return
        yield column, self._masked(change.table, column, value, self.value(_by_kind(kind, value)))

    def _target(self, table: TableSchema, column: str, row: Mapping[str, Any]) -> str:
        kind = table.generic.get(column)
        if kind is not None:
            return self.schema.content_types.get(row.get(kind), "")
        return table.references.get(column, "")

    def _masked(self, name: str, path: str, value: Any, said: str) -> str:
        if (name, path) not in self.mask and (name, path.partition("$")[0]) not in self.mask:
            return said
        return "NULL" if value is None else "empty" if value in ("", b"", 0, [], {}) else "a value"

    def value(self, value: Any) -> str:
        """A value as a text that is the same on each path."""
        match value:
            case str():
                return repr(self._text(value))
            case datetime():
                return self._moment(value)
            case date():
                return "TODAY" if value in self._today() else value.isoformat()
            case int() if not isinstance(value, bool):
                return self._coloured(str(value))
        return self._text(_plain(value))

    def _text(self, text: str) -> str:
        moments = _MOMENT.sub(lambda found: self._moment_in(found[0]), text)
        return _TOKEN.sub(lambda found: self._coloured(found[0]), moments)

    def _coloured(self, token: str) -> str:
        """What the key of new rows is; of several tables it may be the key of, all."""
        nodes = self.by_key.get(_plain_key(token))
        return "+".join(sorted(self.colours[each] for each in nodes)) if nodes else token

    def _moment_in(self, text: str) -> str:
        found = parse_datetime(text)
        return self._moment(found) if found is not None and self._is_now(found) else text

    def _moment(self, value: datetime) -> str:
        return "NOW" if self._is_now(value) else _utc(value).isoformat()

    def _is_now(self, value: datetime) -> bool:
        return self.began <= _utc(value) <= self.ended

    def _today(self) -> set[date]:
        zones: list[Callable[[datetime], datetime]] = [timezone.localtime, _utc]
        return {zone(each).date() for each in (self.began, self.ended) for zone in zones}


def _node(change: RowChange) -> Node:
    return change.table, _plain_key(change.key[0] if len(change.key) == 1 else change.key)


def _plain_key(value: Any) -> str:
    """A key as it may stand in a text: a UUID without its dashes."""
    text = str(value)
    return text.replace("-", "").lower() if len(text) == 36 else text.lower()  # noqa: PLR2004


def _digest(parts: Sequence[str]) -> str:
    return "#" + sha256("\0".join(parts).encode()).hexdigest()[:12]


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values in a document, each by its path; those of what is empty are itself."""
    if isinstance(value, dict) and value:
        for key in sorted(value, key=str):
            yield from _leaves(f"{path}.{key}", value[key])
    elif isinstance(value, list | tuple) and value:
        for place, each in enumerate(value):
            yield from _leaves(f"{path}[{place}]", each)
    else:
        yield path, value


def _document(value: Any) -> Any:
    """A document as the driver gives it: read, or its text."""
    if isinstance(value, str | bytes):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _by_kind(kind: Any, value: Any) -> Any:
    """A value that a database without types keeps as a text or float, as what its column holds."""
    if isinstance(kind, DateTimeField) and isinstance(value, str):
        return parse_datetime(value) or value
    if isinstance(kind, DecimalField) and isinstance(value, str | int | float):
        return _decimal(value)
    return value


def _decimal(value: str | float) -> Any:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return value


def _plain(value: Any) -> str:
    """What is no text, moment or whole number."""
    match value:
        case None:
            return "NULL"
        case Decimal() if value.is_finite():
            return f"{value.normalize():f}"
        case float():
            return repr(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
    return str(value)


def _utc(value: datetime) -> datetime:
    """A moment with its zone: what the database keeps without one is UTC, or local time in a project without zones."""
    if value.tzinfo is None:
        zone = UTC if settings.USE_TZ else timezone.get_default_timezone()
        value = value.replace(tzinfo=zone)
    return value.astimezone(UTC)
