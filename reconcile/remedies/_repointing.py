"""Moving what refers to merged rows over to the row that stays: one referring model at a time.

First it is examined, for all groups of a chunk, what would have to be written, which groups that rules out, and for
which another session stands in the way. Only then is anything written, for the groups that are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import CompositePrimaryKey, Field, Model, Q

from reconcile.drift import Written
from reconcile.errors import ChunkConflictError
from reconcile.remedies._base import Journal
from reconcile.remedies._colliding import Colliding, unique_with
from reconcile.remedies._referring import Reference, Referring
from reconcile.remedies.delete import delete_rows
from reconcile.sql.cases import BATCH, chosen
from reconcile.sql.dialects import dialect_of
from reconcile.windows import Keys

__all__ = ["Repointing", "examined"]

_APPLIES = "_applies_"


@dataclass(frozen=True)
class _Move:
    """One column of one row, which is to refer to the survivor."""

    reference: Reference
    old: Any
    new: Any
    survivor: Any


class _Held:
    """What a column holds where it refers to a row of a group, and the key of that row; both ways."""

    def __init__(self, keys: Mapping[Any, Any]) -> None:
        self.keys = keys
        self.values = {key: value for value, key in keys.items()}


@dataclass
class _Row:
    """A row that refers to a row of a group. `surplus`: moved, it would be the same as another many-to-many row."""

    key: Any
    values: Mapping[str, Any]
    moves: Sequence[_Move]
    surplus: bool = False

    @property
    def moved(self) -> dict[str, Any]:
        """The row's values as they are to be."""
        return {**self.values, **{each.reference.column.attname: each.new for each in self.moves}}

    @property
    def survivors(self) -> set[Any]:
        return {each.survivor for each in self.moves}


@dataclass(kw_only=True)
class Repointing:
    """What is to be written in the rows of one model, and the groups, by survivor, for which it can't be.

    refused: with the reason. busy: another session holds a row of it.
    """

    model: type[Model]
    referring: Referring
    rows: Sequence[_Row] = ()
    refused: dict[Any, str] = field(default_factory=dict)
    busy: set[Any] = field(default_factory=set)

    def write(self, groups: Mapping[Any, Any], journal: Journal) -> Written:
        """Journal and write what concerns the groups that are left, as other -> survivor."""
        survivors = {*groups.values()}
        # Also in rows that go themselves: InnoDB checks each as it is deleted, and not when all are gone.
        rows = [row for row in self.rows if row.survivors & survivors]
        surplus = [row.key for row in rows if row.surplus and row.survivors <= survivors]
        written = Written(delete=delete_rows(self.model, surplus, journal, using=self.referring.using))
        dropped = {*surplus}
        written.update = self._repoint([row for row in rows if row.key not in dropped], survivors, journal)
        return written

    def _repoint(self, rows: Sequence[_Row], survivors: set[Any], journal: Journal) -> int:
        moves = [move for row in rows for move in row.moves if move.survivor in survivors]
        if not moves:
            return 0
        fields = list({move.reference.column.attname: move.reference.column for move in moves}.values())
        noted = journal.before(self.model, fields, Keys([row.key for row in rows]))
        written = sum(
            self._update(rows[start : start + BATCH], survivors) for start in range(0, len(rows), BATCH)
        )
        completed = journal.after(self.model, fields)
        if not noted == written == completed:
            raise ChunkConflictError(
                f"{self.model._meta.label}: of {noted} rows {written} were updated; another session writes them."
            )
        return written

    def _update(self, rows: Sequence[_Row], survivors: set[Any]) -> int:
        using = self.referring.using
        branches: dict[Field[Any, Any], dict[Any, tuple[Q, Any]]] = {}
        for move in (move for row in rows for move in row.moves if move.survivor in survivors):
            column = move.reference.column
            # Beside a generic foreign key the row may refer to a row of another kind that has the same key.
            old = Q(**{column.attname: move.old}) & self.referring.of_kind(move.reference)
            branches.setdefault(column, {})[move.old] = (old, move.new)
        cases = {
            column.attname: chosen(column, [*each.values()], using=using) for column, each in branches.items()
        }
        manager = self.model._base_manager.using(using)
        return manager.filter(Keys([row.key for row in rows]).on("pk")).update(**cases)


def examined(referring: Referring, groups: Mapping[Any, Any]) -> list[Repointing]:
    """What each referring model has to write so that `groups`, as other -> survivor, can be merged.

    For each model one statement, one more where it has rows to repoint, which are then locked, and one for each
    reference by another column than the primary key.
    """
    return [
        _Examination(referring=referring, model=model, references=references, groups=groups).repointing()
        for model, references in referring.by_model().items()
    ]


@dataclass(frozen=True, kw_only=True)
class _Examination:
    """One referring model, and the groups that are to be merged."""

    referring: Referring
    model: type[Model]
    references: Sequence[Reference]
    groups: Mapping[Any, Any]

    def repointing(self) -> Repointing:
        unique = unique_with(
            self.model, {each.column.attname for each in self.references}, self.referring.using
        )
        rows = self._rows(unique)
        found = Repointing(
            model=self.model, referring=self.referring, rows=[row for row in rows if row.moves]
        )
        for row in found.rows:
            for survivor, why in self._refused(row):
                found.refused.setdefault(survivor, why)
        for number, each in enumerate(unique):
            self._collide(each, f"{_APPLIES}{number}", rows, found)
        found.busy.update(self._busy(found.rows))
        return found

    def _rows(self, unique: Sequence[Colliding]) -> list[_Row]:
        """The rows that refer to a row that goes; where they might collide, also those that refer to one that stays."""
        members = Keys([*dict.fromkeys([*self.groups, *self.groups.values()])])
        held = {each: _Held(self.referring.values(each, members)) for each in self.references}
        condition = Q()
        for each, there in held.items():
            sought = [value for value, key in there.keys.items() if unique or key in self.groups]
            condition |= self.referring.on(each, sought)
        rows = self.model._base_manager.using(self.referring.using).filter(condition).order_by("pk")
        applies = {f"{_APPLIES}{number}": each.applies for number, each in enumerate(unique)}
        columns = {name for each in unique for name in each.columns}
        for each in self.references:
            columns |= {each.column.attname} | ({each.kind.attname} if each.kind else set())
        listed = rows.annotate(**applies).values("pk", *columns - {"pk"}, *applies)
        return [_Row(values["pk"], values, [*self._moves(values, held)]) for values in listed]

    def _moves(self, values: Mapping[str, Any], held: Mapping[Reference, _Held]) -> Iterator[_Move]:
        for each, there in held.items():
            old = values[each.column.attname]
            of_kind = each.kind is None or values[each.kind.attname] in self.referring.kinds
            key = there.keys.get(old)
            if of_kind and key in self.groups:
                survivor = self.groups[key]
                yield _Move(each, old, there.values.get(survivor), survivor)

    def _refused(self, row: _Row) -> Iterator[tuple[Any, str]]:
        """The groups that this row alone rules out."""
        for move in row.moves:
            if isinstance(self.model._meta.pk, CompositePrimaryKey) or move.reference.column.primary_key:
                yield (
                    move.survivor,
                    f"{move.reference.name} refers to it, in a primary key, which is never rewritten.",
                )
            elif move.new is None:
                named = move.reference.target.name
                yield (
                    move.survivor,
                    f"{move.reference.name} refers to it, and {move.survivor} has no {named}.",
                )
            elif self._is_itself and row.key == move.survivor:
                yield (
                    move.survivor,
                    f"{self.model._meta.label} {row.key} would refer to itself by {move.reference.column.name}.",
                )
        if self.model._meta.auto_created and len(self.references) > 1:
            names = [each.column.attname for each in self.references]
            if len({row.moved[name] for name in names}) < len({row.values[name] for name in names}):
                for survivor in row.survivors:
                    yield survivor, f"{self.model._meta.label} {row.key} would connect it with itself."

    def _collide(self, unique: Colliding, applies: str, rows: Sequence[_Row], found: Repointing) -> None:
        """Where moved rows come to be the same as others, they are surplus, or their groups are refused."""
        judged = [row for row in rows if row.values[applies]]
        # What stays as it is comes first, so that of two the moved row is surplus.
        judged.sort(key=lambda row: bool(row.moves))
        by_key = {row.key: row for row in judged}
        for key, earlier in unique.colliding((row.key, row.moved) for row in judged):
            if self.model._meta.auto_created:
                by_key[key].surplus = True
                continue
            names = ", ".join(unique.columns)
            for survivor in by_key[key].survivors | by_key[earlier].survivors:
                said = f"{self.model._meta.label} {key} would be the same as {earlier} in {names}, which is unique."
                found.refused.setdefault(survivor, said)

    def _busy(self, rows: Sequence[_Row]) -> Iterator[Any]:
        """The groups that refer or are referred to by a row that another session holds, or has changed meanwhile."""
        if not rows or isinstance(self.model._meta.pk, CompositePrimaryKey):
            return
        names = list(dict.fromkeys(each.column.attname for each in self.references))
        wanted = self.model._base_manager.using(self.referring.using)
        wanted = wanted.filter(Keys([row.key for row in rows]).on("pk")).order_by("pk")
        free = {
            key: values
            for key, *values in dialect_of(self.referring.using).locked(wanted).values_list("pk", *names)
        }
        for row in rows:
            if free.get(row.key) != [row.values[name] for name in names]:
                yield from row.survivors

    @property
    def _is_itself(self) -> bool:
        return self.model is self.referring.model
