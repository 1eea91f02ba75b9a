"""`HaveRows`: every record has exactly the rows that a Python function derives from it.

The declaration and its faults are here; `finders` reads records and rows side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from django.db.models import BinaryField, F, JSONField, Model, Q, QuerySet
from django.utils import timezone

from reconcile.core.declaration import column_faults, field_named, fields_named
from reconcile.core.drift import Guarantee
from reconcile.core.finder import Finder, Source
from reconcile.core.function_source import version_faults
from reconcile.core.options import Option, as_given, is_list, option_faults
from reconcile.core.wording.names import models_in_words
from reconcile.core.wording.terms import in_words
from reconcile.db.columns import concrete_model, stored_field
from reconcile.db.expressions import Column, columns_read
from reconcile.errors import Fault
from reconcile.kinds.base import Effect
from reconcile.kinds.have_row.declaration import HaveRow
from reconcile.kinds.have_row.link import is_linked, link_terms, null_in_words, range_column
from reconcile.kinds.have_rows.finders import row_set_finders
from reconcile.kinds.uniqueness import ConstraintAdvice, advise_constraint
from reconcile.kinds.values.from_python import called_in_words, reading_faults

__all__ = ["HaveRows"]


def _are_names(names: Any) -> bool:
    return is_list(names) and all(isinstance(name, str) for name in names)


_NAMES_HINT = 'Give a list of column names: key=["user_name"].'
_OPTIONS = (Option("key", _are_names, _NAMES_HINT), Option("values", _are_names, _NAMES_HINT))


@dataclass(frozen=True)
class HaveRows(Effect):
    """Every record must have exactly the rows of `model` that `rows` returns for it.

    link: column of the row = expression over the record; one of the columns holds the record's own key.
    rows: a function, called with the columns that `reads` names. It returns a mapping of column and value for each
        row; where the key is one column and there are no values, the plain key is enough.
    reads: columns of the record, or paths over foreign keys.
    key: the columns that tell one row of a record from another. A row whose key the function doesn't give is EXTRA.
    values: the other columns that it gives; compared where the row is there, written where it isn't.
    version: stands for what the function does, where its source text doesn't; change it with each edit.
    """

    model: type[Model]
    _: KW_ONLY
    link: Mapping[str, Any] = field(default_factory=dict)
    rows: Callable[..., Any] | None = None
    reads: Sequence[str] = ()
    key: Sequence[str] = ()
    values: Sequence[str] = ()
    version: str | int | None = None

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """Options of the wrong type, unknown columns and paths."""
        wrong = [*self._type_faults()]
        yield from wrong
        if wrong:
            return
        named, linked = [*self.key, *self.values], self._with_given
        wrong = [*column_faults(self.model, "HaveRows(key=…, values=…)", iter(named))]
        wrong = wrong or [_as_have_rows_fault(fault) for fault in linked.faults(model)]
        yield from wrong
        yield from reading_faults(model, self.rows, self.reads, "HaveRows", option="rows")
        yield from version_faults(self.rows, self.version, "HaveRows")
        if not wrong:
            yield from self._column_faults(model)

    def _type_faults(self) -> Iterator[Fault]:
        if not (isinstance(self.model, type) and issubclass(self.model, Model)):
            message = f"HaveRows: {as_given(self.model)} is not a model."
            yield Fault("reconcile.E012", message, "Give the row's model class.")
        yield from option_faults(self, _OPTIONS, "HaveRows")
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
        for column in fields_named(self.model, self.key):
            if isinstance(stored_field(column), JSONField | BinaryField):
                hint = "Name it in values=."
                yield Fault("reconcile.E015", f"HaveRows(key=…): {column.name!r} is no key.", hint)
        if range_column(self._linked, model) is None:
            hint = 'Link a column of the row with the record\'s own key: link={"note": F("pk")}.'
            yield Fault("reconcile.E015", "HaveRows: no column of link= holds the record's key.", hint)

    def insertion_faults(self) -> Iterator[Fault]:
        """Columns of a new row that get no value."""
        yield from map(_as_have_rows_fault, self._with_given.insertion_faults())

    @property
    def _with_given(self) -> HaveRow:
        """The link with all columns that a new row is given."""
        named = [*self.key, *self.values]
        return HaveRow(self.model, link=self.link, create_only=dict.fromkeys(named, _given_by_function))

    @property
    def _linked(self) -> HaveRow:
        return HaveRow(self.model, link=self.link)

    def sentence(self, model: type[Model]) -> str:
        """`have exactly the mentions with note = pk that mentions_of(text) gives by user_name`."""
        rows = f"{models_in_words(self.model)} with {in_words(self.link, self.model, over=model)}"
        given = f"{called_in_words(self.rows, self.reads)} gives by {' and '.join(self.key)}"
        values = f", with {' and '.join(self.values)}" if self.values else ""
        return f"have exactly the {rows} that {given}{values}{null_in_words(self._linked, model)}"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:
        """CONSTRAINT where a unique one covers link and key, LOCK where a lock on the record keeps rows out, else NONE."""
        return self._linked.guarantee_by(model, using, key=self.key)

    def inserted_models(self) -> tuple[type[Model], ...]:
        """The rows' table."""
        return self._linked.inserted_models()

    def constraint_advice(self, every: QuerySet[Any], using: str) -> ConstraintAdvice:  # noqa: ARG002
        """A constraint on the columns of link and key; NULL in the key counts like any value.

        Where it does, rows that are linked with nothing have to be left out: any number of them may be alike.
        """
        keys = fields_named(self.model, self.key)
        columns = [F(column.name) for column in (*link_terms(self.model, self.link), *keys)]
        distinct = not any(column.null for column in keys)
        condition = Q() if distinct else is_linked(self._linked)
        return advise_constraint(
            self.model, columns, condition=condition, nulls_distinct=distinct, using=using
        )

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """All columns of the row: an inserted row brings them all."""
        return self._linked.writes(model)

    def decides(self, model: type[Model]) -> frozenset[Column]:
        """Those by which a row is linked, and those of its key."""
        concrete = concrete_model(self.model)
        key = frozenset((concrete, each.attname) for each in fields_named(self.model, self.key))
        return self._linked.decides(model) | key

    def reads_of_others(self, every: QuerySet[Any]) -> frozenset[Column]:
        """The columns of the record, and of what it is joined with: they stand in other rows than the one that is written."""
        missing, *_ = self.finders(Source(every=every, using=every.db, now=timezone.now()))
        return columns_read(every).union(*map(columns_read, missing.selects()))

    def values_of_others(self) -> frozenset[Column]:
        """Those that the function gives."""
        linked = link_terms(self.model, self.link)
        given = fields_named(self.model, [*self.key, *self.values])
        return frozenset((concrete_model(self.model), each.attname) for each in given if each not in linked)

    def constants(self) -> Mapping[Column, Any]:
        """Those of `link`."""
        return self._linked.constants()

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """MISSING, STALE where there are values, and EXTRA."""
        return row_set_finders(self, self._linked, source)


def _given_by_function() -> None:
    """Stands for a value that the function gives."""


def _as_have_rows_fault(fault: Fault) -> Fault:
    """What a `HaveRow` with the same link says, under this effect's name."""
    message = fault.message.replace("HaveRow", "HaveRows", 1)
    return Fault(fault.id, message, fault.hint.replace("values= or create_only=", "key= or values="))
