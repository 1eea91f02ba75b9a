"""Records that are computed from the first row of a subquery over the same model, as a tree is whose parent no foreign key names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Exists, Field, Model, OuterRef, QuerySet, Subquery

from reconcile.core.finder import Rows
from reconcile.core.scopes import blocks
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import Query, ordering_of, rows_of_query, shape_of, slice_of_query, where_of
from reconcile.db.expressions import Column, columns_read, columns_read_of_others, nodes_in, outer_names_in

__all__ = ["FirstRow", "first_rows"]

_ABOVE = "reconcile_first"


@dataclass(frozen=True, eq=False)
class FirstRow:
    """A step from a record to the one other that a subquery finds for it. reads: which written columns it reads there, by attname.

    path: the record's columns by which it is found, as a rule names them.
    """

    rows: Rows = field(repr=False)
    path: str
    reads: frozenset[str]

    up = True

    def finds_as(self, other: Any) -> bool:
        """Whether the other step leads to the same record, whatever it reads there."""
        if not isinstance(other, FirstRow):
            return False
        one, two = self.rows.query, other.rows.query
        return where_of(one) == where_of(two) and ordering_of(one) == ordering_of(two)

    def without(self, records: Rows, drifted: Rows) -> Rows:
        """Those of the records of which the other one is not among the drifted."""
        known = records.alias(**{_ABOVE: Subquery(self.rows.values("pk"))})
        free: Rows = known.filter(~Exists(drifted.filter(pk=OuterRef(_ABOVE))))
        return free

    def followed(self, rows: Rows, keys: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Each of the keys with the key of the other record."""
        for block in blocks(keys):
            found = rows.filter(pk__in=block).annotate(**{_ABOVE: Subquery(self.rows.values("pk"))})
            yield from (pair for pair in found.values_list("pk", _ABOVE) if None not in pair)


def first_rows(
    model: type[Model], values: Mapping[Field[Any, Any], Any]
) -> Mapping[Field[Any, Any], Sequence[FirstRow]] | None:
    """For each written column the subqueries that read a written column in one other record.

    None where one reads what is written in another way, so that nobody can tell which records must be first: in several rows, in
    joined ones, or to find the row.
    """
    written = frozenset(each.attname for each in values)
    found: dict[Field[Any, Any], list[FirstRow]] = {}
    for column, value in values.items():
        for node in nodes_in(value, until=(Subquery,)):
            if not isinstance(node, Subquery | Query | QuerySet):
                continue
            rows = rows_of_query(node if isinstance(node, Query) else node.query)
            if not _written_in(columns_read(rows), model, written):
                continue
            first = _first_row(node, rows, model, written)
            if first is None:
                return None
            found.setdefault(column, []).append(first)
    return found


def _written_in(columns: Iterable[Column], model: type[Model], written: Iterable[str]) -> frozenset[str]:
    read = {name for there, name in columns if there is concrete_model(model)}
    return frozenset(read & {*written})


def _first_row(node: Any, rows: Rows, model: type[Model], written: frozenset[str]) -> FirstRow | None:
    shape = shape_of(rows)
    plain = type(node) is Subquery and concrete_model(rows.model) is concrete_model(model)
    if not plain or slice_of_query(rows.query) != (0, 1) or shape.combined or shape.grouped or shape.windowed:
        return None
    elsewhere = columns_read_of_others(rows) | columns_read(rows.values("pk"))
    if _written_in(elsewhere, model, written):
        return None
    path = ", ".join(dict.fromkeys(outer_names_in(rows.query)))
    return FirstRow(rows, path, _written_in(columns_read(rows), model, written))
