"""Values along an order of the records themselves: a running sum, and the value of the record before.

One window function computes them for all records of a group at once, where a path from each record to the one before would take
a round for each record of the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import reduce
from operator import add
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import (
    DecimalField,
    ExpressionWrapper,
    F,
    Field,
    FloatField,
    Model,
    Q,
    RowRange,
    Sum,
    Value,
    Window,
)
from django.db.models.functions import Cast, Coalesce, Lag

from reconcile.core.declaration import as_expression, expression_faults, resolution_fault
from reconcile.core.finder import Rows, Source
from reconcile.core.options import is_list
from reconcile.core.scopes import Keys, Scope
from reconcile.core.wording.terms import expression_in_words, order_in_words
from reconcile.db.columns import INTEGERS, stored_field
from reconcile.db.comparisons import AsStored, Bytewise, Differs
from reconcile.db.derived_tables import left_join
from reconcile.db.django_compat import LOOKUP_SEP, annotations_of
from reconcile.db.expressions import joins_to_many, prepare
from reconcile.errors import Fault
from reconcile.kinds.values.base import DerivedValue
from reconcile.kinds.values.related_rows import (
    columns_named,
    order_faults,
    order_rows,
    row_expression,
    value_faults,
)

__all__ = ["Previous", "RunningSum"]

_KEY, _VALUE, _BEFORE, _GROUP = "_link_0", "_value", "_before", "_group_{}"


@dataclass(frozen=True)
class _AlongOrder(DerivedValue):
    """A value that a window function computes over the records of a group, in their order.

    value: path or expression over the record. over: path, or paths, whose values make a group; unless given, all records are one.
    by: the order, as `order_by` takes it. Unless it names the key, the key comes last.
    """

    value: Any
    _: KW_ONLY
    over: str | Sequence[str] = ()
    by: Sequence[Any] = ()

    @property
    def _groups(self) -> tuple[str, ...]:
        return (self.over,) if isinstance(self.over, str) else tuple(self.over)

    def faults(self, model: type[Model], column: Field[Any, Any], where: str) -> Iterator[Fault]:
        """No order, a path that leads nowhere or to many rows."""
        where = f"{where}: {type(self).__name__}"
        if not (
            isinstance(self.over, str)
            or (is_list(self.over) and all(isinstance(each, str) for each in self.over))
        ):
            yield Fault("reconcile.E012", f"{where}: over= is {self.over!r}.", 'Give a path: over="account".')
            return
        yield from order_faults(model, self.by, where)
        yield from value_faults(model, self.value, column, where)
        try:
            rows = model._base_manager.alias(
                **{_GROUP.format(number): F(path) for number, path in enumerate(self._groups)}
            )
        except FieldError as error:
            yield resolution_fault(error, f"{where}: over=")
            return
        if joins_to_many(rows.query):
            yield Fault(
                "reconcile.E013", f"{where}: over= has a path to many rows.", "Give a path to one row."
            )

    def reads(self, model: type[Model]) -> tuple[type[Model] | None, frozenset[str]]:
        """The records themselves, and what value, groups and order read of them."""
        return model, columns_named(self.value, *self._groups, *self.by)

    def in_windows(self, source: Source, column: Field[Any, Any]) -> bool:  # noqa: ARG002
        """Never: a value depends on all records of its group that come before."""
        return False

    def window_size(self, source: Source, column: Field[Any, Any]) -> int | None:  # noqa: ARG002
        """None."""
        return None

    def add_to(
        self, records: Rows, source: Source, scope: Scope, column: Field[Any, Any]
    ) -> tuple[Rows, Any]:
        """The window function's value of the record."""
        return self._join(records, source, scope, self._computed(source, column))

    def _join(
        self, records: Rows, source: Source, scope: Scope, expression: Any, name: str = _VALUE
    ) -> tuple[Rows, Any]:
        key = source.model._meta.pk
        rows, order = order_rows(self._rows_of_groups(source, scope), self.by)
        window = Window(
            expression,
            # To the character, as texts are compared everywhere, also where the collation takes two for one.
            partition_by=[Bytewise(F(path)) for path in self._groups] or None,
            order_by=order,
            frame=self._frame,
        )
        table = rows.order_by().annotate(**{_KEY: F("pk"), name: window}).values(_KEY, name)
        joined, columns = left_join(records, table, {_KEY: (key, F("pk"))})
        return joined, columns[name]

    @property
    def _frame(self) -> RowRange | None:
        return None

    def _computed(self, source: Source, column: Field[Any, Any]) -> Any:
        raise NotImplementedError

    def _rows_of_groups(self, source: Source, scope: Scope) -> Rows:
        """All records; for a few records those of their groups alone."""
        rows: Rows = source.model._base_manager.using(source.using)
        if isinstance(scope, Keys):
            few = source.model._base_manager.using(source.using).filter(scope.on("pk"))
            for path in self._groups:
                # A group of NULL is a group, too, which IN doesn't find.
                found = few.values(path)
                rows = rows.filter(Q(**{f"{path}__in": found}) | Q(**{f"{path}__isnull": True}))
        return rows

    def _where_in_words(self) -> str:
        over = (
            f" over {', '.join(path.replace(LOOKUP_SEP, '.') for path in self._groups)}"
            if self._groups
            else ""
        )
        return f"{over} by {order_in_words(self.by)}"


@dataclass(frozen=True)
class RunningSum(_AlongOrder):
    """The sum up to the record: `balance=RunningSum("amount", over="account", by=["at", "pk"])`.

    One statement over the whole table checks all records. A check names the records where a discrepancy starts: those whose value
    is not that of the record before and their own. NULL counts as 0 where the column can't be NULL.
    """

    def faults(self, model: type[Model], column: Field[Any, Any], where: str) -> Iterator[Fault]:
        """What is wrong with the order, and a value that is no number. Costs no statement."""
        found = list(super().faults(model, column, where))
        yield from found
        if found:
            return
        rows = model._base_manager.annotate(_value=row_expression(self.value))
        kind = stored_field(annotations_of(rows.query)["_value"].output_field)
        if not (isinstance(kind, DecimalField | FloatField) or kind.get_internal_type() in INTEGERS):
            message = f"{where}: RunningSum: value= is of type {kind.get_internal_type()}."
            yield Fault("reconcile.E012", message, "Only numbers have a sum.")

    def in_words(self, model: type[Model] | None) -> str:
        """`the running sum of amount over account by at, pk`."""
        return f"the running sum of {expression_in_words(row_expression(self.value), model)}{self._where_in_words()}"

    def starts(self, records: Rows, source: Source, scope: Scope, column: Field[Any, Any]) -> tuple[Rows, Q]:
        """`records`, and the condition that the record's value is not that of the one before and its own."""
        joined, before = self._join(records, source, scope, Lag(F(column.attname)), _BEFORE)
        is_integer = stored_field(column).get_internal_type() in INTEGERS
        # A sum of two integers may be larger than either's type, and end the statement where no record is wrong.
        wide = DecimalField(max_digits=40, decimal_places=10) if is_integer else column
        parts = (Cast(each, wide) if is_integer else each for each in (before, self._value(source)))
        total = reduce(add, (Coalesce(each, Value(0), output_field=wide) for each in parts))
        owed = AsStored(ExpressionWrapper(total, output_field=wide), field=column)
        return joined, Q(Differs(F(column.attname), owed, field=column))

    @property
    def _frame(self) -> RowRange | None:
        return RowRange(start=None, end=0)

    def _value(self, source: Source) -> Any:
        return prepare(row_expression(self.value), source.now)

    def _computed(self, source: Source, column: Field[Any, Any]) -> Any:  # noqa: ARG002
        return Sum(self._value(source))

    def add_to(
        self, records: Rows, source: Source, scope: Scope, column: Field[Any, Any]
    ) -> tuple[Rows, Any]:
        """The sum; of NULL alone it is 0 where the column can't be NULL."""
        joined, total = super().add_to(records, source, scope, column)
        return joined, total if column.null else Coalesce(total, Value(0), output_field=total.output_field)


@dataclass(frozen=True)
class Previous(_AlongOrder):
    """A value of the record before: `opening=Previous("closing", over="account", by=["at", "pk"])`. NULL for the first.

    default: a constant or an expression over the record, for the first and for one after a NULL.
    It can't read the column that the rule writes: each record would wait for the one before. `RunningSum` is for that.
    """

    default: Any = None

    def faults(self, model: type[Model], column: Field[Any, Any], where: str) -> Iterator[Fault]:
        """What is wrong with the order, a default that doesn't fit, and none where the column can't be NULL."""
        yield from super().faults(model, column, where)
        if self.default is not None:
            yield from expression_faults(model, self.default, column, f"{where}: Previous: default=")
        elif not column.null:
            message = f"{where}: Previous is NULL for the first record, and {column.name!r} can't be NULL."
            yield Fault("reconcile.E012", message, "Give default= for it, such as default=0.")

    def in_words(self, model: type[Model] | None) -> str:
        """`closing of the one before over account by at, pk, or 0`."""
        otherwise = "" if self.default is None else f", or {expression_in_words(self.default, model)}"
        value = expression_in_words(row_expression(self.value), model)
        return f"{value} of the one before{self._where_in_words()}{otherwise}"

    def add_to(
        self, records: Rows, source: Source, scope: Scope, column: Field[Any, Any]
    ) -> tuple[Rows, Any]:
        """The value before, or the default."""
        joined, before = super().add_to(records, source, scope, column)
        if self.default is None:
            return joined, before
        default = prepare(as_expression(self.default, column), source.now)
        return joined, Coalesce(before, default, output_field=before.output_field)

    def _computed(self, source: Source, column: Field[Any, Any]) -> Any:  # noqa: ARG002
        return Lag(prepare(row_expression(self.value), source.now))
