"""What one record owes and has: the rows that the function gives, beside those that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.db.models import Field, Model

from reconcile.declaring import field_named
from reconcile.effects._from_python import called, function_name
from reconcile.effects._keeping import Keeper, UnstorableError
from reconcile.errors import EvaluationError, nearest

__all__ = ["Difference", "RowSet", "RowSetSpec"]


class RowSetSpec(Protocol):
    """What a `HaveRows` declares."""

    @property
    def model(self) -> type[Model]: ...
    @property
    def link(self) -> Mapping[str, Any]: ...
    @property
    def rows(self) -> Callable[..., Any] | None: ...
    @property
    def reads(self) -> Sequence[str]: ...
    @property
    def key(self) -> Sequence[str]: ...
    @property
    def values(self) -> Sequence[str]: ...


@dataclass
class Difference:
    """Of one record: what it lacks, by key; its stale rows, by their own keys; and its extra rows."""

    missing: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)
    stale: dict[Any, tuple[Any, ...]] = field(default_factory=dict)
    extra: list[Any] = field(default_factory=list)


class RowSet:
    """The rows that the function of `must` gives, as the columns keep them on the database `using`."""

    def __init__(self, must: RowSetSpec, source: type[Model], using: str) -> None:
        self.must, self.source = must, source
        self.names = (*must.key, *must.values)
        self.fields = tuple(_field(must.model, name) for name in self.names)
        self.keepers = tuple(Keeper(column, using) for column in self.fields)
        self.same = tuple(keeper.same for keeper in self.keepers[len(must.key) :])

    def owed(self, key: Any, read: Sequence[Any]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """The rows that the record `key` owes: the values by key. Raises EvaluationError."""
        owed: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for given in called(self._listed, read, self.source, key, name=function_name(self.must.rows)):
            kept = self._kept(given, key)
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

    def _listed(self, *read: Any) -> list[Any]:
        rows: Any = self.must.rows
        given = rows(*read)
        if isinstance(given, str | bytes | Mapping):
            raise TypeError(f"it returns {given!r}, not a list of rows")
        return list(given)

    def _kept(self, given: Any, key: Any) -> tuple[Any, ...]:
        values = self._values(given, key)
        kept = []
        for keeper, value in zip(self.keepers, values, strict=True):
            try:
                kept.append(keeper.kept(value))
            except UnstorableError as error:
                name = keeper.field.name
                raise self._error(
                    key, f"gives {value!r}, which can't be stored in {name!r}: {error}"
                ) from error
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

    def _error(self, key: Any, said: str) -> EvaluationError:
        end = "" if said.endswith((".", "?")) else "."
        return EvaluationError(
            f"{function_name(self.must.rows)}() {said}{end} The record is {self.source._meta.label} {key}."
        )


def _field(model: type[Model], name: str) -> Field[Any, Any]:
    column = field_named(model, name)
    if column is None:
        raise LookupError(f"{model._meta.label} has no column {name!r}.")
    return column
