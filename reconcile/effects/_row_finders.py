"""The querysets of a `HaveRow`: what is missing, stale and extra, and what the remedies need to mend it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Exists, F, Field, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Coalesce
from django.db.models.lookups import GreaterThanOrEqual, LessThan

from reconcile.declaring import as_expression
from reconcile.drift import EXTRA, MISSING, STALE
from reconcile.effects._bounds import AtMost
from reconcile.effects._columns import shared_out, supplied
from reconcile.effects._link import RowSpec, given_columns, is_unique, terms
from reconcile.effects._linked import LINK, VALUE, Linked, selecting
from reconcile.effects.within import tolerances
from reconcile.finders import Correction, Finder, Insertion, Rows, Source
from reconcile.sql.expressions import pinned
from reconcile.sql.grouping import Bytewise
from reconcile.sql.lookups import AsStored, Same, any_differs, is_text
from reconcile.sql.statements import KEY, WANTED
from reconcile.windows import EVERYTHING, Keys, Scope

__all__ = ["row_finders"]

_NEW, _ALIKE = "_new_{}", "_alike_{}"


def row_finders(must: RowSpec, source: Source) -> tuple[Finder, ...]:
    """MISSING, STALE where there are values, and EXTRA where a number of rows is too many."""
    linked = Linked(must, source)
    unique = is_unique(must, source.using)
    found = []
    if must.bounds.least:
        found.append(_Missing(linked, unique).finder())
    if must.values:
        found.append(_Stale(linked).finder())
    if must.bounds.most is not None and not (isinstance(must.bounds, AtMost) and unique):
        found.append(_Extra(linked, unique).finder())
    return tuple(found)


@dataclass(frozen=True)
class _Missing:
    """Records with fewer rows than they must have."""

    linked: Linked
    unique: bool

    def finder(self) -> Finder:
        linked, must = self.linked, self.linked.must
        values = supplied(must.model, given_columns(must), now=linked.source.now)
        selected, made = shared_out(values)

        def new(records: Rows) -> Rows:
            values = {
                _NEW.format(column.attname): AsStored(pinned(value, linked.source.now), field=column)
                for column, value in selected.items()
            }
            new_rows: Rows = records.annotate(**values).values_list(*values)
            return new_rows

        def owed(scope: Scope) -> Rows:
            records = self.find(scope)
            if linked.carrier is None:
                records = records.filter(~Exists(self.earlier_of_same_link(scope)))
            return new(records)

        def claimed(scope: Scope) -> Rows:
            return new(linked.linking(linked.source.records(scope)))

        insertion = Insertion(
            model=must.model, selected=tuple(selected), made=made, owed=owed, present=linked.rows_of_records,
            passes=must.bounds.least, claimed=claimed if self.unique and linked.carrier is not None else owed,
        )  # fmt: skip
        return Finder(
            drift=MISSING, model=linked.source.model, carried=linked.carrier is not None, find=self.find,
            insertion=insertion,
        )  # fmt: skip

    def earlier_of_same_link(self, scope: Scope) -> Rows:
        """Records in scope that are linked with the same rows as the outer query's: what one owes, both owe."""
        records = self.linked.linking(self.linked.source.records(scope)).filter(
            LessThan(F("pk"), OuterRef("pk"))
        )
        for column in self.linked.link:
            link = LINK.format(column.attname)
            records = records.filter(Same(F(link), OuterRef(link), field=column))
        return records

    def find(self, scope: Scope) -> Rows:
        records = self.linked.linking(self.linked.source.records(scope))
        rows = self.linked.rows_of_record(scope)
        least = self.linked.must.bounds.least
        return records.filter(~Exists(rows) if least == 1 else LessThan(_number(rows), least))


@dataclass(frozen=True)
class _Stale:
    """Records with a row whose values are not what they must be."""

    linked: Linked

    @property
    def columns(self) -> tuple[Field[Any, Any], ...]:
        return tuple(terms(self.linked.must.model, self.linked.must.values))

    def differing(self, expected: Callable[[Field[Any, Any]], Any]) -> Q:
        values = terms(self.linked.must.model, self.linked.must.values)
        return any_differs(self.columns, expected, tolerances(values))

    def finder(self) -> Finder:
        linked = self.linked
        correction = Correction(model=linked.must.model, fields=self.columns, wanted=self.wanted, own=False)
        return Finder(
            drift=STALE, model=linked.source.model, carried=linked.carrier is not None, find=self.find,
            correction=correction,
        )  # fmt: skip

    def find(self, scope: Scope) -> Rows:
        differing = self.differing(lambda column: OuterRef(VALUE.format(column.attname)))
        rows = self.linked.rows_of_record(scope).filter(differing)
        return self.linked.linking(self.linked.source.records(scope)).filter(Exists(rows))

    def wanted(self, scope: Scope) -> Rows:
        owners = self.linked.owners(self.linked.source.records(scope))
        expected = {
            WANTED.format(column.attname): Subquery(selecting(owners, VALUE.format(column.attname))[:1])
            for column in self.columns
        }
        rows = (
            self.linked.rows_of_records(scope).filter(Exists(owners)).annotate(**{KEY: F("pk")}, **expected)
        )
        rows = rows.filter(self.differing(lambda column: F(WANTED.format(column.attname))))
        listed: Rows = rows.values_list(KEY, *expected)
        return listed


@dataclass(frozen=True)
class _Extra:
    """Rows that no record owes, and rows beyond the number that a record may have."""

    linked: Linked
    unique: bool

    @property
    def most(self) -> int:
        return self.linked.must.bounds.most or 0

    @property
    def only_surplus(self) -> bool:
        """At most n: whether a record owes a row at all isn't said, so no row is there that nothing owes."""
        return isinstance(self.linked.must.bounds, AtMost)

    def finder(self) -> Finder:
        linked = self.linked
        return Finder(
            drift=EXTRA, model=linked.must.model, carried=linked.carrier is not None, find=self.find,
            counted=self.count, alike=None if self.unique or not self.most else self.alike,
        )  # fmt: skip

    def find(self, scope: Scope) -> Rows:
        unowed = ~Q(self.owned(scope))
        if self.unique:
            return self.rows(scope).filter(unowed)
        surplus = Q(GreaterThanOrEqual(_number(self.earlier()), self.most)) & Q(self.owned(scope))
        return self.rows(scope).filter(surplus if self.only_surplus else surplus | unowed)

    def earlier(self) -> Rows:
        """The rows of the same link as the outer query's row that come before it."""
        earlier = self.linked.rows(EVERYTHING).filter(LessThan(F("pk"), OuterRef("pk")))
        for column in self.linked.link:
            earlier = earlier.filter(Same(F(column.attname), OuterRef(column.attname), field=column))
        return earlier

    def alike(self, keys: Keys) -> Rows:
        """The rows of `keys`, and those of perhaps the same link that come first, each with its link."""
        link = self.linked.link.items()
        telling = (column for column, value in link if not isinstance(as_expression(value, column), Value))
        by = (self.linked.carrier or next(telling, None) or next(iter(self.linked.link))).attname
        rows = self.linked.rows(EVERYTHING).filter(**{f"{by}__in": self.rows(keys).order_by().values(by)})
        stays = Q(LessThan(_number(self.earlier()), self.most))
        listed: Rows = rows.filter(keys.on("pk") | stays).values_list(
            "pk", *(each.attname for each, _ in link)
        )
        return listed

    def count(self, scope: Scope) -> int:
        unowed = 0 if self.only_surplus else self.rows(scope).filter(~self.owned(scope)).count()
        if self.unique:
            return unowed
        link = [column.attname for column in self.linked.link]
        # Beside the texts themselves, which a collation might fold, what tells them apart.
        exact = {
            _ALIKE.format(column.attname): Bytewise(F(column.attname))
            for column in self.linked.link
            if is_text(column)
        }
        rows = self.rows(scope).order_by().annotate(**exact).values(*link, *exact)
        groups = rows.annotate(_rows=Count("pk")).filter(_rows__gt=self.most)
        surplus = groups.filter(self.owned(scope)).aggregate(_sum=Sum(F("_rows") - self.most, default=0))
        return unowed + int(surplus["_sum"])

    def rows(self, scope: Scope) -> Rows:
        """A range of keys is one of the records; a set of keys, one of the rows themselves."""
        if isinstance(scope, Keys):
            return self.linked.rows(EVERYTHING).filter(scope.on("pk"))
        return self.linked.rows(scope)

    def owned(self, scope: Scope) -> Exists:
        source = self.linked.source
        return Exists(self.linked.owners(source.owing(EVERYTHING if isinstance(scope, Keys) else scope)))


def _number(rows: Rows) -> Coalesce:
    """How many rows the subquery has; 0 where it has none."""
    counted = rows.order_by().annotate(_number=Count("pk")).values("_number")
    counted.query.group_by = None
    return Coalesce(Subquery(counted), Value(0))
