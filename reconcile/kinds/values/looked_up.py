"""`LookedUp`: a value of rows that belong to the record by something else than a foreign key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import Aggregate, Exists, F, Field, Model, OuterRef, Q, Value

from reconcile.core.declaration import expression_faults, resolution_fault
from reconcile.core.finder import Rows, Source
from reconcile.core.options import Option, as_given, is_mapping, option_faults
from reconcile.core.scopes import SORTED, Scope
from reconcile.core.wording.names import row_in_words
from reconcile.core.wording.terms import condition_in_words, expression_in_words, order_in_words
from reconcile.db.columns import is_text
from reconcile.db.django_compat import LOOKUP_SEP, split_lookup
from reconcile.db.expressions import aggregates_in, joins_to_many, map_expression, names_in, path_of, prepare
from reconcile.errors import Fault
from reconcile.kinds.given_model import take_queryset
from reconcile.kinds.values.base import DerivedValue
from reconcile.kinds.values.related_rows import (
    EQUAL,
    PREFIX,
    Link,
    Matching,
    columns_named,
    condition_faults,
    order_faults,
    row_expression,
    value_faults,
)

__all__ = ["LookedUp"]

_OPTIONS = (
    Option(
        "link",
        lambda link: is_mapping(link) and bool(link),
        'Give at least one lookup on the row: link={"code": F("zip")}.',
    ),
)


@dataclass(frozen=True)
class LookedUp(DerivedValue):
    """A value of the rows of `model` that match the record: `LookedUp(Region, link={"code": F("zip")}, value="name")`.

    link: lookup on the row = expression over the record. A plain path means equality, which is exact;
        `…__prefix_of` says that the row's text is the beginning of the record's; any lookup of Django's may be used.
        A constant says which rows count.
    value: path or expression over the row, or an aggregate over all rows that match.
    by: which of several rows is the first, as `order_by` takes it; needed unless `value` is an aggregate.
    where: condition on the rows that count.

    Where nothing matches: NULL, or what the aggregate is of no rows.
    """

    model: type[Model]
    _: KW_ONLY
    link: Mapping[str, Any] = field(default_factory=dict)
    value: Any = None
    by: Sequence[Any] = ()
    where: Q = field(default_factory=Q)

    def __post_init__(self) -> None:
        take_queryset(self)

    @property
    def _aggregates(self) -> bool:
        return any(aggregates_in(self.value))

    def faults(self, model: type[Model], column: Field[Any, Any], where: str) -> Iterator[Fault]:
        """Options of the wrong type, links that lead nowhere, no order where several rows may match."""
        where = f"{where}: LookedUp"
        if not (isinstance(self.model, type) and issubclass(self.model, Model)):
            hint = "Give the rows' model class."
            yield Fault("reconcile.E012", f"{where}: {as_given(self.model)} is not a model.", hint)
            return
        wrong = [*option_faults(self, _OPTIONS, where)]
        yield from wrong
        if wrong:
            return
        for path, value in self.link.items():
            yield from self._link_faults(model, path, value, f"{where}: link={{{path!r}: …}}")
        yield from condition_faults(self.model, self.where, "where", where)
        yield from value_faults(self.model, self.value, column, where, aggregates=True)
        yield from self._shape_faults(where)

    def _link_faults(self, model: type[Model], path: str, value: Any, where: str) -> Iterator[Fault]:
        try:
            link = _link(self.model, path, value)
            if link.lookup in {EQUAL, PREFIX}:
                found = list(expression_faults(model, value, link.column, where))
                yield from found
                if found:
                    return
            records = model._base_manager.alias(_own=link.expression)
            rows = self.model._base_manager.filter(link.matches(OuterRef("_own")))
            records = records.filter(Exists(rows))
        except FieldError as error:
            yield resolution_fault(error, where)
            return
        if joins_to_many(records.query) or joins_to_many(rows.query):
            yield Fault("reconcile.E013", f"{where}: the path leads to many rows.", "Give a path to one row.")
        if link.lookup == PREFIX and not is_text(link.column):
            yield Fault("reconcile.E012", f"{where}: {link.path!r} is not text.", "Only text has a prefix.")

    def _shape_faults(self, where: str) -> Iterator[Fault]:
        if not self._aggregates:
            yield from order_faults(self.model, self.by, where)
            return
        if self.by:
            hint = "Leave it out: an aggregate takes all rows that match."
            yield Fault("reconcile.E012", f"{where}: by= is {self.by!r}, and value= an aggregate.", hint)
        if _names_columns(self.value):
            hint = "Put an aggregate around each column of the row, such as Max(…)."
            yield Fault("reconcile.E012", f"{where}: value= mixes aggregates with columns.", hint)

    def reads(self, model: type[Model]) -> tuple[type[Model] | None, frozenset[str]]:  # noqa: ARG002
        """The rows looked at, and what value, order, link and condition read of them."""
        return self.model, columns_named(self.value, *self.by, *self.link, self.where)

    def in_words(self, model: type[Model] | None) -> str:  # noqa: ARG002
        """`name of the first Region where prefix is a prefix of the record's zip by length descending`."""
        link = Q(*((path, _of_record(value)) for path, value in self.link.items()))
        which = condition_in_words(link, self.model)
        if self.where:
            which += f", counting those with {condition_in_words(self.where, self.model, subject='row')}"
        what = expression_in_words(row_expression(self.value), self.model, subject="row")
        name = row_in_words(self.model)
        if self._aggregates:
            return f"{what} over each {name} where {which}"
        return f"{what} of the first {name} where {which} by {order_in_words(self.by, self.model)}"

    def in_windows(self, source: Source, column: Field[Any, Any]) -> bool:
        """Not where a derived table would be read whole by each window."""
        return self._match(source, column).in_windows

    def window_size(self, source: Source, column: Field[Any, Any]) -> int | None:
        """Wide where the rows are sorted for all records of the window together."""
        return SORTED if self._match(source, column).uses_join and not self._aggregates else None

    def add_to(
        self, records: Rows, source: Source, scope: Scope, column: Field[Any, Any]
    ) -> tuple[Rows, Any]:
        """The first row's value, or the aggregate."""
        matching = self._match(source, column)
        if self._aggregates:
            return matching.aggregate(records, scope, self.value, column)
        return matching.first_value(records, scope, row_expression(self.value), self.by)

    def _match(self, source: Source, column: Field[Any, Any]) -> Matching:
        rows = self.model._base_manager.using(source.using).filter(prepare(self.where, source.now))
        links = tuple(_link(self.model, path, value) for path, value in self.link.items())
        return Matching(source=source, rows=rows, links=links, name=column.attname)


def _link(model: type[Model], path: str, value: Any) -> Link:
    """The link that a path with its lookup names. Raises FieldError if it leads nowhere."""
    query = model._base_manager.all().query
    lookups, parts = split_lookup(query, path)
    columns = LOOKUP_SEP.join(parts)
    column = F(columns).resolve_expression(query).output_field
    return Link(path=columns, lookup=LOOKUP_SEP.join(lookups) or EQUAL, column=column, value=value)


def _of_record(value: Any) -> Any:
    """The expression with the record's paths as those of a row around the one that is looked at."""
    return map_expression(value, lambda node: OuterRef(path_of(node)) if type(node) is F else node)


def _names_columns(value: Any) -> bool:
    """Whether the expression names a column outside of its aggregates."""
    outside = map_expression(value, lambda node: Value(0) if isinstance(node, Aggregate) else node)
    return any(names_in(outside))
