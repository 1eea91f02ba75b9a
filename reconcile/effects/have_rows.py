"""`HaveRows`: every record has exactly the rows that a Python function derives from it.

The declaration and its faults stand here; how records and rows are read side by side, in `_derived_rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import BinaryField, F, Field, JSONField, Model, Q, QuerySet

from reconcile.declaring import Declaration, column_faults, field_named
from reconcile.drift import Drift, Guarantee
from reconcile.effects._derived_rows import row_set_finders
from reconcile.effects._from_python import function_name, reading_faults
from reconcile.effects._lifting import Lift, lifted
from reconcile.effects._link import carrier, is_linked, terms
from reconcile.effects.have_row import HaveRow
from reconcile.errors import Fault
from reconcile.finders import Finder, Source
from reconcile.remedies import Remedy
from reconcile.sql.expressions import Column
from reconcile.sql.lookups import stored_field
from reconcile.sql.wording import in_words

__all__ = ["HaveRows"]


@dataclass(frozen=True)
class HaveRows(Declaration):
    """Every record must have exactly the rows of `model` that `rows` returns for it.

    link: column of the row = expression over the record; one of the columns holds the record's own key.
    rows: a function, called with the columns that `reads` names. It returns a mapping of column and value for each
        row; where the key is one column and there are no values, the plain key is enough.
    reads: columns of the record, or paths over foreign keys.
    key: the columns that tell one row of a record from another. A row whose key the function doesn't give is EXTRA.
    values: the other columns that it gives; compared where the row is there, written where it isn't.
    """

    model: type[Model]
    link: Mapping[str, Any] = field(default_factory=dict)
    rows: Callable[..., Any] | None = None
    reads: Sequence[str] = ()
    key: Sequence[str] = ()
    values: Sequence[str] = ()

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """Options of the wrong type, unknown columns and paths, columns of a new row that get no value."""
        yield from self.option_faults()
        wrong = [*self._type_faults()]
        yield from wrong
        if wrong:
            return
        named = [*self.key, *self.values]
        linked = HaveRow(self.model, link=self.link, create_only=dict.fromkeys(named, _given))
        wrong = [*column_faults(self.model, "HaveRows(key=…, values=…)", iter(named))]
        wrong = wrong or [_reworded(fault) for fault in linked.faults(model)]
        yield from wrong
        yield from reading_faults(model, self.rows, self.reads, "HaveRows", option="rows")
        if not wrong:
            yield from self._column_faults(model)

    def _type_faults(self) -> Iterator[Fault]:
        if not (isinstance(self.model, type) and issubclass(self.model, Model)):
            said = f"HaveRows: {self.model!r} is not a model."
            yield Fault("reconcile.E012", said, "Give the row's model class.")
        for option in ("key", "values"):
            names = getattr(self, option)
            listed = isinstance(names, Sequence) and not isinstance(names, str)
            if not listed or not all(isinstance(name, str) for name in names):
                hint = 'Give a list of column names: key=["user_name"].'
                yield Fault("reconcile.E012", f"HaveRows: {option}= is {names!r}.", hint)
        if self.key in ((), []):
            hint = 'Name the columns that tell one row of a record from another: key=["user_name"].'
            yield Fault("reconcile.E012", "HaveRows: key= is empty.", hint)

    def _column_faults(self, model: type[Model]) -> Iterator[Fault]:
        """Columns that are said twice, keys that can't be compared, a link that doesn't lead back to the record."""
        taken = {field_named(self.model, name) for name in self.link}
        for name in (*self.key, *self.values):
            column = field_named(self.model, name)
            if column in taken:
                hint = "Name it once, in link=, key= or values=."
                yield Fault("reconcile.E012", f"HaveRows: {name!r} is named twice.", hint)
            taken.add(column)
        for column in _fields(self.model, self.key):
            if isinstance(stored_field(column), JSONField | BinaryField):
                hint = "Name it in values=."
                yield Fault("reconcile.E015", f"HaveRows(key=…): {column.name!r} is no key.", hint)
        if carrier(self._linked, model) is None:
            hint = 'Link a column of the row with the record\'s own key: link={"note": F("pk")}.'
            yield Fault("reconcile.E015", "HaveRows: no column of link= holds the record's key.", hint)

    @property
    def _linked(self) -> HaveRow:
        return HaveRow(self.model, link=self.link)

    def sentence(self, model: type[Model]) -> str:  # noqa: ARG002
        """`have exactly the mentions with note = pk that mentions_of(text) gives`."""
        rows = f"{self.model._meta.verbose_name_plural} with {in_words(self.link)}"
        return f"have exactly the {rows} that {function_name(self.rows)}({', '.join(self.reads)}) gives"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:
        """A where a unique constraint covers link and key, C where a lock on the record keeps rows out, else D."""
        return self._linked.level(model, using, key=self.key)

    def is_tied(self, model: type[Model]) -> bool:
        """Always: the link holds the record's own key."""
        return self._linked.is_tied(model)

    def inserted(self) -> tuple[type[Model], ...]:
        """The rows' table."""
        return self._linked.inserted()

    def lift(self, every: QuerySet[Any], using: str) -> Lift:  # noqa: ARG002
        """A constraint on the columns of link and key; NULL in the key counts like any value.

        Where it does, rows that are linked with nothing have to be left out: any number of them may be alike.
        """
        keys = [*_fields(self.model, self.key)]
        columns = [F(column.name) for column in (*terms(self.model, self.link), *keys)]
        distinct = not any(column.null for column in keys)
        condition = Q() if distinct else is_linked(self._linked)
        return lifted(self.model, columns, condition=condition, nulls_distinct=distinct, using=using)

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """All columns of the row: an inserted row brings them all."""
        return self._linked.writes(model)

    def remedies(self) -> Mapping[Drift, Remedy]:
        """The usual ones."""
        return {}

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """MISSING, STALE where there are values, and EXTRA."""
        return row_set_finders(self, self._linked, source)


def _given() -> None:
    """Stands for a value that the function gives."""


def _fields(model: type[Model], names: Sequence[str]) -> Iterator[Field[Any, Any]]:
    return (column for name in names if (column := field_named(model, name)) is not None)


def _reworded(fault: Fault) -> Fault:
    """What a `HaveRow` with the same link says, under this effect's name."""
    said = fault.message.replace("HaveRow", "HaveRows", 1)
    return Fault(fault.id, said, fault.hint.replace("values= or create_only=", "key= or values="))
