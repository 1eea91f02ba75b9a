"""Both sides of the link of a `HaveRow`, as querysets that refer to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, F, Field, OuterRef, Value

from reconcile.declaring import as_expression
from reconcile.effects._link import RowSpec, carrier, terms
from reconcile.effects.within import exact
from reconcile.finders import Rows, Source
from reconcile.sql.dialects import dialect_of
from reconcile.sql.expressions import pinned
from reconcile.sql.lookups import AsStored, Same, is_text
from reconcile.sql.texts import EachItself
from reconcile.windows import Scope

__all__ = ["LINK", "VALUE", "Linked", "selecting"]

LINK = "_link_{}"
"""Alias, by attname, of the expression that a link column equals."""

VALUE = "_value_{}"
"""Alias, by attname, of the expression that a value column equals."""


@dataclass(frozen=True)
class Linked:
    """Both sides of the link, for one database at one moment."""

    must: RowSpec
    source: Source

    @property
    def link(self) -> dict[Field[Any, Any], Any]:
        return terms(self.must.model, self.must.link)

    @property
    def carrier(self) -> Field[Any, Any] | None:
        return carrier(self.must, self.source.model)

    def rows(self, scope: Scope) -> Rows:
        """The rows that count, with a link to anything at all; in scope, where the link carries it."""
        rows = self.must.model._base_manager.using(self.source.using)
        rows = rows.filter(pinned(self.must.where, self.source.now))
        if self.carrier is not None:
            rows = rows.filter(scope.on(self.carrier.attname))
        for column, value in self.link.items():
            constant = as_expression(value, column)
            if isinstance(constant, Value):
                # A row with another constant is none that this rule speaks of.
                rows = rows.filter(Same(F(column.attname), AsStored(constant, field=column), field=column))
            elif column.null:
                rows = rows.filter(**{f"{column.attname}__isnull": False})
        return rows

    def rows_of_record(self, scope: Scope) -> Rows:
        """The rows linked with the record of the outer query, which `linking` has prepared."""
        rows = self.rows(scope)
        for column in self.link:
            rows = rows.filter(Same(F(column.attname), OuterRef(LINK.format(column.attname)), field=column))
        return self._by_itself(rows)

    def _by_itself(self, rows: Rows) -> Rows:
        """`rows`, a subquery that says of each outer row what is true of that one; see `EachItself`."""
        folded = dialect_of(self.source.using).remembers_folded and any(
            is_text(column) for column in self.link
        )
        return rows.filter(EachItself(OuterRef("pk"))) if folded else rows

    def rows_of_records(self, scope: Scope) -> Rows:
        """The rows linked with any of the records in scope, which are few."""
        if self.carrier is not None and len(self.link) == 1:
            return self.rows(scope)
        records = self.source.records(scope)
        rows = self.rows(scope).filter(Exists(self.owners(records)))
        if self.carrier is not None:
            return rows
        # Without a range to go by, the first link column leads to the rows through its index.
        column = next(iter(self.link))
        links = selecting(self.linking(records), LINK.format(column.attname))
        return rows.filter(**{f"{column.attname}__in": links})

    def linking(self, records: Rows) -> Rows:
        """`records`, with the expressions of link and values under names that a subquery can refer to."""
        named = {LINK.format(column.attname): (column, value) for column, value in self.link.items()}
        values = terms(self.must.model, self.must.values)
        named |= {VALUE.format(column.attname): (column, value) for column, value in values.items()}
        linking: Rows = records.alias(
            **{
                name: AsStored(pinned(as_expression(exact(value), column), self.source.now), field=column)
                for name, (column, value) in named.items()
            }
        )
        return linking

    def owners(self, records: Rows) -> Rows:
        """Those of `records` that the row of the outer query is linked with."""
        owners = self.linking(records)
        for column in self.link:
            link = F(LINK.format(column.attname))
            owners = owners.filter(Same(OuterRef(column.attname), link, field=column))
        return self._by_itself(owners)


def selecting(rows: Rows, alias: str) -> Rows:
    """`rows`, of which only the expression that stands under `alias` is selected."""
    selected: Rows = rows.annotate(_selected=F(alias)).values("_selected")
    return selected
