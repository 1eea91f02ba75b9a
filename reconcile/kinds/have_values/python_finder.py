"""The finder of a `HaveValues` with a value that only Python can compute: it reads and compares each record.

One SELECT reads the key, the columns as they are, what the functions read, and what the database computes
beside them. No model instance is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import BooleanField, ExpressionWrapper, F, Field, JSONField, Model, Q, Value
from django.db.models.lookups import IsNull

from reconcile.core.declaration import field_named
from reconcile.core.drift import STALE
from reconcile.core.finder import Finder, PythonFinder, Rows, Source, read_pages
from reconcile.core.fixes import Levels, Rewrite, Rewriting
from reconcile.core.scopes import Keys, Scope
from reconcile.db.columns import JSON_NULL, fits
from reconcile.db.expressions import path_of, prepare
from reconcile.db.statements import WANTED
from reconcile.errors import Refusal
from reconcile.kinds.values.aggregates import aggregate_form
from reconcile.kinds.values.from_python import FromPython, HaveKeys, call_function, path_parts, written_fields
from reconcile.kinds.values.json_values import InTheWayError, has_value_at, same_json, set_value_at, with_keys
from reconcile.kinds.values.storable import ColumnStorage, UnstorableError

__all__ = ["python_finder"]

Row = tuple[Any, ...]
Setter = Callable[[Any, Row], Any]
"""What a column should hold, by what it has_value_at now and the row as it was read."""

_UNCHANGED: Any = object()
_DIFFERS = "_differs"


def python_finder(
    source: Source,
    columns: Mapping[str, Any],
    *,
    beside: tuple[Field[Any, Any], ...],
    select_expected: Callable[[Scope], Rows],
    differing: Q,
    order: Callable[[Callable[[Scope], Rows]], Levels | None],
) -> Finder:
    """STALE. Python computes the values of `columns`, the database those of `beside`.

    select_expected: the records, with the expected values of `beside`. differing: true if one of these differs. order: the levels
    of the records, from what finds the drifted ones.
    """
    checks = _RowChecks(source, beside, select_expected, differing)
    for column in written_fields(source.model, iter(columns)):
        named = {name: value for name, value in columns.items() if _begins_with(source.model, name, column)}
        checks.add(column, named)

    fields = (*beside, *checks.checkers)
    finder = PythonFinder(
        drift=STALE, model=source.model, using=source.using, sift=checks.stale_keys, rows_read=checks.read
    )
    fix = Rewriting(
        model=source.model, fields=fields, wanted=checks.rewrites, own=True, levels=order(finder.find)
    )
    return replace(finder, fix=fix)


def _begins_with(model: type[Model], name: str, column: Field[Any, Any]) -> bool:
    return field_named(model, path_parts(name)[0]) is column


@dataclass
class _RowChecks:
    """One SELECT, and for each column a function that compares the value read with the expected one."""

    source: Source
    beside: tuple[Field[Any, Any], ...]
    select_expected: Callable[[Scope], Rows]
    differing: Q
    selected: dict[str, Any] = field(default_factory=dict)
    checkers: dict[Field[Any, Any], Callable[[Row], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.beside:
            differs = ExpressionWrapper(self.differing, output_field=BooleanField())
            self._select(_DIFFERS, differs)
            for column in self.beside:
                name = WANTED.format(column.attname)
                self._select(name, F(name))

    def add(self, column: Field[Any, Any], named: Mapping[str, Any]) -> None:
        """Check `column` against the values of `named`, in the given order."""
        now = self._select(f"_now_{column.attname}", F(column.attname))
        if isinstance(column, JSONField):
            self.checkers[column] = self._json_checker(column, now, named)
        else:
            (value,) = named.values()
            self.checkers[column] = self._plain_checker(column, now, value)

    def read(self, scope: Scope) -> Rows:
        """The SELECT: the key, then the selected expressions."""
        computed = {name: value for name, value in self.selected.items() if not _is_column_named(name, value)}
        listed: Rows = self.select_expected(scope).annotate(**computed).values_list("pk", *self.selected)
        return listed

    def stale_keys(self, scope: Scope) -> Iterator[tuple[Any, Refusal | None]]:
        """Keys of the stale records, in key order, each with why its values can't be written, if so."""
        checkers = tuple(self.checkers.values())
        for _, page in read_pages(self.read, scope):
            for row in page:
                if self.beside and row[1]:
                    yield row[0], self._refuse_beside(row)
                    continue
                for checker in checkers:
                    if (result := checker(row)) is not _UNCHANGED:
                        yield row[0], result if isinstance(result, Refusal) else None
                        break

    def _refuse_beside(self, row: Row) -> Refusal | None:
        """Why what the database computes can't be written beside: it is too large, and SQLite would keep it."""
        for place, column in enumerate(self.beside, start=2):
            if not fits(column, row[place], self.source.using):
                return Refusal(f"the value is too large for {column.name!r}")
        return None

    def rewrites(self, keys: Keys) -> Iterator[Rewrite]:
        """The stale records of `keys`, each with the values of all columns."""
        for _, page in read_pages(self.read, keys):
            for row in page:
                results = {column: checker(row) for column, checker in self.checkers.items()}
                found = (*results.values(), self._refuse_beside(row))
                refusals = [each for each in found if isinstance(each, Refusal)]
                if refusals:
                    yield Rewrite(row[0], refusal=refusals[0])
                elif (self.beside and row[1]) or any(value is not _UNCHANGED for value in results.values()):
                    yield Rewrite(row[0], values=self._values(row, results))

    def _values(self, row: Row, results: Mapping[Field[Any, Any], Any]) -> dict[str, Any]:
        values = {each.attname: row[place] for place, each in enumerate(self.beside, start=2)}
        for column, value in results.items():
            now = row[self._select(f"_now_{column.attname}", None)]
            values[column.attname] = now if value is _UNCHANGED else value
        return values

    def _select(self, name: str, expression: Any) -> int:
        """Select the expression, once for each name, and return its place in a row."""
        self.selected.setdefault(name, expression)
        return list(self.selected).index(name) + 1

    def _select_path(self, path: str) -> int:
        same = (
            name for name, value in self.selected.items() if isinstance(value, F) and path_of(value) == path
        )
        return self._select(next(same, f"_read_{len(self.selected)}"), F(path))

    def _plain_checker(self, column: Field[Any, Any], now: int, value: FromPython) -> Callable[[Row], Any]:
        wanted = self._caller(value)
        storage = ColumnStorage(column, self.source.using)
        same = storage.same

        def checker(row: Row) -> Any:
            want, current = wanted(row), row[now]
            if type(want) is type(current) and want == current:
                return _UNCHANGED
            try:
                kept = self._stored_value(storage, want, str(value), row)
            except UnstorableError as error:
                return Refusal(str(error))
            return _UNCHANGED if same(current, kept) else kept

        return checker

    def _json_checker(self, column: JSONField, now: int, named: Mapping[str, Any]) -> Callable[[Row], Any]:
        storage = ColumnStorage(column, self.source.using)
        setters = [self._setter(column, storage, name, value) for name, value in named.items()]
        keyed = not any(_is_whole_document(name, value) for name, value in named.items())
        there = self._document_getter(now, F(column.attname))

        def checker(row: Row) -> Any:
            current = there(row)
            # Where only keys are owed, a NULL column is an object without any, and so is null.
            want = {} if keyed and (current is None or current is JSON_NULL) else current
            start = want
            try:
                for setter in setters:
                    want = setter(want, row)
            except InTheWayError as error:
                return Refusal(f"{column.name}: {error}")
            except UnstorableError as error:
                return Refusal(str(error))
            return _UNCHANGED if same_json(start, want) else want

        return checker

    def _setter(self, column: JSONField, storage: ColumnStorage, name: str, value: Any) -> Setter:
        """What the one item of HaveValues makes of the document."""
        path = path_parts(name)[1]
        if isinstance(value, HaveKeys):
            keys = storage.stored_value(dict(value.keys))
            return lambda document, _: with_keys(document, keys, exact=value.exact)
        wanted = self._value_getter(column, value)
        described = str(value) if isinstance(value, FromPython) else name

        def setter(document: Any, row: Row) -> Any:
            want = wanted(row)
            if want is JSON_NULL:
                # Below the column itself None is null, which JSON has.
                kept = None if path else JSON_NULL
            else:
                kept = None if want is None and path else self._stored_value(storage, want, described, row)
            if not path:
                return kept
            return document if has_value_at(document, path, kept) else set_value_at(document, path, kept)

        return setter

    def _value_getter(self, column: JSONField, value: Any) -> Callable[[Row], Any]:
        """The value before it is converted, by row."""
        if isinstance(value, FromPython):
            return self._caller(value)
        if hasattr(value, "resolve_expression") and not isinstance(value, Value):
            computed = aggregate_form(self.source, prepare(value, self.source.now), column, None)
            return self._document_getter(self._select(f"_computed_{len(self.selected)}", computed), computed)
        constant = JSON_NULL if _is_json_null(value) else value.value if isinstance(value, Value) else value
        return lambda _: constant

    def _document_getter(self, place: int, expression: Any) -> Callable[[Row], Any]:
        """What stands at the place, which the expression yields: JSON_NULL for null, None for NULL alone."""
        is_null = ExpressionWrapper(Q(IsNull(expression, True)), output_field=BooleanField())
        null = self._select(f"_null_{place}", is_null)
        return lambda row: JSON_NULL if row[place] is None and not row[null] else row[place]

    def _caller(self, value: FromPython) -> Callable[[Row], Any]:
        places = [self._select_path(path) for path in value.reads]
        function, model = value.function, self.source.model
        if len(places) == 1:
            (place,) = places
            return lambda row: call_function(function, (row[place],), model, row[0])
        several = itemgetter(*places)
        return lambda row: call_function(function, several(row), model, row[0])

    def _stored_value(self, storage: ColumnStorage, value: Any, described: str, row: Row) -> Any:
        """Raises UnstorableError, which names the record: it can't be written, and keeps nobody from checking the others."""
        try:
            return storage.stored_value(value)
        except UnstorableError as error:
            label = self.source.model._meta.label
            raise UnstorableError(
                f"{described} gives {value!r} for {label} {row[0]}, which can't be stored in {storage.field.name!r}: {error}. "
                "Mend the function, or leave such records out in every=."
            ) from error


def _is_json_null(value: Any) -> bool:
    """Whether it is `Value(None, JSONField())`, by which Django means the document null."""
    if not isinstance(value, Value) or value.value is not None:
        return False
    try:
        return isinstance(value.output_field, JSONField)
    except FieldError:
        return False


def _is_whole_document(name: str, value: Any) -> bool:
    """Whether the item says what the whole document is, and not only some of its keys."""
    return not path_parts(name)[1] and not isinstance(value, HaveKeys)


def _is_column_named(name: str, value: Any) -> bool:
    return isinstance(value, F) and path_of(value) == name
