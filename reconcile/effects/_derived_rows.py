"""The finders of a `HaveRows`: records and rows are read side by side, in pages with the range on both sides.

A page is two statements. All three kinds of drift come of one reading: what a window has told of the other kinds
is kept until they ask for it, or another window is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, F, Field, Model, Value

from reconcile.declaring import as_expression
from reconcile.drift import EXTRA, MISSING, STALE, Drift
from reconcile.effects._columns import PerRow, supplied
from reconcile.effects._keeping import Keeper
from reconcile.effects._link import RowSpec
from reconcile.effects._linked import LINK, Linked
from reconcile.effects._pages import pages
from reconcile.effects._row_sets import Difference, RowSet, RowSetSpec
from reconcile.finders import Derivation, Finder, Rewrite, Rewriting, Rows, Source
from reconcile.sql.lookups import is_text
from reconcile.windows import EVERYTHING, Keys, Scope, Window

__all__ = ["row_set_finders"]

_ROWS_AT_ONCE = 5_000


def row_set_finders(must: RowSetSpec, link: RowSpec, source: Source) -> tuple[Finder, ...]:
    """MISSING, STALE where there are values, and EXTRA; all from one reading of a window."""
    sides = _Sides(RowSet(must, source.model, source.using), Linked(link, source))
    fields = sides.rows.fields[len(must.key) :]
    derivation = Derivation(
        model=must.model, owed=sides.lacking, present=sides.linked.rows, identity=sides.identity
    )
    rewriting = Rewriting(model=must.model, fields=fields, wanted=sides.rewrites, own=False)
    missing = _finder(MISSING, source.model, sides, sides.read_records, derivation=derivation)
    stale = _finder(STALE, source.model, sides, sides.read_records, rewriting=rewriting)
    extra = _finder(EXTRA, must.model, sides, sides.read_rows)
    return (missing, *((stale,) if must.values else ()), extra)


def _finder(
    drift: Drift, model: type[Model], sides: _Sides, reads: Callable[[Scope], Rows], **needs: Any
) -> Finder:
    sifted = partial(sides.keys, drift)

    def find(scope: Scope) -> Rows:
        return model._base_manager.using(sides.linked.source.using).filter(Keys([*sifted(scope)]).on("pk"))

    return Finder(drift=drift, model=model, carried=True, find=find, sifted=sifted, reads=reads, **needs)


@dataclass
class _Sides:
    """Records on one side, rows on the other, and what a window has told of them."""

    rows: RowSet
    linked: Linked
    told: tuple[Window, dict[Drift, list[Any]]] = (EVERYTHING, {})

    @cached_property
    def carrier(self) -> Field[Any, Any]:
        column = self.linked.carrier
        if column is None:
            raise LookupError("No column of the link holds the record's key.")
        return column

    @cached_property
    def others(self) -> dict[Field[Any, Any], Any]:
        """The other columns of the link that depend on the record; of constants `Linked.rows` takes care."""
        return {
            column: value
            for column, value in self.linked.link.items()
            if column is not self.carrier and not isinstance(as_expression(value, column), Value)
        }

    @property
    def identity(self) -> tuple[Field[Any, Any], ...]:
        """The columns by which a row is told from all others."""
        return (*self.linked.link, *self.rows.fields[: len(self.rows.must.key)])

    def keys(self, drift: Drift, scope: Scope) -> Iterator[Any]:
        """Keys of what drifts in this way: the records' in key order, or the extra rows' in the records' order."""
        if isinstance(scope, Keys):
            yield from self._extra_among(scope) if drift is EXTRA else self._look(scope)[drift]
            return
        window, told = self.told
        # The last window is open at its end for EXTRA: only what lies beyond is still to be read.
        beyond = scope.upto is None and window == Window(scope.after, window.upto) != scope
        if drift not in told or not (window == scope or beyond):
            window, told = self.told = (scope, self._look(scope))
            beyond = False
        # Each kind is told once, so that whoever looks again sees what is there by then.
        yield from told.pop(drift)
        if beyond:
            yield from self._look(Window(window.upto, None))[drift]

    def _look(self, scope: Scope) -> dict[Drift, list[Any]]:
        found: dict[Drift, list[Any]] = {MISSING: [], STALE: [], EXTRA: []}
        for record, difference in self.differences(scope):
            found[EXTRA] += difference.extra
            if record is not None and difference.missing:
                found[MISSING].append(record[0])
            if record is not None and difference.stale:
                found[STALE].append(record[0])
        return found

    def _extra_among(self, scope: Keys) -> Iterator[Any]:
        """Whether a row is extra is told by its record and by all rows of that record."""
        rows = self.linked.rows(EVERYTHING).filter(scope.on("pk")).order_by()
        owners = Keys(list(rows.values_list(self.carrier.attname, flat=True).distinct()))
        among = {*scope.values}
        return (key for key in self._look(owners)[EXTRA] if key in among)

    def lacking(self, keys: Keys) -> list[Model]:
        """Instances of the rows that the records of `keys` lack."""
        return [
            self._instance(record, (*identity, *values))
            for record, difference in self.differences(keys)
            if record is not None
            for identity, values in difference.missing.items()
        ]

    def rewrites(self, keys: Keys) -> Iterator[Rewrite]:
        """The stale rows of the records of `keys`, with the values that the function gives."""
        names = [column.attname for column in self.rows.fields[len(self.rows.must.key) :]]
        for _, difference in self.differences(keys):
            for key, values in difference.stale.items():
                yield Rewrite(key, values=dict(zip(names, values, strict=True)))

    def differences(self, scope: Scope) -> Iterator[tuple[Sequence[Any] | None, Difference]]:
        """Each record in scope with what is wrong with its rows; first, without a record, rows that have none."""
        for part, page in pages(self.read_records, scope):
            records = {record[0]: record for record in page}
            found: dict[Any, Difference] = {}
            for owner, rows in self._grouped(self.read_rows(part)):
                if owner in records:
                    found[owner] = self._difference(records[owner], rows)
                else:
                    yield None, Difference(extra=[row[1] for row in rows])
            for key, record in records.items():
                yield record, found[key] if key in found else self._difference(record, ())

    def read_records(self, scope: Scope) -> Rows:
        """Key, whether it is settled, the other link columns, then what the function reads."""
        source = self.linked.source
        settled = ExpressionWrapper(source.settled, BooleanField()) if source.settled else Value(True)
        links = {f"_other_{number}": F(LINK.format(each.attname)) for number, each in enumerate(self.others)}
        reads = {f"_read_{number}": F(path) for number, path in enumerate(self.rows.must.reads)}
        records = self.linked.linking(source.owing(scope)).annotate(_settled=settled, **links, **reads)
        listed: Rows = records.values_list("pk", "_settled", *links, *reads)
        return listed

    def read_rows(self, scope: Scope) -> Rows:
        """The record's key, the row's own, the other link columns, then key and values."""
        columns = [column.attname for column in (*self.others, *self.rows.fields)]
        rows = self.linked.rows(scope).order_by(self.carrier.attname, "pk")
        listed: Rows = rows.values_list(self.carrier.attname, "pk", *columns)
        return listed

    def _grouped(self, rows: Rows) -> Iterator[tuple[Any, list[Any]]]:
        ahead = rows.iterator(chunk_size=_ROWS_AT_ONCE)
        if not is_text(self.carrier):
            yield from ((owner, list(group)) for owner, group in groupby(ahead, key=lambda row: row[0]))
            return
        # A collation may fold texts, so that the rows of two records come mixed.
        groups: dict[Any, list[Any]] = {}
        for row in ahead:
            groups.setdefault(row[0], []).append(row)
        yield from groups.items()

    def _difference(self, record: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Difference:
        if not record[1]:
            return Difference()
        width = len(self.others)
        owed = self.rows.owed(record[0], record[2 + width :])
        if not width:
            return self.rows.compare(owed, [row[1:] for row in rows])
        link = tuple(record[2 : 2 + width])
        mine = [row for row in rows if tuple(row[2 : 2 + width]) == link]
        found = self.rows.compare(owed, [(row[1], *row[2 + width :]) for row in mine])
        found.extra += [row[1] for row in rows if tuple(row[2 : 2 + width]) != link]
        return found

    def _instance(self, record: Sequence[Any], row: Sequence[Any]) -> Model:
        """A new row: link, key and values as they are given, the rest by default."""
        source, model = self.linked.source, self.rows.must.model
        given: dict[Field[Any, Any], Any] = dict(zip(self.others, record[2:], strict=False))
        given |= dict(zip(self.rows.fields, row, strict=True))
        for column, value in self.linked.link.items():
            if column is self.carrier:
                given[column] = record[0]
            elif column not in given:
                constant = as_expression(value, column).value
                given[column] = Keeper(column, source.using).kept(constant)
        values = supplied(model, {column: Value(value) for column, value in given.items()}, now=source.now)
        return model(
            **{
                column.attname: value.make() if isinstance(value, PerRow) else value.value
                for column, value in values.items()
            }
        )
