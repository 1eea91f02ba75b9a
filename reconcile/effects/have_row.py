"""`HaveRow`: every record is linked with exactly, at least or at most so many rows of another model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import (
    Count,
    Exists,
    F,
    Field,
    Model,
    OuterRef,
    Q,
    Subquery,
    Sum,
    UniqueConstraint,
    Value,
)
from django.db.models.functions import Coalesce
from django.db.models.lookups import GreaterThanOrEqual, LessThan

from reconcile.declaring import (
    Declaration,
    as_expression,
    column_faults,
    expression_faults,
    field_named,
    resolution_fault,
)
from reconcile.drift import EXTRA, MISSING, STALE, Guarantee
from reconcile.effects._columns import NoValueError, PerRow, shared_out, supplied
from reconcile.errors import Fault
from reconcile.finders import Correction, Finder, Insertion, Rows, Source
from reconcile.sql.dialects import dialect_of
from reconcile.sql.expressions import Column, pinned
from reconcile.sql.lookups import AsStored, Same, stored_field
from reconcile.sql.statements import KEY, WANTED
from reconcile.sql.wording import any_differs, condition_in_words, in_words
from reconcile.windows import EVERYTHING, Keys, Scope

__all__ = ["AtLeast", "AtMost", "Exactly", "HaveRow"]

_LINK = "_link_{}"
_VALUE = "_value_{}"
_NEW = "_new_{}"


@dataclass(frozen=True)
class Exactly:
    """`n` rows, no more and no fewer; a row that no record owes is EXTRA."""

    n: int

    @property
    def least(self) -> int:
        """Fewer are MISSING."""
        return self.n

    @property
    def most(self) -> int | None:
        """More are EXTRA."""
        return self.n

    def __str__(self) -> str:
        return f"exactly {self.n}"


@dataclass(frozen=True)
class AtLeast:
    """`n` rows or more; no row is EXTRA."""

    n: int

    @property
    def least(self) -> int:
        """Fewer are MISSING."""
        return self.n

    @property
    def most(self) -> int | None:
        """No number of rows is too many."""
        return None

    def __str__(self) -> str:
        return f"at least {self.n}"


@dataclass(frozen=True)
class AtMost:
    """`n` rows or fewer; no row is MISSING."""

    n: int

    @property
    def least(self) -> int:
        """No number of rows is too small."""
        return 0

    @property
    def most(self) -> int | None:
        """More are EXTRA."""
        return self.n

    def __str__(self) -> str:
        return f"at most {self.n}"


@dataclass(frozen=True)
class HaveRow(Declaration):
    """Every record must have its row of `model`, found by `link`.

    link: column of the row = expression over the record, foreign key or not. A record whose expression is
        NULL is linked with nothing.
    values: column = expression over the record; compared where the row is there, written where it isn't.
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
    def bounds(self) -> Exactly | AtLeast | AtMost:
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
        wrong = list(self._type_faults())
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
            yield from self._insertion_faults(model)

    def _type_faults(self) -> Iterator[Fault]:
        for option in ("link", "values", "create_only"):
            if not isinstance(getattr(self, option), Mapping):
                hint = "Give a dictionary of column names."
                yield Fault("reconcile.E012", f"HaveRow: {option}= is {getattr(self, option)!r}.", hint)
        if not self.link:
            hint = 'Name at least one column: link={"order": F("pk")}.'
            yield Fault("reconcile.E012", "HaveRow: link= is empty.", hint)
        if not isinstance(self.where, Q):
            yield Fault(
                "reconcile.E012", f"HaveRow: where= is {self.where!r}.", "Give a Q over the row's columns."
            )
        if not isinstance(self.count, int | Exactly | AtLeast | AtMost) or self.bounds.n < 0:
            hint = "Give Exactly(n), AtLeast(n), AtMost(n) or a number."
            yield Fault("reconcile.E012", f"HaveRow: count= is {self.count!r}.", hint)
        if self.model._meta.parents and not self.model._meta.proxy:
            hint = "Its rows are spread over two tables. Use Report() for what is missing, or a rule over the parent."
            yield Fault(
                "reconcile.E015", f"HaveRow: {self.model._meta.label} inherits from another table.", hint
            )

    def _resolution_faults(self, model: type[Model]) -> Iterator[Fault]:
        for option in ("link", "values", "create_only"):
            for name, value in getattr(self, option).items():
                column = field_named(self.model, name)
                if column is None or callable(value):
                    continue
                yield from expression_faults(model, value, column, f"HaveRow({option}={{{name!r}: …}})")
        try:
            self.model._base_manager.filter(self.where)
        except FieldError as error:
            yield resolution_fault(error, "HaveRow(where=…)")

    def _insertion_faults(self, model: type[Model]) -> Iterator[Fault]:
        try:
            supplied(self.model, self._given(model), now=None)
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
        if self._unique():
            return "A"
        carrier = self._carrier(model)
        constrained = bool(
            carrier is not None and carrier.remote_field and getattr(carrier, "db_constraint", False)
        )
        return "C" if dialect_of(using).keeps_rows_out(constrained=constrained) else "D"

    def writes(self, model: type[Model]) -> frozenset[Column]:  # noqa: ARG002
        """All columns of the row: an inserted row brings them all."""
        concrete = self.model._meta.concrete_model or self.model
        return frozenset((concrete, each.attname) for each in concrete._meta.concrete_fields)

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """MISSING, STALE where there are values, and EXTRA where a number of rows is too many."""
        found = []
        if self.bounds.least:
            found.append(self._missing(source))
        if self.values:
            found.append(self._stale(source))
        if self.bounds.most is not None and not (isinstance(self.bounds, AtMost) and self._unique()):
            found.append(self._extra(source))
        return tuple(found)

    # What the link says

    def _columns(self, names: Mapping[str, Any]) -> tuple[Field[Any, Any], ...]:
        return tuple(each for name in names if (each := field_named(self.model, name)) is not None)

    def _carrier(self, model: type[Model]) -> Field[Any, Any] | None:
        """The link column that holds the record's own key, so that a range of keys is a range of it."""
        key = model._meta.pk
        for column, value in zip(self._columns(self.link), self.link.values(), strict=True):
            names_key = isinstance(value, F) and value.name in {"pk", key.name, key.attname}
            if names_key and stored_field(column).get_internal_type() in _key_types(key):
                return column
        return None

    def _unique(self) -> bool:
        """Whether the database itself allows one row at most for each link."""
        link = {each.name for each in self._columns(self.link)}
        meta = self.model._meta
        sets = [{each.name} for each in meta.concrete_fields if each.unique]
        sets += [set(each) for each in meta.unique_together]
        sets += [
            set(each.fields)
            for each in meta.constraints
            if isinstance(each, UniqueConstraint)
            and each.fields
            and (each.condition is None or each.condition == self.where)
        ]
        return self.bounds.n == 1 and any(each <= link for each in sets)

    def _rows(self, source: Source, scope: Scope) -> Rows:
        """The rows that count, in scope, with a link to anything at all."""
        rows = self.model._base_manager.using(source.using).filter(pinned(self.where, source.now))
        carrier = self._carrier(source.model)
        if carrier is not None:
            rows = rows.filter(scope.on(carrier.attname))
        for column in self._columns(self.link):
            if column.null:
                rows = rows.filter(**{f"{column.attname}__isnull": False})
        return rows

    def _linked_rows(self, source: Source, scope: Scope) -> Rows:
        """The rows linked with the record of the outer query, which `_linking` has prepared."""
        rows = self._rows(source, scope)
        for column in self._columns(self.link):
            rows = rows.filter(Same(F(column.attname), OuterRef(_LINK.format(column.attname)), field=column))
        return rows

    def _linking(self, source: Source, records: Rows) -> Rows:
        """`records`, with the expressions of link and values under names that a subquery can refer to."""
        terms = {
            _LINK.format(column.attname): (column, value)
            for column, value in zip(self._columns(self.link), self.link.values(), strict=True)
        } | {
            _VALUE.format(column.attname): (column, value)
            for column, value in zip(self._columns(self.values), self.values.values(), strict=True)
        }
        return records.alias(
            **{
                name: AsStored(pinned(as_expression(value, column), source.now), field=column)
                for name, (column, value) in terms.items()
            }
        )

    def _owners(self, source: Source, records: Rows) -> Rows:
        """The records that the row of the outer query is linked with."""
        owners = self._linking(source, records)
        for column in self._columns(self.link):
            link = F(_LINK.format(column.attname))
            owners = owners.filter(Same(OuterRef(column.attname), link, field=column))
        return owners

    # The three kinds of drift

    def _missing(self, source: Source) -> Finder:
        def find(scope: Scope) -> Rows:
            records = self._linking(source, source.records(scope))
            rows = self._linked_rows(source, scope)
            if self.bounds.least == 1:
                return records.filter(~Exists(rows))
            return records.filter(LessThan(_number(rows), self.bounds.least))

        given = self._given(source.model)
        selected, made = shared_out(supplied(self.model, given, now=source.now))

        def owed(scope: Scope) -> Rows:
            new = {
                _NEW.format(each.attname): AsStored(pinned(value, source.now), field=each)
                for each, value in selected.items()
            }
            return find(scope).annotate(**new).values_list(*new)

        def present(scope: Scope) -> Rows:
            if self._is_carried(source) and len(self.link) == 1:
                return self._rows(source, scope)
            owners = Exists(self._owners(source, source.records(scope)))
            if self._is_carried(source):
                return self._rows(source, scope).filter(owners)
            # Without a range to go by, the first link column leads to the rows through its index.
            column = self._columns(self.link)[0]
            links = _selecting(self._linking(source, source.records(scope)), _LINK.format(column.attname))
            return self._rows(source, EVERYTHING).filter(**{f"{column.attname}__in": links}).filter(owners)

        insertion = Insertion(
            model=self.model,
            selected=tuple(selected),
            made=made,
            owed=owed,
            present=present,
            passes=self.bounds.least,
        )
        return Finder(
            drift=MISSING,
            model=source.model,
            carried=self._is_carried(source),
            find=find,
            insertion=insertion,
        )

    def _given(self, model: type[Model]) -> dict[Field[Any, Any], Any]:  # noqa: ARG002
        given: dict[Field[Any, Any], Any] = {}
        for option in (self.link, self.values, self.create_only):
            for column, value in zip(self._columns(option), option.values(), strict=True):
                plain = not hasattr(value, "resolve_expression") and callable(value)
                given[column] = PerRow(value) if plain else as_expression(value, column)
        return given

    def _stale(self, source: Source) -> Finder:
        columns = self._columns(self.values)

        def find(scope: Scope) -> Rows:
            differing = any_differs(columns, lambda column: OuterRef(_VALUE.format(column.attname)))
            rows = self._linked_rows(source, scope).filter(differing)
            return self._linking(source, source.records(scope)).filter(Exists(rows))

        def wanted(scope: Scope) -> Rows:
            rows = self._rows(source, scope)
            owners = self._owners(source, source.records(scope))
            expected = {
                WANTED.format(column.attname): Subquery(_selecting(owners, _VALUE.format(column.attname))[:1])
                for column in columns
            }
            rows = rows.filter(Exists(owners)).annotate(**{KEY: F("pk")}, **expected)
            rows = rows.filter(any_differs(columns, lambda column: F(WANTED.format(column.attname))))
            return rows.values_list(KEY, *expected)

        correction = Correction(model=self.model, fields=columns, wanted=wanted, own=False)
        return Finder(
            drift=STALE,
            model=source.model,
            carried=self._is_carried(source),
            find=find,
            correction=correction,
        )

    def _extra(self, source: Source) -> Finder:
        most = self.bounds.most or 0
        only_surplus = isinstance(self.bounds, AtMost)

        def rows_in(scope: Scope) -> Rows:
            if isinstance(scope, Keys):
                return self._rows(source, EVERYTHING).filter(scope.on("pk"))
            return self._rows(source, scope)

        def owned(scope: Scope) -> Exists:
            return Exists(
                self._owners(source, source.owing(EVERYTHING if isinstance(scope, Keys) else scope))
            )

        def find(scope: Scope) -> Rows:
            earlier = self._rows(source, EVERYTHING).filter(LessThan(F("pk"), OuterRef("pk")))
            for column in self._columns(self.link):
                earlier = earlier.filter(Same(F(column.attname), OuterRef(column.attname), field=column))
            surplus = Q(GreaterThanOrEqual(_number(earlier), most)) & Q(owned(scope))
            wrong = surplus if only_surplus else surplus | ~Q(owned(scope))
            return rows_in(scope).filter(~Q(owned(scope)) if self._unique() else wrong)

        def counted(scope: Scope) -> int:
            unowed = 0 if only_surplus else rows_in(scope).filter(~owned(scope)).count()
            if self._unique():
                return unowed
            link = [column.attname for column in self._columns(self.link)]
            groups = (
                rows_in(scope).order_by().values(*link).annotate(_rows=Count("pk")).filter(_rows__gt=most)
            )
            surplus = groups.filter(owned(scope)).aggregate(_sum=Sum(F("_rows") - most, default=0))
            return unowed + int(surplus["_sum"])

        return Finder(
            drift=EXTRA, model=self.model, carried=self._is_carried(source), find=find, counted=counted
        )

    def _is_carried(self, source: Source) -> bool:
        return self._carrier(source.model) is not None


def _key_types(key: Field[Any, Any]) -> set[str]:
    """Field types whose values order as the key's do, so that a range of keys is a range of them."""
    kind = stored_field(key).get_internal_type()
    integers = {"AutoField", "BigAutoField", "SmallAutoField", "IntegerField", "BigIntegerField"}
    integers |= {
        "SmallIntegerField",
        "PositiveIntegerField",
        "PositiveBigIntegerField",
        "PositiveSmallIntegerField",
    }
    return integers if kind in integers else {kind}


def _selecting(rows: Rows, alias: str) -> Rows:
    """`rows`, of which only the expression that stands under `alias` is selected."""
    return rows.annotate(_selected=F(alias)).values("_selected")


def _number(rows: Rows) -> Coalesce:
    """How many rows the subquery has; 0 where it has none."""
    counted = rows.order_by().annotate(_number=Count("pk")).values("_number")
    counted.query.group_by = None
    return Coalesce(Subquery(counted), Value(0))
