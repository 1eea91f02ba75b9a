"""What the database really has of what the models declare: unique indexes, foreign keys, the kind of each table.

A constraint may have been dropped by hand, be an index that a failed CREATE INDEX CONCURRENTLY has left invalid, or stand
in the migrations' state alone. So whoever is about to trust one asks here. Where nobody has begun to read a schema, the
models are believed: pages and faults are made without a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from django.db.models import Field, Model

from reconcile.db.columns import concrete_model

__all__ = [
    "ForeignKeyInto",
    "Schema",
    "Table",
    "UniqueIndex",
    "current_schema",
    "is_checked_reference",
    "known_table",
    "may_change_values",
    "use_schema",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UniqueIndex:
    """A unique index that the database holds every row to.

    columns: their names; empty in the place of an expression. partial: it has a condition. deferrable: a transaction may
    put it off; deferred: each one does, unless told otherwise.
    """

    name: str
    columns: tuple[str, ...]
    partial: bool = False
    nulls_distinct: bool = True
    deferrable: bool = False
    deferred: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as the database has it.

    kind: `table`, `view` or `foreign table`. filtered: row level security hides rows from this session. foreign_keys: the
    single columns that are checked against another table. triggers: some may change what is written to it. impossible: of insert,
    update and delete what the database can't do to it, as to a view with joins. partitioned: it has partitions and none for any other
    key.
    """

    kind: str
    filtered: bool = False
    triggers: bool = False
    uniques: tuple[UniqueIndex, ...] = ()
    foreign_keys: frozenset[str] = frozenset()
    impossible: frozenset[str] = frozenset()
    partitioned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKeyInto:
    """A foreign key that the database checks, seen from the table that it refers to.

    table: the table that refers, as a statement names it. columns: the names of its columns; referred: of those that they equal.
    acts: what a DELETE does to the rows that refer, such as `CASCADE`; empty if it is refused.
    """

    table: str
    columns: tuple[str, ...]
    referred: tuple[str, ...]
    acts: str = ""


@dataclass(kw_only=True)
class Schema:
    """The tables of one database. `read` reads one by its name, `read_keys_into` the keys that refer to it; each once, when it is asked for.

    lacking: a sentence for each constraint that a model declares, that somebody asked for, and that the database lacks.
    """

    using: str
    read: Callable[[str], Table | None]
    read_keys_into: Callable[[str], tuple[ForeignKeyInto, ...]]
    tables: dict[str, Table | None] = field(default_factory=dict)
    keys_into: dict[str, tuple[ForeignKeyInto, ...]] = field(default_factory=dict)
    lacking: dict[str, None] = field(default_factory=dict)

    def miss(self, model: type[Model], what: str) -> None:
        """Record that the database lacks what the model declares."""
        sentence = f"The model {model._meta.label} declares {what}; the database has no such constraint."
        self.lacking[sentence] = None

    def table_of(self, model: type[Model]) -> Table | None:
        """The table of `model`, without those of its parents; None if there is none."""
        name = concrete_model(model)._meta.db_table
        if name not in self.tables:
            self.tables[name] = self.read(name)
        return self.tables[name]

    def foreign_keys_into(self, model: type[Model]) -> tuple[ForeignKeyInto, ...]:
        """The foreign keys that refer to the table of `model`, whoever has made them."""
        name = concrete_model(model)._meta.db_table
        if name not in self.keys_into:
            self.keys_into[name] = self.read_keys_into(name)
        return self.keys_into[name]


_SCHEMAS: ContextVar[tuple[Schema, ...]] = ContextVar("reconcile_schemas", default=())


@contextmanager
def use_schema(schema: Schema) -> Iterator[Schema]:
    """While this lasts, `current_schema` returns `schema` for its database."""
    token = _SCHEMAS.set((schema, *_SCHEMAS.get()))
    try:
        yield schema
    finally:
        _SCHEMAS.reset(token)


def current_schema(using: str) -> Schema | None:
    """The schema in use for the database; None where the models are to be believed."""
    return next((each for each in _SCHEMAS.get() if each.using == using), None)


def known_table(model: type[Model], using: str) -> Table | None:
    """The table of `model` as the schema in use has it; None where no schema is in use, or there is no such table."""
    schema = current_schema(using)
    return None if schema is None else schema.table_of(model)


def may_change_values(model: type[Model], using: str) -> bool:
    """Whether triggers or rules of the table may change what is written to it; False where no schema is in use."""
    table = known_table(model, using)
    return table is not None and table.triggers


def is_checked_reference(column: Field[object, object], using: str) -> bool:
    """Whether the database checks the foreign key, as its model says. Where no schema is in use, it is believed."""
    schema = current_schema(using)
    if schema is None:
        return True
    table = schema.table_of(column.model)
    checked = table is not None and column.column in table.foreign_keys
    if not checked:
        schema.miss(column.model, f"the foreign key {column.name!r}")
    return checked
