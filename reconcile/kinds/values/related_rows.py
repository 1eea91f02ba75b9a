"""The rows related to a record by a condition: the value of the first one, or an aggregate over all.

If all links are equalities and the database is fast at it, a derived table with the value for each link is joined.
Otherwise a correlated subquery runs for each record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import Aggregate, F, Field, Model, OrderBy, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce
from django.db.models.lookups import StartsWith

from reconcile.core.declaration import as_expression, expression_faults, misplaced_faults, resolution_fault
from reconcile.core.finder import Rows, Source
from reconcile.core.scopes import Keys, Scope, carries_range
from reconcile.db.begins import Begins
from reconcile.db.columns import is_text
from reconcile.db.comparisons import AsStored, PrefixOf, Same
from reconcile.db.derived_tables import left_join
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import LOOKUP_SEP, copy_expression, ungroup, where_of
from reconcile.db.expressions import (
    aggregates_in,
    joins_to_many,
    map_expression,
    names_in,
    path_of,
    prepare,
)
from reconcile.db.text_keys import EachItself
from reconcile.errors import Fault
from reconcile.kinds.values.aggregates import zero_if_none

__all__ = [
    "EQUAL",
    "PREFIX",
    "Link",
    "Matching",
    "columns_named",
    "condition_faults",
    "order_faults",
    "order_rows",
    "row_expression",
    "value_faults",
]

_ORDER = "_order_{}"
_HINT = 'Give columns as order_by() takes them: by=["-created_at", "-pk"].'


def order_rows(rows: Rows, by: Sequence[Any]) -> tuple[Rows, list[OrderBy]]:
    """`rows` with an alias for each term of the order, and the order by these aliases."""
    terms = _total_order(rows.model, by)
    names = [_ORDER.format(number) for number in range(len(terms))]
    named: Rows = rows.alias(**{name: term.expression for name, term in zip(names, terms, strict=True)})
    return named, [_order_by_alias(term, name) for term, name in zip(terms, names, strict=True)]


def order_faults(model: type[Model], by: Any, where: str) -> Iterator[Fault]:
    """A fault for each reason why rows of `model` have no first one by `by`. Costs no statement."""
    if isinstance(by, str) or not isinstance(by, Sequence) or not by:
        yield Fault("reconcile.E012", f"{where}: by= is {by!r}.", _HINT)
        return
    for each in by:
        if (not isinstance(each, str) and not hasattr(each, "resolve_expression")) or each in {"", "-", "?"}:
            yield Fault("reconcile.E012", f"{where}: by= has {each!r}.", _HINT)
            return
        misplaced = list(misplaced_faults(each, f"{where}: by="))
        yield from misplaced
        if misplaced:
            return
    try:
        rows, _ = order_rows(model._base_manager.all(), by)
    except FieldError as error:
        yield resolution_fault(error, f"{where}: by=")
        return
    if joins_to_many(rows.query):
        yield Fault("reconcile.E013", f"{where}: by= has a path to many rows.", "Give paths to one row.")


def _total_order(model: type[Model], by: Sequence[Any]) -> list[OrderBy]:
    """`by` as expressions. The key comes last unless it is named, in the direction of the last one that is."""
    terms = [_term(each) for each in by]
    key = model._meta.pk
    if not any(
        isinstance(each.expression, F) and path_of(each.expression) in {"pk", key.name} for each in terms
    ):
        terms.append(OrderBy(F("pk"), descending=terms[-1].descending))
    return terms


def _term(each: Any) -> OrderBy:
    if isinstance(each, str):
        return OrderBy(F(each.removeprefix("-")), descending=each.startswith("-"))
    return each if isinstance(each, OrderBy) else OrderBy(each)


def _order_by_alias(term: OrderBy, name: str) -> OrderBy:
    """The same direction and place of NULLs, for what stands under `name`."""
    like: OrderBy = copy_expression(term)
    like.set_source_expressions([F(name)])
    return like


def row_expression(value: Any) -> Any:
    """A path over the row as an expression; expressions as they are."""
    return F(value) if isinstance(value, str) else value


def columns_named(*terms: Any) -> frozenset[str]:
    """The first part of each path that the values, orders and conditions over a row name."""
    paths = (path for term in terms for path in names_in(_as_path_expression(term)))
    return frozenset(path.split(LOOKUP_SEP)[0] for path in paths)


def _as_path_expression(term: Any) -> Any:
    return F(term.removeprefix("-")) if isinstance(term, str) else term


def value_faults(
    rows: type[Model], value: Any, column: Field[Any, Any], where: str, *, aggregates: bool = False
) -> Iterator[Fault]:
    """A fault if `value=` isn't a path or an expression over `rows` that gives `column` one value."""
    expression = row_expression(value)
    if not hasattr(expression, "resolve_expression"):
        hint = "Name a column of the row, or give an expression over it."
        yield Fault("reconcile.E012", f"{where}: value= is {value!r}.", hint)
        return
    yield from expression_faults(rows, expression, column, f"{where}: value=", aggregates=aggregates)


def condition_faults(rows: type[Model], condition: Any, option: str, where: str) -> Iterator[Fault]:
    """A fault if `condition` isn't a `Q` over columns of `rows`."""
    if not isinstance(condition, Q):
        hint = "Give a Q over the row's columns."
        yield Fault("reconcile.E012", f"{where}: {option}= is {condition!r}.", hint)
        return
    misplaced = list(misplaced_faults(condition, f"{where}: {option}="))
    yield from misplaced
    if misplaced:
        return
    try:
        filtered = rows._base_manager.filter(condition)
    except FieldError as error:
        yield resolution_fault(error, f"{where}: {option}=")
        return
    if joins_to_many(filtered.query):
        hint = "Use Q(Exists(…)), or a path to one row."
        yield Fault("reconcile.E013", f"{where}: {option}= has a path to many rows.", hint)


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
        """True if it says nothing of the record, only which rows count."""
        return isinstance(as_expression(self.value, self.column), Value)

    def matches(self, value: Any) -> Q:
        """The condition on a row that its column matches `value`."""
        if self.lookup == EQUAL:
            return Q(Same(F(self.path), value, field=self.column))
        if self.lookup == PREFIX:
            return Q(PrefixOf(F(self.path), value, field=self.column))
        if self.lookup == StartsWith.lookup_name and is_text(self.column):
            return Q(Begins(F(self.path), value))
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
        return next(
            (link for link in equal if carries_range(self.source.model, link.column, link.value)), None
        )

    @property
    def uses_join(self) -> bool:
        """Whether the value is joined, rather than looked up for each record."""
        varying = self._varying_links
        equal = bool(varying) and all(link.lookup == EQUAL for link in varying)
        return equal and dialect_of(self.source.using).joins_derived_tables

    @property
    def in_windows(self) -> bool:
        """A derived table without a range is read whole by each window; a lookup costs the same in any window."""
        return not self.uses_join or self.carrier is not None

    def first_value(self, records: Rows, scope: Scope, value: Any, by: Sequence[Any]) -> tuple[Rows, Any]:
        """`records`, and the value of each one's first row by `by`; NULL where it has none."""
        rows, order = order_rows(self._rows_of_constants(), by)
        value = prepare(value, self.source.now)
        if not self.uses_join:
            rows = self._rows_of_record(rows).order_by(*order).annotate(_value=value)
            return self._with_link_terms(records), Subquery(rows.values("_value")[:1])
        rows = self._rows_in_scope(rows, scope)
        paths = [link.path for link in self._varying_links]
        links = {_LINK.format(number): F(path) for number, path in enumerate(paths)}
        table = rows.order_by(*(F(path).asc() for path in paths), *order).distinct(*paths)
        joined, columns = left_join(records, table.values(_value=value, **links), self._join_terms)
        return joined, columns["_value"]

    def aggregate(
        self, records: Rows, scope: Scope, expression: Any, column: Field[Any, Any]
    ) -> tuple[Rows, Any]:
        """`records`, and `expression` with each aggregate in it taken over the record's rows."""
        expression = prepare(expression, self.source.now)
        if self.uses_join:
            return self._joined_aggregates(records, scope, expression, column)
        rows = self._rows_of_record(self._rows_of_constants())

        def form(node: Any) -> Any:
            if not isinstance(node, Aggregate):
                return node
            one = rows.annotate(_value=node).values("_value")
            # Without GROUP BY an aggregate of no rows is one row: 0 for a count, as in the joined form.
            ungroup(one)
            return zero_if_none(Subquery(one), node, column)

        return self._with_link_terms(records), map_expression(expression, form)

    def _joined_aggregates(
        self, records: Rows, scope: Scope, expression: Any, column: Field[Any, Any]
    ) -> tuple[Rows, Any]:
        aggregates = {_VALUE.format(number): each for number, each in enumerate(aggregates_in(expression))}
        links = {_LINK.format(number): F(link.path) for number, link in enumerate(self._varying_links)}
        table = (
            self._rows_in_scope(self._rows_of_constants(), scope)
            .order_by()
            .values(**links)
            .annotate(**aggregates)
        )
        joined, columns = left_join(records, table, self._join_terms)
        names = {id(each): name for name, each in aggregates.items()}

        def form(node: Any) -> Any:
            if not isinstance(node, Aggregate):
                return node
            return zero_if_none(_empty_if_null(columns[names[id(node)]], node), node, column)

        return joined, map_expression(expression, form)

    @property
    def _varying_links(self) -> list[Link]:
        return [link for link in self.links if not link.is_constant]

    @property
    def _join_terms(self) -> dict[str, tuple[Field[Any, Any], Any]]:
        return {
            _LINK.format(number): (link.column, prepare(link.expression, self.source.now))
            for number, link in enumerate(self._varying_links)
        }

    def _rows_of_constants(self) -> Rows:
        """The rows that match the constants."""
        rows = self.rows
        for link in self.links:
            if link.is_constant:
                rows = rows.filter(link.matches(link.expression))
        return rows

    def _rows_in_scope(self, rows: Rows, scope: Scope) -> Rows:
        """Those of `rows` that records in scope may match: by the range, or by the few records that there are."""
        if self.carrier is not None:
            rows = rows.filter(scope.on(self.carrier.path))
        few = isinstance(scope, Keys) and self.carrier is None
        if few or where_of(self.source.every.query):
            link = self._varying_links[0]
            own = self.source.records(scope).annotate(_own=prepare(link.expression, self.source.now))
            rows = rows.filter(**{f"{link.path}__in": own.values("_own")})
        return rows

    def _with_link_terms(self, records: Rows) -> Rows:
        """`records` with what the links compare under names that a subquery can refer to."""
        named = {self._alias(link): prepare(link.expression, self.source.now) for link in self._varying_links}
        linked: Rows = records.alias(**named)
        return linked

    def _rows_of_record(self, rows: Rows) -> Rows:
        """Those of `rows` that match the record of the outer query, which `_with_link_terms` has prepared."""
        for link in self._varying_links:
            rows = rows.filter(link.matches(OuterRef(self._alias(link))))
        folded = dialect_of(self.source.using).caches_folded_texts and any(
            map(_compares_text, self._varying_links)
        )
        # See `EachItself`.
        rows = rows.filter(EachItself(OuterRef("pk"))) if folded else rows
        return rows.order_by()

    def _alias(self, link: Link) -> str:
        return f"_{self.name}_{self.links.index(link)}"


def _compares_text(link: Link) -> bool:
    """Whether its column is a text, or a lookup may make one of what it is compared with."""
    return is_text(link.column) or link.lookup != EQUAL


def _empty_if_null(column: Any, aggregate: Aggregate) -> Any:
    """What a left join gives for no row is NULL; a count of no rows is 0, and `default=` is what it says."""
    empty = getattr(aggregate, "default", None)
    empty = aggregate.empty_result_set_value if empty is None else empty
    if empty is None:
        return column
    given = empty if hasattr(empty, "resolve_expression") else Value(empty)
    return Coalesce(column, given, output_field=column.output_field)
