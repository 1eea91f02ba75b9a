"""`HaveRow`: every record is linked with exactly, at least or at most so many rows of another model.

The declaration and its faults stand here; the querysets that it compiles to, in `_row_finders`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import CompositePrimaryKey, F, Field, ForeignKey, Model, Q, QuerySet

from reconcile.declaring import Declaration, column_faults, expression_faults, field_named, resolution_fault
from reconcile.drift import Drift, Guarantee
from reconcile.effects._bounds import AtLeast, AtMost, Bounds, Exactly
from reconcile.effects._columns import NoValueError, PerRow, supplied
from reconcile.effects._derived import Derived
from reconcile.effects._lifting import Lift, lifted
from reconcile.effects._link import carrier, given_columns, is_unique, terms
from reconcile.effects._row_finders import row_finders
from reconcile.effects.within import Within
from reconcile.errors import Fault
from reconcile.finders import Finder, Source
from reconcile.remedies import Remedy
from reconcile.sql.dialects import dialect_of
from reconcile.sql.expressions import Column, columns_of
from reconcile.sql.uniques import is_made_by_django
from reconcile.sql.wording import condition_in_words, in_words

__all__ = ["AtLeast", "AtMost", "Exactly", "HaveRow"]


@dataclass(frozen=True)
class HaveRow(Declaration):
    """Every record must have its row of `model`, found by `link`.

    link: column of the row = expression over the record, foreign key or not. A record whose expression is
        NULL is linked with nothing.
    values: column = expression over the record; compared where the row is there, written where it isn't;
        with a tolerance: Within(…).
    create_only: written once, never compared; a callable is called once a row.
    where: condition on the rows that count; it must hold for a row as it is inserted.
    count: how many rows: Exactly(1) unless given; a plain number n means Exactly(n).
    """

    model: type[Model]
    link: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    create_only: Mapping[str, Any] = field(default_factory=dict)
    where: Q = field(default_factory=Q)
    count: Exactly | AtLeast | AtMost | int = 1

    @property
    def bounds(self) -> Bounds:
        """How many rows a record must have."""
        return Exactly(self.count) if isinstance(self.count, int) else self.count

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """Options of the wrong type, unknown columns and paths, columns of a new row that get no value."""
        yield from self.option_faults()
        if not (isinstance(self.model, type) and issubclass(self.model, Model)):
            yield Fault(
                "reconcile.E012", f"HaveRow: {self.model!r} is not a model.", "Give the row's model class."
            )
            return
        wrong = [*self._type_faults(), *self._model_faults()]
        for option in ("link", "values", "create_only"):
            names = getattr(self, option)
            if isinstance(names, Mapping):
                wrong += column_faults(self.model, f"HaveRow({option}=…)", iter(names))
        yield from wrong
        if wrong:
            return
        resolved = list(self._resolution_faults(model))
        yield from resolved
        if not resolved and self.bounds.least:
            yield from self._insertion_faults()

    def _type_faults(self) -> Iterator[Fault]:
        for option in ("link", "values", "create_only"):
            if not isinstance(getattr(self, option), Mapping):
                hint = "Give a dictionary of column names."
                yield Fault("reconcile.E012", f"HaveRow: {option}= is {getattr(self, option)!r}.", hint)
        for option in ("link", "values"):
            named = getattr(self, option)
            for name, value in named.items() if isinstance(named, Mapping) else ():
                if _is_called(value):
                    said = f"HaveRow({option}=…): {name!r} is given a function, which can't be compared."
                    yield Fault(
                        "reconcile.E012", said, "Name it in create_only=, where it is called once a row."
                    )
        if not self.link:
            hint = 'Name at least one column: link={"order": F("pk")}.'
            yield Fault("reconcile.E012", "HaveRow: link= is empty.", hint)
        if not isinstance(self.where, Q):
            yield Fault(
                "reconcile.E012", f"HaveRow: where= is {self.where!r}.", "Give a Q over the row's columns."
            )
        if (
            isinstance(self.count, bool)
            or not isinstance(self.count, int | Exactly | AtLeast | AtMost)
            or self.bounds.n < 0
        ):
            hint = "Give Exactly(n), AtLeast(n), AtMost(n) or a number."
            yield Fault("reconcile.E012", f"HaveRow: count= is {self.count!r}.", hint)

    def _model_faults(self) -> Iterator[Fault]:
        if isinstance(self.model._meta.pk, CompositePrimaryKey):
            hint = "Keys of several columns are not served yet."
            yield Fault(
                "reconcile.E015", f"HaveRow: {self.model._meta.label} has a composite primary key.", hint
            )
        parents = _parent_links(self.model)
        if parents:
            named = (
                {field_named(self.model, name) for name in self.link}
                if isinstance(self.link, Mapping)
                else ()
            )
            if not {*parents} <= {*named}:
                links = ", ".join(repr(each.name) for each in parents)
                hint = f"A row of it continues one of its parent's. Name that one: link={{{links}: F('pk')}}."
                yield Fault(
                    "reconcile.E015", f"HaveRow: {self.model._meta.label} inherits from another table.", hint
                )

    def _resolution_faults(self, model: type[Model]) -> Iterator[Fault]:
        for option in ("link", "values", "create_only"):
            for name, value in getattr(self, option).items():
                column = field_named(self.model, name)
                if column is None or _is_called(value):
                    continue
                yield from _value_faults(model, option, column, value)
        try:
            self.model._base_manager.filter(self.where)
        except FieldError as error:
            yield resolution_fault(error, "HaveRow(where=…)")

    def _insertion_faults(self) -> Iterator[Fault]:
        try:
            values = supplied(self.model, given_columns(self), now=None)
            if _parent_links(self.model) and any(isinstance(each, PerRow) for each in values.values()):
                hint = "Give an expression that the database computes."
                said = f"HaveRow: a column of {self.model._meta.label}, which inherits, is made in Python."
                yield Fault("reconcile.E015", said, hint)
        except NoValueError as error:
            hint = "Name it in values= or create_only=, or give the field a default."
            yield Fault(
                "reconcile.E014", f"HaveRow: a new {self.model._meta.label} has no value for {error}.", hint
            )

    def sentence(self, model: type[Model]) -> str:  # noqa: ARG002
        """`have exactly 1 Invoice with order = pk and amount = total`."""
        where = f", counting those with {condition_in_words(self.where)}" if self.where else ""
        terms = in_words({**self.link, **self.values})
        return f"have {self.bounds} {self.model._meta.object_name} with {terms}{where}"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:
        """A where a unique constraint covers the link, C where a lock on the record keeps rows out, else D."""
        return self.level(model, using)

    def level(self, model: type[Model], using: str, *, key: Sequence[str] = ()) -> Guarantee:
        """The guarantee where `key`, other columns of the row, tell the rows of one record apart."""
        if is_unique(self, using, key=key):
            return "A"
        column = carrier(self, model)
        made = is_made_by_django(self.model, using)
        constrained = made and column is not None and _refers(column, model)
        return "C" if dialect_of(using).keeps_rows_out(constrained=constrained) else "D"

    def is_tied(self, model: type[Model]) -> bool:
        """Where the link holds the record's own key."""
        return carrier(self, model) is not None

    def inserted(self) -> tuple[type[Model], ...]:
        """The row's own table: where it continues a row of another one, its link is unique already."""
        return (self.model,) if self.bounds.least else ()

    def lift(self, every: QuerySet[Any], using: str) -> Lift:  # noqa: ARG002
        """A constraint on the link's columns, for the rows that count, where one row is allowed."""
        if isinstance(self.bounds, AtLeast) or self.bounds.n != 1:
            return Lift(
                why_not="A record may have several rows, which no unique constraint allows and counts."
            )
        columns = [F(column.name) for column in terms(self.model, self.link)]
        return lifted(self.model, columns, condition=self.where, nulls_distinct=True, using=using)

    def writes(self, model: type[Model]) -> frozenset[Column]:  # noqa: ARG002
        """All columns of the row: an inserted row brings them all."""
        return columns_of(self.model)

    def remedies(self) -> Mapping[Drift, Remedy]:
        """The usual ones."""
        return {}

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """MISSING, STALE where there are values, and EXTRA where a number of rows is too many."""
        return row_finders(self, source)


def _parent_links(model: type[Model]) -> list[Field[Any, Any]]:
    """The columns by which a row continues one of another table, where the model inherits."""
    concrete = model._meta.concrete_model or model
    return [link for link in concrete._meta.parents.values() if link is not None]


def _refers(column: Field[Any, Any], model: type[Model]) -> bool:
    """Whether the database checks the column against the records' own key, and so against the row that a chunk locks."""
    if not isinstance(column, ForeignKey) or not getattr(column, "db_constraint", False):
        return False
    target = column.target_field
    concrete = model._meta.concrete_model or model
    return bool(target.primary_key and (target.model._meta.concrete_model or target.model) is concrete)


def _is_called(value: Any) -> bool:
    return callable(value) and not hasattr(value, "resolve_expression")


def _value_faults(model: type[Model], option: str, column: Field[Any, Any], value: Any) -> Iterator[Fault]:
    where = f"HaveRow({option}={{{column.name!r}: …}})"
    if isinstance(value, Within) and option == "values":
        yield from value.faults(column, where)
        value = value.expression
    if isinstance(value, Within):
        yield Fault("reconcile.E012", f"{where}: it has a tolerance.", "Only values= are compared with one.")
    elif value is None and option == "link":
        hint = f"Count rows by where=Q({column.name}__isnull=True), and give it in create_only=."
        yield Fault("reconcile.E012", f"{where}: None links with no row.", hint)
    elif isinstance(value, Derived):
        hint = "Keep it in a column of the record with a HaveValues rule, and refer to that column."
        yield Fault("reconcile.E015", f"{where}: {type(value).__name__}(…) is not served here.", hint)
    else:
        yield from expression_faults(model, value, column, where)
