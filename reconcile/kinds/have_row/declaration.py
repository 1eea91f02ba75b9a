"""`HaveRow`: every record is linked with exactly, at least or at most so many rows of another model.

The declaration and its faults are here; the querysets that it compiles to are in `finders`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import CompositePrimaryKey, F, Field, ForeignKey, Model, Q, QuerySet
from django.utils import timezone

from reconcile.core.declaration import (
    column_faults,
    expression_faults,
    field_named,
    misplaced_faults,
    resolution_fault,
)
from reconcile.core.drift import Guarantee
from reconcile.core.finder import Finder, Source
from reconcile.core.options import Option, as_given, is_mapping, is_one_of, option_faults
from reconcile.core.wording.names import row_in_words
from reconcile.core.wording.terms import condition_in_words, in_words
from reconcile.db.columns import concrete_model
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import parent_links, referred_field
from reconcile.db.expressions import Column, columns_of, columns_read
from reconcile.db.schema import is_checked_reference
from reconcile.db.uniques import is_made_by_django
from reconcile.errors import Fault, Refusal
from reconcile.kinds.base import Effect
from reconcile.kinds.given_model import take_queryset
from reconcile.kinds.have_row.bounds import AtLeast, AtMost, Bounds, Exactly
from reconcile.kinds.have_row.finders import owed_rows, row_finders
from reconcile.kinds.have_row.link import (
    constant_columns,
    given_columns,
    is_unique,
    link_terms,
    null_in_words,
    range_column,
)
from reconcile.kinds.have_row.new_rows import NoValueError, PerRow, new_row_values
from reconcile.kinds.uniqueness import ConstraintAdvice, advise_constraint
from reconcile.kinds.values.base import DerivedValue
from reconcile.kinds.values.within import Within

__all__ = ["AtLeast", "AtMost", "Exactly", "HaveRow"]


def _is_count(count: Any) -> bool:
    n = count.n if isinstance(count, Exactly | AtLeast | AtMost) else count
    return isinstance(n, int) and not isinstance(n, bool) and n >= 0


_NAMES_HINT = "Give a dictionary of column names."
_OPTIONS = (
    Option("link", is_mapping, _NAMES_HINT),
    Option("values", is_mapping, _NAMES_HINT),
    Option("create_only", is_mapping, _NAMES_HINT),
    Option("where", is_one_of(Q), "Give a Q over the row's columns."),
    Option("count", _is_count, "Give Exactly(n), AtLeast(n), AtMost(n) or a number."),
)


@dataclass(frozen=True)
class HaveRow(Effect):
    """Every record must have its row of `model`, found by `link`.

    link: column of the row = expression over the record, foreign key or not. A record whose expression is
        NULL is linked with nothing, and owes no row.
    values: column = expression over the record; compared where the row is there, written where it isn't;
        with a tolerance: Within(…).
    create_only: written once, never compared; a callable is called once a row.
    where: condition on the rows that count; it must hold for a row as it is inserted.
    count: how many rows: Exactly(1) unless given; a plain number n means Exactly(n).
    """

    model: type[Model]
    _: KW_ONLY
    link: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    create_only: Mapping[str, Any] = field(default_factory=dict)
    where: Q = field(default_factory=Q)
    count: Exactly | AtLeast | AtMost | int = 1

    def __post_init__(self) -> None:
        take_queryset(self)

    @property
    def bounds(self) -> Bounds:
        """How many rows a record must have."""
        return Exactly(self.count) if isinstance(self.count, int) else self.count

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """Options of the wrong type, unknown columns and paths."""
        if not (isinstance(self.model, type) and issubclass(self.model, Model)):
            yield Fault(
                "reconcile.E012",
                f"HaveRow: {as_given(self.model)} is not a model.",
                "Give the row's model class.",
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
        yield from self._resolution_faults(model)

    def _type_faults(self) -> Iterator[Fault]:
        yield from option_faults(self, _OPTIONS, "HaveRow")
        for option in ("link", "values"):
            named = getattr(self, option)
            for name, value in named.items() if isinstance(named, Mapping) else ():
                if _is_called(value):
                    message = f"HaveRow({option}=…): {name!r} is given a function, which can't be compared."
                    yield Fault(
                        "reconcile.E012", message, "Name it in create_only=, where it is called once a row."
                    )
        if not self.link:
            hint = 'Name at least one column: link={"order": F("pk")}.'
            yield Fault("reconcile.E012", "HaveRow: link= is empty.", hint)

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
        misplaced = list(misplaced_faults(self.where, "HaveRow(where=…)"))
        yield from misplaced
        if misplaced:
            return
        try:
            self.model._base_manager.filter(self.where)
        except FieldError as error:
            yield resolution_fault(error, "HaveRow(where=…)")

    def insertion_faults(self) -> Iterator[Fault]:
        """Columns of a new row that get no value."""
        if not self.bounds.least:
            return
        try:
            values = new_row_values(self.model, given_columns(self), now=None)
            if _parent_links(self.model) and any(isinstance(each, PerRow) for each in values.values()):
                hint = "Give an expression that the database computes."
                message = f"HaveRow: a column of {self.model._meta.label}, which inherits, is made in Python."
                yield Fault("reconcile.E015", message, hint)
        except NoValueError as error:
            hint = "Name it in values= or create_only=, or give the field a default."
            yield Fault(
                "reconcile.E014", f"HaveRow: a new {self.model._meta.label} has no value for {error}.", hint
            )

    def sentence(self, model: type[Model]) -> str:
        """`have exactly 1 Invoice with order = pk, whose amount = total, made with token = shop.make_token`."""
        named = {"with": self.link, ", whose": self.values, ", made with": self.create_only}
        terms = "".join(
            f"{word} {in_words(terms, self.model, over=model)}" for word, terms in named.items() if terms
        )
        where = condition_in_words(self.where, self.model, subject="row") if self.where else ""
        counting = f", counting those with {where}" if where else ""
        return f"have {self.bounds} {row_in_words(self.model)} {terms}{counting}{null_in_words(self, model)}"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:
        """CONSTRAINT where a unique one covers the link, LOCK where a lock on the record keeps rows out, else NONE."""
        return self.guarantee_by(model, using)

    def guarantee_by(self, model: type[Model], using: str, *, key: Sequence[str] = ()) -> Guarantee:
        """The guarantee if `key`, further columns of the row, distinguishes the rows of one record."""
        if is_unique(self, using, key=key):
            return Guarantee.CONSTRAINT
        column = range_column(self, model)
        made = is_made_by_django(self.model, using)
        constrained = made and column is not None and _refers(column, model, using)
        kept_out = dialect_of(using).blocks_inserts(constrained=constrained)
        return Guarantee.LOCK if kept_out else Guarantee.NONE

    def inserted_models(self) -> tuple[type[Model], ...]:
        """The row's own table, without those of its parents: the link to a parent's row is unique already."""
        return (self.model,) if self.bounds.least else ()

    def constraint_advice(self, every: QuerySet[Any], using: str) -> ConstraintAdvice:  # noqa: ARG002
        """A constraint on the link's columns, for the rows that count, where one row is allowed."""
        if isinstance(self.bounds, AtLeast) or self.bounds.n != 1:
            return ConstraintAdvice(refusal=Refusal(_SEVERAL_ROWS))
        columns = [F(column.name) for column in link_terms(self.model, self.link)]
        return advise_constraint(self.model, columns, condition=self.where, nulls_distinct=True, using=using)

    def writes(self, model: type[Model]) -> frozenset[Column]:  # noqa: ARG002
        """All columns of the row: an inserted row brings them all."""
        return columns_of(self.model)

    def decides(self, model: type[Model]) -> frozenset[Column]:  # noqa: ARG002
        """Those by which a row is linked, and those that it must have; what else the row holds may tell why it is there."""
        concrete = concrete_model(self.model)
        named = {**link_terms(self.model, self.link), **link_terms(self.model, self.values)}
        return frozenset((concrete, each.attname) for each in named)

    def reads_of_others(self, every: QuerySet[Any]) -> frozenset[Column]:
        """The columns of the record, and of what it is joined with: they stand in other rows than the one that is written."""
        source = Source(every=every, using=every.db, now=timezone.now())
        return columns_read(every) | columns_read(owed_rows(self, source))

    def values_of_others(self) -> frozenset[Column]:
        """The columns of `values` and `create_only` that are none of the link."""
        linked = link_terms(self.model, self.link)
        given = {**link_terms(self.model, self.values), **link_terms(self.model, self.create_only)}
        return frozenset((concrete_model(self.model), each.attname) for each in given.keys() - linked.keys())

    def constants(self) -> Mapping[Column, Any]:
        """Those of `link` and of `where`."""
        concrete = concrete_model(self.model)
        return {(concrete, column.attname): value for column, value in constant_columns(self).items()}

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """MISSING; STALE if there are values; EXTRA if the number of rows has an upper limit."""
        return row_finders(self, source)


_SEVERAL_ROWS = (
    "The rule lets a record have several rows, which no unique constraint allows. If there can be one at most, say "
    "count=Exactly(1), or make the link unique."
)


def _parent_links(model: type[Model]) -> list[Field[Any, Any]]:
    """The columns by which a row continues one of another table, where the model inherits."""
    return parent_links(concrete_model(model))


def _refers(column: Field[Any, Any], model: type[Model], using: str) -> bool:
    """Whether the database checks the column against the records' own key, and so against the row that a chunk locks."""
    if not isinstance(column, ForeignKey) or not getattr(column, "db_constraint", False):
        return False
    target = referred_field(column)
    is_own_key = target.primary_key and concrete_model(target.model) is concrete_model(model)
    return bool(is_own_key and is_checked_reference(column, using))


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
    elif isinstance(value, DerivedValue):
        hint = "Keep it in a column of the record with a HaveValues rule, and refer to that column."
        yield Fault("reconcile.E015", f"{where}: {type(value).__name__}(…) is not served here.", hint)
    else:
        yield from expression_faults(model, value, column, where)
