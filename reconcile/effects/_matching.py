"""The rows that belong to a record by a condition, and the two forms that a value from them takes.

Where the database is best at it and all links are equalities, a derived table holds the value for each link, and
is joined; elsewhere, a correlated subquery is run for each record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Aggregate, F, Field, OuterRef, Q, Subquery, Value
from django.db.models.constants import LOOKUP_SEP
from django.db.models.functions import Coalesce

from reconcile.declaring import as_expression
from reconcile.effects._aggregates import zero_if_none
from reconcile.effects._link import carries
from reconcile.effects._ordering import ordered
from reconcile.finders import Rows, Source
from reconcile.sql.comparisons import PrefixOf
from reconcile.sql.derived import left_joined
from reconcile.sql.dialects import dialect_of
from reconcile.sql.expressions import aggregates_in, mapped, pinned
from reconcile.sql.lookups import AsStored, Same, is_text
from reconcile.sql.texts import EachItself
from reconcile.windows import Keys, Scope

__all__ = ["EQUAL", "PREFIX", "Link", "Matching"]

EQUAL, PREFIX = "exact", "prefix_of"
_LINK = "_link_{}"
_VALUE = "_value_{}"


@dataclass(frozen=True, kw_only=True)
class Link:
    """A path to a column of the row, of type `column`, and the expression over the record that it must match."""

    path: str
    lookup: str
    column: Field[Any, Any]
    value: Any

    @property
    def expression(self) -> Any:
        """The value as an expression, of the column's type where they are compared for equality."""
        expression = as_expression(self.value, self.column)
        return AsStored(expression, field=self.column) if self.lookup == EQUAL else expression

    @property
    def is_constant(self) -> bool:
        """True where it says nothing of the record, only which rows count."""
        return isinstance(as_expression(self.value, self.column), Value)

    def matches(self, value: Any) -> Q:
        """The condition on a row that its column matches `value`."""
        if self.lookup == EQUAL:
            return Q(Same(F(self.path), value, field=self.column))
        if self.lookup == PREFIX:
            return Q(PrefixOf(F(self.path), value, field=self.column))
        return Q(**{f"{self.path}{LOOKUP_SEP}{self.lookup}": value})


@dataclass(frozen=True, kw_only=True)
class Matching:
    """The rows of `rows` that match a record of `source` by all of `links`. `name` is unique in the rule."""

    source: Source
    rows: Rows
    links: Sequence[Link]
    name: str

    @property
    def carrier(self) -> Link | None:
        """The link that holds the record's own key, so that a range of keys is a range of it."""
        equal = (link for link in self.links if link.lookup == EQUAL)
        return next((link for link in equal if carries(self.source.model, link.column, link.value)), None)

    @property
    def joined(self) -> bool:
        """Whether the value is joined, rather than looked up for each record."""
        varying = self._varying
        equal = bool(varying) and all(link.lookup == EQUAL for link in varying)
        return equal and dialect_of(self.source.using).joins_derived_tables

    @property
    def carried(self) -> bool:
        """A derived table without a range is read whole by each window; a lookup costs the same in any window."""
        return not self.joined or self.carrier is not None

    def first(self, records: Rows, scope: Scope, value: Any, by: Sequence[Any]) -> tuple[Rows, Any]:
        """`records`, and the value of each one's first row by `by`; NULL where it has none."""
        rows, order = ordered(self._counting(), by)
        value = pinned(value, self.source.now)
        if not self.joined:
            rows = self._of_record(rows).order_by(*order).annotate(_value=value)
            return self._linking(records), Subquery(rows.values("_value")[:1])
        rows = self._within(rows, scope)
        paths = [link.path for link in self._varying]
        links = {_LINK.format(number): F(path) for number, path in enumerate(paths)}
        table = rows.order_by(*(F(path).asc() for path in paths), *order).distinct(*paths)
        joined, columns = left_joined(records, table.values(_value=value, **links), self._on)
        return joined, columns["_value"]

    def aggregated(
        self, records: Rows, scope: Scope, expression: Any, column: Field[Any, Any]
    ) -> tuple[Rows, Any]:
        """`records`, and `expression` with each aggregate in it taken over the record's rows."""
        expression = pinned(expression, self.source.now)
        if self.joined:
            return self._joined_aggregates(records, scope, expression, column)
        rows = self._of_record(self._counting())

        def form(node: Any) -> Any:
            if not isinstance(node, Aggregate):
                return node
            one = rows.annotate(_value=node).values("_value")
            # Without GROUP BY an aggregate of no rows is one row: 0 for a count, as in the joined form.
            one.query.group_by = None
            return zero_if_none(Subquery(one), node, column)

        return self._linking(records), mapped(expression, form)

    def _joined_aggregates(
        self, records: Rows, scope: Scope, expression: Any, column: Field[Any, Any]
    ) -> tuple[Rows, Any]:
        aggregates = {_VALUE.format(number): each for number, each in enumerate(aggregates_in(expression))}
        links = {_LINK.format(number): F(link.path) for number, link in enumerate(self._varying)}
        table = self._within(self._counting(), scope).order_by().values(**links).annotate(**aggregates)
        joined, columns = left_joined(records, table, self._on)
        names = {id(each): name for name, each in aggregates.items()}

        def form(node: Any) -> Any:
            if not isinstance(node, Aggregate):
                return node
            return zero_if_none(_or_empty(columns[names[id(node)]], node), node, column)

        return joined, mapped(expression, form)

    @property
    def _varying(self) -> list[Link]:
        return [link for link in self.links if not link.is_constant]

    @property
    def _on(self) -> dict[str, tuple[Field[Any, Any], Any]]:
        return {
            _LINK.format(number): (link.column, pinned(link.expression, self.source.now))
            for number, link in enumerate(self._varying)
        }

    def _counting(self) -> Rows:
        """The rows that match the constants."""
        rows = self.rows
        for link in self.links:
            if link.is_constant:
                rows = rows.filter(link.matches(link.expression))
        return rows

    def _within(self, rows: Rows, scope: Scope) -> Rows:
        """Those of `rows` that records in scope may match: by the range, or by the few records that there are."""
        if self.carrier is not None:
            rows = rows.filter(scope.on(self.carrier.path))
        few = isinstance(scope, Keys) and self.carrier is None
        if few or self.source.every.query.where:
            link = self._varying[0]
            own = self.source.records(scope).annotate(_own=pinned(link.expression, self.source.now))
            rows = rows.filter(**{f"{link.path}__in": own.values("_own")})
        return rows

    def _linking(self, records: Rows) -> Rows:
        """`records` with what the links compare under names that a subquery can refer to."""
        named = {self._alias(link): pinned(link.expression, self.source.now) for link in self._varying}
        linking: Rows = records.alias(**named)
        return linking

    def _of_record(self, rows: Rows) -> Rows:
        """Those of `rows` that match the record of the outer query, which `_linking` has prepared."""
        for link in self._varying:
            rows = rows.filter(link.matches(OuterRef(self._alias(link))))
        folded = dialect_of(self.source.using).remembers_folded and any(map(_compares_text, self._varying))
        # See `EachItself`.
        rows = rows.filter(EachItself(OuterRef("pk"))) if folded else rows
        return rows.order_by()

    def _alias(self, link: Link) -> str:
        return f"_{self.name}_{self.links.index(link)}"


def _compares_text(link: Link) -> bool:
    """Whether its column is a text, or a lookup may make one of what it is compared with."""
    return is_text(link.column) or link.lookup != EQUAL


def _or_empty(column: Any, aggregate: Aggregate) -> Any:
    """What a left join gives for no row is NULL; a count of no rows is 0, and `default=` is what it says."""
    empty = getattr(aggregate, "default", None)
    empty = aggregate.empty_result_set_value if empty is None else empty
    if empty is None:
        return column
    given = empty if hasattr(empty, "resolve_expression") else Value(empty)
    return Coalesce(column, given, output_field=column.output_field)
