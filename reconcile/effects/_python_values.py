"""The finder of a `HaveValues` of which Python must tell at least one value: each record is read and judged.

One SELECT reads the key, the columns as they are, what the functions read, and what the database computes
beside them. No model instance is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, F, Field, JSONField, Model, Q, Value

from reconcile.declaring import field_named
from reconcile.drift import STALE
from reconcile.effects._aggregates import aggregated
from reconcile.effects._from_python import FromPython, HaveKeys, called, path_parts, written_fields
from reconcile.effects._json import InTheWayError, holds, put, same_json, with_keys
from reconcile.effects._keeping import Keeper, UnstorableError
from reconcile.effects._pages import pages
from reconcile.errors import EvaluationError
from reconcile.finders import Finder, Rewrite, Rewriting, Rows, Source
from reconcile.sql.expressions import path_of, pinned
from reconcile.sql.statements import WANTED
from reconcile.windows import Keys, Scope

__all__ = ["python_finder"]

Row = tuple[Any, ...]
Setter = Callable[[Any, Row], Any]
"""What a column should hold, by what it holds now and the row as it was read."""

_SAME: Any = object()
_DIFFERS = "_differs"


@dataclass(frozen=True)
class _Refused:
    why: str


def python_finder(
    source: Source,
    columns: Mapping[str, Any],
    *,
    beside: tuple[Field[Any, Any], ...],
    expecting: Callable[[Scope], Rows],
    differing: Q,
) -> Finder:
    """STALE, sifted: of `columns` Python tells the values; `beside` them the database computes some.

    expecting: the records, with the expected values of `beside`; differing: true where one of these is another.
    """
    sieve = _Sieve(source, beside, expecting, differing)
    for column in written_fields(source.model, iter(columns)):
        named = {name: value for name, value in columns.items() if _is_about(source.model, name, column)}
        sieve.add(column, named)

    def find(scope: Scope) -> Rows:
        return source.model._base_manager.using(source.using).filter(Keys([*sieve.keys(scope)]).on("pk"))

    fields = (*beside, *sieve.judges)
    rewriting = Rewriting(model=source.model, fields=fields, wanted=sieve.rewrites, own=True)
    return Finder(
        drift=STALE, model=source.model, carried=True, find=find, sifted=sieve.keys, reads=sieve.read,
        rewriting=rewriting,
    )  # fmt: skip


def _is_about(model: type[Model], name: str, column: Field[Any, Any]) -> bool:
    return field_named(model, path_parts(name)[0]) is column


@dataclass
class _Sieve:
    """One SELECT, and for each column the judge of what it reads."""

    source: Source
    beside: tuple[Field[Any, Any], ...]
    expecting: Callable[[Scope], Rows]
    differing: Q
    selected: dict[str, Any] = field(default_factory=dict)
    judges: dict[Field[Any, Any], Callable[[Row], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.beside:
            differs = ExpressionWrapper(self.differing, output_field=BooleanField())
            self._place(_DIFFERS, differs)
            for column in self.beside:
                name = WANTED.format(column.attname)
                self._place(name, F(name))

    def add(self, column: Field[Any, Any], named: Mapping[str, Any]) -> None:
        """Judge `column` by what `named` says of it, in the given order."""
        now = self._place(f"_now_{column.attname}", F(column.attname))
        if isinstance(column, JSONField):
            self.judges[column] = self._json_judge(column, now, named)
        else:
            (value,) = named.values()
            self.judges[column] = self._plain_judge(column, now, value)

    def read(self, scope: Scope) -> Rows:
        """The SELECT: key, then what was placed."""
        computed = {name: value for name, value in self.selected.items() if not _is_itself(name, value)}
        listed: Rows = self.expecting(scope).annotate(**computed).values_list("pk", *self.selected)
        return listed

    def keys(self, scope: Scope) -> Iterator[Any]:
        """Keys of the stale records, in key order."""
        judges = tuple(self.judges.values())
        for _, page in pages(self.read, scope):
            for row in page:
                if self.beside and row[1]:
                    yield row[0]
                    continue
                for judge in judges:
                    if judge(row) is not _SAME:
                        yield row[0]
                        break

    def rewrites(self, keys: Keys) -> Iterator[Rewrite]:
        """The stale records of `keys`, each with the values of all columns."""
        for _, page in pages(self.read, keys):
            for row in page:
                judged = {column: judge(row) for column, judge in self.judges.items()}
                refused = [each.why for each in judged.values() if isinstance(each, _Refused)]
                if refused:
                    yield Rewrite(row[0], refused=refused[0])
                elif (self.beside and row[1]) or any(value is not _SAME for value in judged.values()):
                    yield Rewrite(row[0], values=self._values(row, judged))

    def _values(self, row: Row, judged: Mapping[Field[Any, Any], Any]) -> dict[str, Any]:
        values = {each.attname: row[place] for place, each in enumerate(self.beside, start=2)}
        for column, value in judged.items():
            now = row[self._place(f"_now_{column.attname}", None)]
            values[column.attname] = now if value is _SAME else value
        return values

    def _place(self, name: str, expression: Any) -> int:
        """Where in a row the expression stands; each name is read once."""
        self.selected.setdefault(name, expression)
        return list(self.selected).index(name) + 1

    def _read(self, path: str) -> int:
        same = (
            name for name, value in self.selected.items() if isinstance(value, F) and path_of(value) == path
        )
        return self._place(next(same, f"_read_{len(self.selected)}"), F(path))

    def _plain_judge(self, column: Field[Any, Any], now: int, value: FromPython) -> Callable[[Row], Any]:
        wanted, keeper = self._calling(value), Keeper(column, self.source.using)
        same = keeper.same

        def judge(row: Row) -> Any:
            want, current = wanted(row), row[now]
            if type(want) is type(current) and want == current:
                return _SAME
            kept = self._kept(keeper, want, str(value), row)
            return _SAME if same(current, kept) else kept

        return judge

    def _json_judge(self, column: JSONField, now: int, named: Mapping[str, Any]) -> Callable[[Row], Any]:
        keeper = Keeper(column, self.source.using)
        setters = [self._setter(column, keeper, name, value) for name, value in named.items()]
        keyed = not any(_is_whole(name, value) for name, value in named.items())

        def judge(row: Row) -> Any:
            current = row[now]
            # Where only keys are owed, a NULL column is an object without any.
            want = {} if keyed and current is None else current
            start = want
            try:
                for setter in setters:
                    want = setter(want, row)
            except InTheWayError as error:
                return _Refused(f"{column.name}: {error}")
            return _SAME if same_json(start, want) else want

        return judge

    def _setter(self, column: JSONField, keeper: Keeper, name: str, value: Any) -> Setter:
        """What the one item of HaveValues makes of the document."""
        path = path_parts(name)[1]
        if isinstance(value, HaveKeys):
            keys = keeper.kept(dict(value.keys))
            return lambda document, _: with_keys(document, keys, exact=value.exact)
        wanted, said = self._wanting(column, value), str(value) if isinstance(value, FromPython) else name

        def setter(document: Any, row: Row) -> Any:
            want = wanted(row)
            # Below the column itself None is null, which JSON has.
            kept = None if want is None and path else self._kept(keeper, want, said, row)
            if not path:
                return kept
            return document if holds(document, path, kept) else put(document, path, kept)

        return setter

    def _wanting(self, column: JSONField, value: Any) -> Callable[[Row], Any]:
        """The value before it is converted, by row."""
        if isinstance(value, FromPython):
            return self._calling(value)
        if hasattr(value, "resolve_expression") and not isinstance(value, Value):
            computed = aggregated(self.source, pinned(value, self.source.now), column, None)
            return itemgetter(self._place(f"_computed_{len(self.selected)}", computed))
        constant = value.value if isinstance(value, Value) else value
        return lambda _: constant

    def _calling(self, value: FromPython) -> Callable[[Row], Any]:
        places = [self._read(path) for path in value.reads]
        function, model = value.function, self.source.model
        if len(places) == 1:
            (place,) = places
            return lambda row: called(function, (row[place],), model, row[0])
        several = itemgetter(*places)
        return lambda row: called(function, several(row), model, row[0])

    def _kept(self, keeper: Keeper, value: Any, said: str, row: Row) -> Any:
        try:
            return keeper.kept(value)
        except UnstorableError as error:
            label = self.source.model._meta.label
            raise EvaluationError(
                f"{said} gives {value!r} for {label} {row[0]}, which can't be stored in {keeper.field.name!r}: {error}. "
                "Mend the function, or leave such records out in every=."
            ) from error


def _is_whole(name: str, value: Any) -> bool:
    """Whether the item says what the whole document is, and not only some of its keys."""
    return not path_parts(name)[1] and not isinstance(value, HaveKeys)


def _is_itself(name: str, value: Any) -> bool:
    return isinstance(value, F) and path_of(value) == name
