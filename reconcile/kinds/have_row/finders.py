"""The finders of a `HaveRow`: the missing, stale and extra rows as querysets, and what the remedies need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db.models import (
    Count,
    Exists,
    F,
    Field,
    OuterRef,
    Q,
    Subquery,
    Sum,
)
from django.db.models.lookups import LessThan

from reconcile.core.drift import EXTRA, MISSING, STALE, Bound
from reconcile.core.finder import Finder, QueryFinder, Rows, Source
from reconcile.core.fixes import Correction, Insertion
from reconcile.core.row_locks import Earlier, Lock
from reconcile.core.scopes import EVERYTHING, Keys, Scope
from reconcile.db.columns import is_text
from reconcile.db.comparisons import AmongRows, AsStored, Bytewise, Overflow, Same, any_differs, overflows
from reconcile.db.derived_tables import left_join
from reconcile.db.expressions import prepare
from reconcile.db.statements import KEY, WANTED
from reconcile.kinds.have_row.bounds import AtMost
from reconcile.kinds.have_row.link import (
    LINK,
    RANK,
    VALUE,
    Linked,
    given_columns,
    is_unique,
    link_terms,
    select_alias,
)
from reconcile.kinds.have_row.new_rows import NoValueError, PerRow, new_row_values, split_by_maker
from reconcile.kinds.values.storable import writable_rows
from reconcile.kinds.values.within import tolerances, without_tolerance

if TYPE_CHECKING:
    from reconcile.kinds.have_row.declaration import HaveRow

__all__ = ["owed_rows", "row_finders"]

_NARROW = "Rows that something else makes rightly are none of the rule's: mend what makes them, or narrow the rule by where=."
_OTHERS = "Where others may have one, too, say count=AtLeast(…): then no row is extra."
_NEW, _ALIKE = "_new_{}", "_alike_{}"


def row_finders(must: HaveRow, source: Source) -> tuple[Finder, ...]:
    """MISSING; STALE if there are values; EXTRA if the number of rows has an upper limit."""
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


def owed_rows(must: HaveRow, source: Source) -> Rows:
    """The columns of the rows that all records owe, whether the rows are there or not, as far as the database computes them."""
    linked = Linked(must, source)
    selected, _ = split_by_maker(given_columns(must))
    return _new_rows(linked, selected, linked.with_link_terms(source.records(EVERYTHING)))


def _new_rows(linked: Linked, selected: Mapping[Field[Any, Any], Any], records: Rows) -> Rows:
    """`records`, of which the columns of a new row are selected."""
    values = {
        _NEW.format(column.attname): AsStored(prepare(value, linked.source.now), field=column)
        for column, value in selected.items()
    }
    overflow = overflows(
        linked.source.model, selected, lambda column: F(_NEW.format(column.attname)), linked.source.using
    )
    new_rows: Rows = writable_rows(records.annotate(**values), overflow).values_list(*values)
    return new_rows


def _overflow(linked: Linked, name: str) -> Overflow | None:
    """What tells that a compared value, which stands under `name` by its column's, doesn't fit."""
    terms = link_terms(linked.must.model, linked.must.values)
    given = {column: without_tolerance(value) for column, value in terms.items()}
    return overflows(
        linked.source.model, given, lambda column: F(name.format(column.attname)), linked.source.using
    )


@dataclass(frozen=True)
class _Missing:
    """Records with fewer rows than they must have."""

    linked: Linked
    unique: bool

    def finder(self) -> Finder:
        """With what an INSERT needs, unless a column of a new row has no value: then the rule doesn't insert."""
        linked, must = self.linked, self.linked.must
        try:
            values = new_row_values(must.model, given_columns(must), now=linked.source.now)
        except NoValueError:
            return QueryFinder(
                drift=MISSING, model=linked.source.model, using=linked.source.using, in_windows=linked.carrier is not None, query=self.find,
            )  # fmt: skip
        selected, made = split_by_maker(values)

        new = partial(_new_rows, linked, selected)

        def owed(scope: Scope) -> Rows:
            records = self.find(scope)
            if linked.carrier is None:
                records = records.filter(~Exists(self.earlier_of_same_link(scope)))
            return new(records)

        def claimed(scope: Scope) -> Rows:
            return new(linked.owing(linked.with_link_terms(linked.source.records(scope))))

        insertion = Insertion(
            model=must.model, selected=tuple(selected), makers=made, owed=owed, present=linked.rows_of_records,
            rows_per_record=must.bounds.least, owed_unchecked=claimed if self.unique and linked.carrier is not None else owed,
        )  # fmt: skip
        return QueryFinder(
            drift=MISSING, model=linked.source.model, using=linked.source.using, in_windows=linked.carrier is not None,
            query=self.find, overflow=self._overflow(), fix=insertion, bound=Bound.EXACT if must.bounds.least == 1 else Bound.AT_LEAST,
            # Records with the same link owe one row together.
            count_to_write=None if linked.carrier is not None else lambda scope: owed(scope).count(),
        )  # fmt: skip

    def _overflow(self) -> Overflow | None:
        """What tells that a column of a new row doesn't fit: those that are given for the creation alone, and the link, too."""
        source, given = self.linked.source, given_columns(self.linked.must)
        computed = {column: value for column, value in given.items() if not isinstance(value, PerRow)}

        def expected(column: Field[Any, Any]) -> Any:
            return AsStored(prepare(computed[column], source.now), field=column)

        return overflows(source.model, computed, expected, source.using)

    def earlier_of_same_link(self, scope: Scope) -> Rows:
        """Records in scope with a smaller key and the same link as the outer query's record: they owe the same row."""
        records = self.linked.with_link_terms(self.linked.source.records(scope)).filter(
            LessThan(F("pk"), OuterRef("pk"))
        )
        for column in self.linked.link:
            link = LINK.format(column.attname)
            records = records.filter(Same(F(link), OuterRef(link), field=column))
        return records

    def find(self, scope: Scope) -> Rows:
        records = self.linked.owing(self.linked.with_link_terms(self.linked.source.records(scope)))
        return records.filter(~self.linked.has_rows(scope, self.linked.must.bounds.least))


@dataclass(frozen=True)
class _Stale:
    """Records with a row whose values are not what they must be."""

    linked: Linked

    @property
    def columns(self) -> tuple[Field[Any, Any], ...]:
        return tuple(link_terms(self.linked.must.model, self.linked.must.values))

    def differs(self, expected: Callable[[Field[Any, Any]], Any]) -> Q:
        values = link_terms(self.linked.must.model, self.linked.must.values)
        return any_differs(self.columns, expected, tolerances(values))

    def finder(self) -> Finder:
        linked = self.linked
        correction = Correction(model=linked.must.model, fields=self.columns, wanted=self.wanted, own=False)
        unique = linked.carrier is None or is_unique(linked.must, linked.source.using)
        return QueryFinder(
            drift=STALE, model=linked.source.model, using=linked.source.using, in_windows=linked.carrier is not None,
            query=self.find, overflow=_overflow(linked, VALUE), fix=correction, bound=Bound.EXACT if unique else Bound.AT_LEAST,
            count_to_write=None if linked.carrier is not None else lambda scope: self.wanted(scope).count(),
        )  # fmt: skip

    def find(self, scope: Scope) -> Rows:
        records = self.linked.with_link_terms(self.linked.source.records(scope))
        if not self.linked.leads_to_rows:
            return records.filter(pk__in=self.keys_of_differing_rows(scope))
        differing = self.differs(lambda column: OuterRef(VALUE.format(column.attname)))
        return records.filter(Exists(self.linked.rows_of_record(scope).filter(differing)))

    def keys_of_differing_rows(self, scope: Scope) -> Rows:
        """For each row with other values than its records give it, the keys of these; the records are read once."""
        key, rows = "_key", self.linked.rows_near(scope).order_by()
        links = {LINK.format(column.attname): column for column in self.linked.varying}
        values = {VALUE.format(column.attname): column for column in self.columns}
        selected = {f"_of{name}": F(name) for name in (*links, *values)}
        records = self.linked.owing(self.linked.with_link_terms(self.linked.source.records(scope)))
        # DISTINCT, or the database would merge it with the outer statement, and look for the records of each row after all.
        table = records.values(**{key: F("pk")}, **selected).distinct()
        on = {f"_of{name}": (column, F(column.attname)) for name, column in links.items()}
        joined, columns = left_join(rows, table, on)
        differing = self.differs(lambda column: columns[f"_of{VALUE.format(column.attname)}"])
        there = joined.annotate(_record=columns[key]).filter(_record__isnull=False)
        keys: Rows = there.filter(differing).values("_record")
        return keys

    def wanted(self, scope: Scope) -> Rows:
        # The rows are those of the keys already, by the column that holds them. A second list of keys in a subquery for each row
        # made PostgreSQL read the whole source for each: with it, a scan looks cheaper than the primary key.
        of_rows = EVERYTHING if isinstance(scope, Keys) and self.linked.carrier is not None else scope
        owners = self.linked.owners(self.linked.source.records(of_rows))
        expected = {
            WANTED.format(column.attname): Subquery(select_alias(owners, VALUE.format(column.attname))[:1])
            for column in self.columns
        }
        rows = (
            self.linked.rows_of_records(scope).filter(Exists(owners)).annotate(**{KEY: F("pk")}, **expected)
        )
        rows = rows.filter(self.differs(lambda column: F(WANTED.format(column.attname))))
        listed: Rows = writable_rows(rows, _overflow(self.linked, WANTED)).values_list(KEY, *expected)
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
        """With AtMost, a row without a record is allowed: the rule doesn't say whether a record owes a row."""
        return isinstance(self.linked.must.bounds, AtMost)

    def finder(self) -> Finder:
        linked = self.linked
        earlier = None if self.unique or not self.most else Earlier(self.alike)
        return QueryFinder(
            drift=EXTRA, model=linked.must.model, using=linked.source.using, in_windows=linked.carrier is not None,
            query=self.find, count_rows=self.count, near=linked.rows_near_any, near_is_all=linked.carrier is not None, lock=Lock(neighbours=earlier),
            advice=_NARROW if self.only_surplus else f"{_NARROW} {_OTHERS}",
        )  # fmt: skip

    def find(self, scope: Scope) -> Rows:
        without_owner = Q(~self.has_owner(scope))
        if self.unique:
            return self.rows(scope).filter(without_owner)
        rows = self.of_links_of(scope) if isinstance(scope, Keys) else self.rows(scope)
        surplus = Q(pk__in=self.linked.ranked(rows).filter(**{f"{RANK}__gt": self.most}).values("pk"))
        surplus &= Q(self.has_owner(scope))
        return self.rows(scope).filter(surplus if self.only_surplus else surplus | without_owner)

    def of_links_of(self, keys: Keys) -> Rows:
        """The rows of `keys`, and all of perhaps the same link."""
        by = (self.linked.carrier or next(iter([*self.linked.varying, *self.linked.link]))).attname
        return self.linked.rows(EVERYTHING).filter(**{f"{by}__in": self.rows(keys).order_by().values(by)})

    def alike(self, keys: Keys) -> Rows:
        """The rows of `keys`, and those of perhaps the same link that come first, each with its link."""
        rows = self.of_links_of(keys)
        stays = Q(pk__in=self.linked.ranked(rows).filter(**{f"{RANK}__lte": self.most}).values("pk"))
        listed: Rows = rows.filter(keys.on("pk") | stays).values_list(
            "pk", *(each.attname for each in self.linked.link)
        )
        return listed

    def count(self, scope: Scope) -> int:
        without_owner = 0 if self.only_surplus else self.rows(scope).filter(~self.has_owner(scope)).count()
        if self.unique:
            return without_owner
        link = [column.attname for column in self.linked.link]
        # Beside the texts themselves, which a collation might fold, what tells them apart.
        exact = {
            _ALIKE.format(column.attname): Bytewise(F(column.attname))
            for column in self.linked.link
            if is_text(column)
        }
        rows = self.rows(scope).order_by().annotate(**exact).values(*link, *exact)
        groups = rows.annotate(_rows=Count("pk")).filter(_rows__gt=self.most)
        surplus = groups.filter(self.has_owner(scope)).aggregate(_sum=Sum(F("_rows") - self.most, default=0))
        return without_owner + int(surplus["_sum"])

    def rows(self, scope: Scope) -> Rows:
        """The rows in scope. A range has the records' keys; a set of keys has the rows' own."""
        if isinstance(scope, Keys):
            return self.linked.rows(EVERYTHING).filter(scope.on("pk"))
        return self.linked.rows(scope)

    def has_owner(self, scope: Scope) -> Exists | AmongRows:
        source = self.linked.source
        return self.linked.has_owner(
            source.records_of_any_age(EVERYTHING if isinstance(scope, Keys) else scope)
        )
