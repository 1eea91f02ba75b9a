"""The finders of a `HaveRows`: they compare the rows that the function gives with the rows that are there.

A page costs two statements. One reading of a window finds all three kinds of drift: the keys of the other kinds
are kept until their finders ask for them, or until another window is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.db.models import BooleanField, ExpressionWrapper, F, Field, Model, Value

from reconcile.core.declaration import as_expression, known_field
from reconcile.core.drift import EXTRA, MISSING, STALE, Bound, Drift
from reconcile.core.finder import Finder, PythonFinder, Rows, Source, read_pages
from reconcile.core.fixes import Derivation, Fix, Rewrite, Rewriting
from reconcile.core.scopes import EVERYTHING, Keys, Scope, Window
from reconcile.db.columns import is_text
from reconcile.errors import EvaluationError, UnevaluableRecordError, nearest
from reconcile.kinds.have_row.link import LINK, Linked, is_constant
from reconcile.kinds.have_row.new_rows import PerRow, new_row_values
from reconcile.kinds.values.from_python import call_function, function_name
from reconcile.kinds.values.storable import ColumnStorage, UnstorableError

if TYPE_CHECKING:
    from reconcile.kinds.have_row.declaration import HaveRow
    from reconcile.kinds.have_rows.declaration import HaveRows

__all__ = ["Difference", "RowSet", "row_set_finders"]


@dataclass
class Difference:
    """Of one record: what it lacks, by key; its stale rows, by their own keys; and its extra rows."""

    missing: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)
    stale: dict[Any, tuple[Any, ...]] = field(default_factory=dict)
    extra: list[Any] = field(default_factory=list)


class RowSet:
    """The rows that the function of `must` gives, as the columns keep them on the database `using`."""

    def __init__(self, must: HaveRows, source: type[Model], using: str) -> None:
        self.must, self.source = must, source
        self.names = (*must.key, *must.values)
        self.fields = tuple(known_field(must.model, name) for name in self.names)
        self.storages = tuple(ColumnStorage(column, using) for column in self.fields)
        self.same = tuple(storage.same for storage in self.storages[len(must.key) :])

    def owed(self, key: Any, read: Sequence[Any]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """The rows that the record `key` owes: the values by key. Raises EvaluationError."""
        owed: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for given in call_function(
            self._call_rows, read, self.source, key, name=function_name(self.must.rows)
        ):
            kept = self._stored_values(given, key)
            identity = kept[: len(self.must.key)]
            if identity in owed:
                named = ", ".join(map(repr, identity))
                raise self._error(key, f"gives the key {named} twice")
            owed[identity] = kept[len(self.must.key) :]
        return owed

    def compare(
        self, owed: Mapping[tuple[Any, ...], tuple[Any, ...]], rows: Iterable[Sequence[Any]]
    ) -> Difference:
        """What is wrong with `rows`, each its own key, then the columns of key and values.

        Of several rows with the same key the first is compared, the others are EXTRA.
        """
        width = len(self.must.key)
        found = Difference(missing=dict(owed))
        for own, *columns in rows:
            identity = tuple(columns[:width])
            wanted = found.missing.pop(identity, None)
            if wanted is None:
                found.extra.append(own)
            elif self.same and not self._are_same(columns[width:], wanted):
                found.stale[own] = wanted
        return found

    def _are_same(self, values: Sequence[Any], wanted: Sequence[Any]) -> bool:
        return all(same(*pair) for same, *pair in zip(self.same, values, wanted, strict=True))

    def _call_rows(self, *read: Any) -> list[Any]:
        rows: Any = self.must.rows
        given = rows(*read)
        if isinstance(given, str | bytes | Mapping):
            raise TypeError(f"it returns {given!r}, not a list of rows")
        return list(given)

    def _stored_values(self, given: Any, key: Any) -> tuple[Any, ...]:
        values = self._values(given, key)
        kept = []
        for storage, value in zip(self.storages, values, strict=True):
            try:
                kept.append(storage.stored_value(value))
            except UnstorableError as error:
                name = storage.field.name
                said = self._error(key, f"gives {value!r}, which can't be stored in {name!r}: {error}")
                raise UnevaluableRecordError(str(said)) from error
        return tuple(kept)

    def _values(self, given: Any, key: Any) -> Sequence[Any]:
        """The values of one row, in the order of key and values."""
        if not isinstance(given, Mapping):
            if len(self.names) == 1:
                return (given,)
            raise self._error(key, f"gives {given!r}, not a mapping of {', '.join(self.names)}")
        unknown = [name for name in given if name not in self.names]
        if unknown:
            hint = nearest(str(unknown[0]), self.names) or " Name it in values=."
            raise self._error(key, f"gives {unknown[0]!r}, which neither key= nor values= names.{hint}")
        lacking = [name for name in self.names if name not in given]
        if lacking:
            raise self._error(key, f"gives a row without {lacking[0]!r}")
        return [given[name] for name in self.names]

    def _error(self, key: Any, message: str) -> EvaluationError:
        end = "" if message.endswith((".", "?")) else "."
        return EvaluationError(
            f"{function_name(self.must.rows)}() {message}{end} The record is {self.source._meta.label} {key}."
        )


_ROWS_AT_ONCE = 5_000


def row_set_finders(must: HaveRows, link: HaveRow, source: Source) -> tuple[Finder, ...]:
    """MISSING, STALE where there are values, and EXTRA; all from one reading of a window."""
    sides = _Sides(RowSet(must, source.model, source.using), Linked(link, source))
    fields = sides.rows.fields[len(must.key) :]
    derivation = Derivation(
        model=must.model, owed=sides.missing_rows, present=sides.linked.rows, identity=sides.identity
    )
    rewriting = Rewriting(model=must.model, fields=fields, wanted=sides.rewrites, own=False)
    missing = _finder(MISSING, source.model, sides, sides.read_records, derivation)
    stale = _finder(STALE, source.model, sides, sides.read_records, rewriting)
    extra = replace(_finder(EXTRA, must.model, sides, sides.read_rows, None), near=sides.linked.rows_near_any)
    return (missing, *((stale,) if must.values else ()), extra)


def _finder(
    drift: Drift, model: type[Model], sides: _Sides, reads: Callable[[Scope], Rows], fix: Fix | None
) -> Finder:
    def sift(scope: Scope) -> Iterator[tuple[Any, None]]:
        return ((key, None) for key in sides.keys(drift, scope))

    return PythonFinder(
        drift=drift, model=model, using=sides.linked.source.using, sift=sift, rows_read=reads, fix=fix,
        # A record that lacks rows lacks one or more.
        bound=Bound.EXACT if drift is EXTRA else Bound.AT_LEAST,
    )  # fmt: skip


@dataclass
class _Sides:
    """Records on one side, rows on the other, and the keys found in the last window that was read."""

    rows: RowSet
    linked: Linked
    last_reading: tuple[Window, dict[Drift, list[Any]]] = (EVERYTHING, {})

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
            if column is not self.carrier and not is_constant(as_expression(value, column))
        }

    @property
    def identity(self) -> tuple[Field[Any, Any], ...]:
        """The columns by which a row is told from all others."""
        return (*self.linked.link, *self.rows.fields[: len(self.rows.must.key)])

    def keys(self, drift: Drift, scope: Scope) -> Iterator[Any]:
        """Keys of what drifts in this way: the records' in key order, or the extra rows' in the records' order."""
        if isinstance(scope, Keys):
            found = self._extra_among(scope) if drift is EXTRA else self._drifted_keys(scope)[drift]
            yield from found
            return
        window, unread = self.last_reading
        # The last window is open at its end for EXTRA: only what lies beyond is still to be read.
        beyond = scope.upto is None and window == Window(scope.after, window.upto) != scope
        if drift not in unread or not (window == scope or beyond):
            window, unread = self.last_reading = (scope, self._drifted_keys(scope))
            beyond = False
        # Each kind is handed out once; a second call reads the database again.
        yield from unread.pop(drift)
        if beyond:
            yield from self._drifted_keys(Window(window.upto, None))[drift]

    def _drifted_keys(self, scope: Scope) -> dict[Drift, list[Any]]:
        found: dict[Drift, list[Any]] = {MISSING: [], STALE: [], EXTRA: []}
        for record, difference in self.differences(scope):
            found[EXTRA] += difference.extra
            if record is not None and difference.missing:
                found[MISSING].append(record[0])
            if record is not None and difference.stale:
                found[STALE].append(record[0])
        return found

    def _extra_among(self, scope: Keys) -> Iterator[Any]:
        """The extra rows of `scope`. It reads their records and all rows of these, since a row is extra beside others."""
        rows = self.linked.rows(EVERYTHING).filter(scope.on("pk")).order_by()
        owners = Keys(list(rows.values_list(self.carrier.attname, flat=True).distinct()))
        among = {*scope.values}
        return (key for key in self._drifted_keys(owners)[EXTRA] if key in among)

    def missing_rows(self, keys: Keys) -> list[Model]:
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
        """Each record in scope with what is wrong with its rows. Rows without a record come first, with None."""
        for part, page in read_pages(self.read_records, scope):
            records = {record[0]: record for record in page}
            found: dict[Any, Difference] = {}
            for owner, rows in self._group_by_owner(self.read_rows(part)):
                if owner in records:
                    found[owner] = self._compare_rows(records[owner], rows)
                else:
                    yield None, Difference(extra=[row[1] for row in rows])
            for key, record in records.items():
                yield record, found[key] if key in found else self._compare_rows(record, ())

    def read_records(self, scope: Scope) -> Rows:
        """Key, whether it is settled, the other link columns, then what the function reads."""
        source = self.linked.source
        settled = ExpressionWrapper(source.settled, BooleanField()) if source.settled else Value(True)
        links = {f"_other_{number}": F(LINK.format(each.attname)) for number, each in enumerate(self.others)}
        reads = {f"_read_{number}": F(path) for number, path in enumerate(self.rows.must.reads)}
        records = self.linked.with_link_terms(source.records_of_any_age(scope)).annotate(
            _settled=settled, **links, **reads
        )
        listed: Rows = records.values_list("pk", "_settled", *links, *reads)
        return listed

    def read_rows(self, scope: Scope) -> Rows:
        """The record's key, the row's own, the other link columns, then key and values."""
        columns = [column.attname for column in (*self.others, *self.rows.fields)]
        rows = self.linked.rows(scope).order_by(self.carrier.attname, "pk")
        listed: Rows = rows.values_list(self.carrier.attname, "pk", *columns)
        return listed

    def _group_by_owner(self, rows: Rows) -> Iterator[tuple[Any, list[Any]]]:
        ahead = rows.iterator(chunk_size=_ROWS_AT_ONCE)
        if not is_text(self.carrier):
            yield from ((owner, list(group)) for owner, group in groupby(ahead, key=lambda row: row[0]))
            return
        # A collation may fold texts, so that the rows of two records come mixed.
        groups: dict[Any, list[Any]] = {}
        for row in ahead:
            groups.setdefault(row[0], []).append(row)
        yield from groups.items()

    def _compare_rows(self, record: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Difference:
        if not record[1]:
            return Difference()
        width = len(self.others)
        link = tuple(record[2 : 2 + width])
        # NULL in the link links with nothing.
        owed = {} if None in link else self.rows.owed(record[0], record[2 + width :])
        if not width:
            return self.rows.compare(owed, [row[1:] for row in rows])
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
                given[column] = ColumnStorage(column, source.using).stored_value(constant)
        values = new_row_values(
            model, {column: Value(value) for column, value in given.items()}, now=source.now
        )
        return model(
            **{
                column.attname: value.make() if isinstance(value, PerRow) else value.value
                for column, value in values.items()
            }
        )
