"""The link between a record and its rows: its columns, the one that carries a range of keys, whether it is unique."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.db.models import Exists, F, Field, Model, OrderBy, OuterRef, Q, QuerySet, Value, Window as Over
from django.db.models.functions import RowNumber

from reconcile.core.declaration import as_expression, field_named, fields_named
from reconcile.core.finder import Rows, Source
from reconcile.core.scopes import Keys, Scope, carries_range
from reconcile.core.wording.terms import expression_in_words
from reconcile.db.columns import is_exact_text, is_text
from reconcile.db.comparisons import AmongRows, AsStored, Bytewise, Same
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import AND, Query
from reconcile.db.expressions import nodes_in, path_of, prepare
from reconcile.db.indexes import is_indexed
from reconcile.db.text_keys import EachItself
from reconcile.db.uniques import uniques_of
from reconcile.kinds.have_row.new_rows import PerRow
from reconcile.kinds.uniqueness import is_covered_at_once
from reconcile.kinds.values.within import without_tolerance

if TYPE_CHECKING:
    from reconcile.kinds.have_row.declaration import HaveRow

__all__ = [
    "LINK",
    "RANK",
    "VALUE",
    "Linked",
    "constant_columns",
    "given_columns",
    "is_constant",
    "is_linked",
    "is_unique",
    "link_terms",
    "linked_rows",
    "null_in_words",
    "range_column",
    "select_alias",
    "terms_with_null",
]


def link_terms(model: type[Model], named: Mapping[str, Any]) -> dict[Field[Any, Any], Any]:
    """The columns of `model` that `named` names, each with its value."""
    found = ((field_named(model, name), value) for name, value in named.items())
    return {column: value for column, value in found if column is not None}


def given_columns(must: HaveRow) -> dict[Field[Any, Any], Any]:
    """What the rule gives for columns of a new row: expressions, or PerRow for what is called once a row."""
    given: dict[Field[Any, Any], Any] = {}
    for option in (must.link, must.values, must.create_only):
        for column, value in link_terms(must.model, option).items():
            called = callable(value) and not hasattr(value, "resolve_expression")
            given[column] = PerRow(value) if called else as_expression(without_tolerance(value), column)
    return given


def is_constant(expression: Any) -> bool:
    """Whether the expression of a link is the same for all records: a constant, or a key that is looked up by none of their columns."""
    return isinstance(expression, Value) or bool(getattr(expression, "is_constant", False))


def range_column(must: HaveRow, model: type[Model]) -> Field[Any, Any] | None:
    """The link column that holds the record's own key, so that a range of keys is a range of it."""
    link = link_terms(must.model, must.link).items()
    return next((column for column, value in link if carries_range(model, column, value)), None)


def is_unique(must: HaveRow, using: str, *, key: Sequence[str] = ()) -> bool:
    """Whether the database itself allows one row at most for each link, or for each link and key.

    NULL in the link links with nothing, so it may escape the constraint; in the key it counts like any value. A
    deferred constraint doesn't count: a live handler would get its error at COMMIT, which is too late.
    """
    if must.bounds.n != 1:
        return False
    link = [F(column.name) for column in link_terms(must.model, must.link)]
    keys = fields_named(must.model, key)
    rows = linked_rows(must).filter(is_linked(must))
    not_null = [*link, *(F(column.name) for column in keys if not column.null)]
    all_columns = [*link, *(F(column.name) for column in keys)]
    return is_covered_at_once(rows, not_null, nulls_distinct=True, using=using) or is_covered_at_once(
        rows, all_columns, nulls_distinct=False, using=using
    )


def terms_with_null(must: HaveRow, model: type[Model]) -> dict[Field[Any, Any], Any]:
    """The columns of the link whose expressions may be NULL for a record of `model`, which then owes no row."""
    return {
        column: value
        for column, value in link_terms(must.model, must.link).items()
        if not _is_never_null(model, as_expression(value, column))
    }


def null_in_words(must: HaveRow, model: type[Model]) -> str:
    """`, if coupon is not NULL`: which records owe no row; empty if all do."""
    values = (each for each in terms_with_null(must, model).values() if not is_constant(each))
    terms = " and ".join(expression_in_words(value, model) for value in values)
    return f", if {terms} {'are' if ' and ' in terms else 'is'} not NULL" if terms else ""


def _is_never_null(model: type[Model], expression: Any) -> bool:
    if isinstance(expression, Value):
        return True
    if type(expression) is not F:
        return False
    path = path_of(expression)
    field = field_named(model, path)
    return path == "pk" or (field is not None and not field.null)


def is_linked(must: HaveRow) -> Q:
    """The condition that no column of the row's link is NULL. A row with NULL there is neither owed nor extra."""
    return Q(
        **{f"{column.name}__isnull": False for column in link_terms(must.model, must.link) if column.null}
    )


def linked_rows(must: HaveRow) -> QuerySet[Any]:
    """The rows that count, as a queryset of their own table: those of `where` that have the link's constants."""
    constants = {column.attname: value for column, value in _link_constants(must).items()}
    return must.model._base_manager.filter(must.where, **constants)


def constant_columns(must: HaveRow) -> dict[Field[Any, Any], Any]:
    """The columns that have one value in all rows that count, by the link or by `where`."""
    pairs = (each for each in must.where.children if isinstance(each, tuple))
    plain = pairs if must.where.connector == AND and not must.where.negated else ()
    named = ((field_named(must.model, name), value) for name, value in plain)
    asked = {
        column: value
        for column, value in named
        if column is not None and not hasattr(value, "resolve_expression")
    }
    return asked | _link_constants(must)


def _link_constants(must: HaveRow) -> dict[Field[Any, Any], Any]:
    return {
        column: constant.value
        for column, value in link_terms(must.model, must.link).items()
        if isinstance(constant := as_expression(value, column), Value)
    }


LINK = "_link_{}"
"""Alias, by attname, of the expression that a link column equals."""

VALUE = "_value_{}"
"""Alias, by attname, of the expression that a value column equals."""


RANK = "_rank"
"""Alias of a row's place among the rows of its link."""


@dataclass(frozen=True)
class Linked:
    """Both sides of the link, for one database at one moment."""

    must: HaveRow
    source: Source

    @property
    def link(self) -> dict[Field[Any, Any], Any]:
        return link_terms(self.must.model, self.must.link)

    @property
    def carrier(self) -> Field[Any, Any] | None:
        return range_column(self.must, self.source.model)

    def rows(self, scope: Scope) -> Rows:
        """The rows that count, with a link to anything at all; in scope, where the link carries it."""
        rows = self.must.model._base_manager.using(self.source.using)
        rows = rows.filter(prepare(self.must.where, self.source.now))
        if self.carrier is not None:
            rows = rows.filter(scope.on(self.carrier.attname))
        for column, value in self.link.items():
            constant = as_expression(value, column)
            if is_constant(constant):
                # A row with another constant is none that this rule speaks of.
                rows = rows.filter(Same(F(column.attname), AsStored(constant, field=column), field=column))
            elif column.null:
                rows = rows.filter(**{f"{column.attname}__isnull": False})
        return rows

    def rows_of_record(self, scope: Scope) -> Rows:
        """The rows linked with the record of the outer query, which `with_link_terms` has prepared."""
        rows = self.rows(scope)
        for column in self.link:
            rows = rows.filter(Same(F(column.attname), OuterRef(LINK.format(column.attname)), field=column))
        return self._match_exact_text(rows)

    def _match_exact_text(self, rows: Rows) -> Rows:
        """`rows`, a subquery that the database evaluates for each outer row anew; see `EachItself`."""
        folded = dialect_of(self.source.using).caches_folded_texts and any(
            is_text(column) for column in self.link
        )
        return rows.filter(EachItself(OuterRef("pk"))) if folded else rows

    def rows_of_records(self, scope: Scope) -> Rows:
        """The rows linked with any of the records in scope, which are few."""
        if self.carrier is not None and len(self.link) == 1:
            return self.rows(scope)
        return self.rows_near(scope).filter(self.has_owner(self.source.records(scope)))

    def rows_near(self, scope: Scope) -> Rows:
        """The rows that may be linked with any of the records in scope; all, if these are a range that the link doesn't carry."""
        rows = self.rows(scope)
        if self.carrier is not None or not isinstance(scope, Keys):
            return rows
        # Without a range to go by, the first link column leads to the rows through its index.
        column = next(iter(self.varying), next(iter(self.link)))
        links = select_alias(self.with_link_terms(self.source.records(scope)), LINK.format(column.attname))
        return rows.filter(**{f"{column.attname}__in": links})

    def rows_near_any(self, keys: Keys) -> Rows:
        """The rows that may be linked with any of the records of these keys, whether `every` names these or not."""
        every = self.source.model._base_manager.all()
        return Linked(self.must, replace(self.source, every=every, settled=Q())).rows_near(keys)

    @property
    def varying(self) -> dict[Field[Any, Any], Any]:
        """The columns of the link that aren't constants."""
        return {
            column: value
            for column, value in self.link.items()
            if not is_constant(as_expression(value, column))
        }

    def has_rows(self, scope: Scope, least: int) -> Exists | AmongRows:
        """True of a record in scope, which `with_link_terms` has prepared, that is linked with so many rows or more."""
        if self.leads_to_rows:
            # Not their number: a group may be large.
            return Exists(self.rows_of_record(scope).order_by()[least - 1 : least])
        links = {column.attname: self.exactly(column) for column in self.varying}
        named = {f"_of_{name}": link for name, link in links.items()}
        rows = self.rows_near(scope).order_by().annotate(**named)
        if least > 1:
            rows = self.ranked(rows).filter(**{RANK: least})
        return AmongRows([self._link_of_record(column) for column in self.varying], rows.values(*named))

    def ranked(self, rows: Rows) -> Rows:
        """`rows`, which have all rows of a link or none, each with its place in the order of those of its link, from 1 on."""
        link = [self.exactly(column) for column in self.varying]
        # All rows are of the one link, if it is constant.
        place = Over(RowNumber(), partition_by=link or [Value(0)], order_by=[OrderBy(F("pk"))])
        ranked: Rows = rows.annotate(**{RANK: place})
        return ranked

    def has_owner(self, records: Rows) -> Exists | AmongRows:
        """True of a row that counts and is linked with any of `records`."""
        if self.leads_to_records:
            return Exists(self.owners(records))
        named = {f"_of_{column.attname}": self._link_of_record(column) for column in self.varying}
        # NULL in a set makes whatever isn't in it NULL.
        links = self.owing(self.with_link_terms(records)).order_by().values(**named)
        return AmongRows([self.exactly(column) for column in self.varying], links)

    def exactly(self, column: Field[Any, Any]) -> Any:
        """The row's column as the link compares it."""
        return _exactly(F(column.attname), column)

    def _link_of_record(self, column: Field[Any, Any]) -> Any:
        return _exactly(F(LINK.format(column.attname)), column)

    @cached_property
    def leads_to_rows(self) -> bool:
        """Whether to look for the rows of each record. Else a set of all links is made once, since no index leads to those few rows."""
        if self._hashes or is_unique(self.must, self.source.using) or not self._may_stand_in_a_row:
            return True
        return len(self.varying) == 1 and all(map(is_indexed, self.varying))

    @cached_property
    def leads_to_records(self) -> bool:
        """The same for the record of each row: there is one at most where the link has a unique column of it."""
        if self._hashes:
            return True
        model, using = self.source.model, self.source.using
        named = [field_named(model, path_of(value)) for value in self.varying.values() if type(value) is F]
        found = [each for each in named if each is not None]
        if len(self.varying) == 1 and any(map(is_indexed, found)):
            return True
        uniques = (each for each in uniques_of(model, using) if each.fields and each.condition is None)
        return any(not each.expressions and {*each.fields} <= {*found} for each in uniques)

    @property
    def _may_stand_in_a_row(self) -> bool:
        """Whether the database compares a row of the link's expressions with a set."""
        nodes = (each for value in self.varying.values() for each in nodes_in(value))
        return dialect_of(self.source.using).takes_subqueries_in_rows or not any(
            isinstance(each, Query) for each in nodes
        )

    @property
    def _hashes(self) -> bool:
        """Whether the range of a window, or the database by itself, leads to what belongs together."""
        looks_up = dialect_of(self.source.using).anti_join_looks_up
        return not looks_up or self.carrier is not None or not self.varying

    def with_link_terms(self, records: Rows) -> Rows:
        """`records`, with the expressions of link and values under names that a subquery can refer to."""
        named = {LINK.format(column.attname): (column, value) for column, value in self.link.items()}
        values = link_terms(self.must.model, self.must.values)
        named |= {VALUE.format(column.attname): (column, value) for column, value in values.items()}
        linked: Rows = records.alias(
            **{
                name: AsStored(
                    prepare(as_expression(without_tolerance(value), column), self.source.now), field=column
                )
                for name, (column, value) in named.items()
            }
        )
        return linked

    def owing(self, records: Rows) -> Rows:
        """Those of `records`, which `with_link_terms` has prepared, that owe rows: NULL in the link links with nothing."""
        named = {
            f"{LINK.format(column.attname)}__isnull": False
            for column in terms_with_null(self.must, self.source.model)
        }
        return records.filter(**named)

    def owners(self, records: Rows) -> Rows:
        """Those of `records` that the row of the outer query is linked with."""
        owners = self.with_link_terms(records)
        for column in self.link:
            link = F(LINK.format(column.attname))
            owners = owners.filter(Same(OuterRef(column.attname), link, field=column))
        return self._match_exact_text(owners)


def _exactly(expression: Any, column: Field[Any, Any]) -> Any:
    """The expression as the link compares it: texts that a collation folds stay apart, but under a foreign key."""
    return Bytewise(expression) if is_exact_text(column) else expression


def select_alias(rows: Rows, alias: str) -> Rows:
    """`rows`, of which only the expression that stands under `alias` is selected."""
    selected: Rows = rows.annotate(_selected=F(alias)).values("_selected")
    return selected
