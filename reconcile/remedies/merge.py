"""`Merge`: make one row of several, and let what referred to the others refer to it.

First it is examined, for all groups of a chunk, what would have to be written, which groups that rules out, and for
which another session stands in the way. Only then is anything written, for the groups that are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from django.db.models import BooleanField, Case, CompositePrimaryKey, Field, Model, Q, Value, When

from reconcile.core.drift import Bound, Drift
from reconcile.core.finder import Finder
from reconcile.core.fixes import Merging
from reconcile.core.row_locks import lock_rows
from reconcile.core.scopes import Keys, blocks
from reconcile.core.verbs import DELETE, UPDATE, Written
from reconcile.db.columns import fits
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import ManyToOneRel, many_to_many_owner
from reconcile.db.expressions import Column, columns_of
from reconcile.db.statements import CASES, first_true_branch
from reconcile.db.unexecuted import first_write
from reconcile.db.uniques import Unique, uniques_of
from reconcile.errors import ChunkConflictError, Fault
from reconcile.remedies.base import Journal, Remedy, WriteResult, WriteStep
from reconcile.remedies.delete import delete_rows, spell_delete, spell_references, spell_refused
from reconcile.remedies.references import Reference, Referring, deletion_faults

__all__ = ["Colliding", "Merge", "Repointing", "examine_references", "unique_with"]


@dataclass(frozen=True)
class Colliding:
    """A unique constraint on columns, and the rows that would break it."""

    unique: Unique

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns, by attname."""
        return tuple(field.attname for field in self.unique.fields)

    @property
    def applies(self) -> Case | Value:
        """The condition of the constraint, as an expression."""
        if self.unique.condition is None:
            return Value(True)
        return Case(
            When(self.unique.condition, then=Value(True)), default=Value(False), output_field=BooleanField()
        )

    def find_collisions(self, rows: Iterable[tuple[Any, Mapping[str, Any]]]) -> Iterator[tuple[Any, Any]]:
        """Of rows with their new values, by key: pairs of a row and an earlier row with the same unique values."""
        first: dict[tuple[Any, ...], Any] = {}
        for key, values in rows:
            texts = tuple(None if values[name] is None else str(values[name]) for name in self.columns)
            if self.unique.nulls_distinct and None in texts:
                continue
            if texts in first:
                yield key, first[texts]
            first.setdefault(texts, key)


def unique_with(model: type[Model], columns: set[str], using: str) -> Sequence[Colliding]:
    """The unique constraints of `model` that contain one of `columns` (attnames).

    Constraints on expressions are not among them: what breaks one is found out by the database.
    """
    found = (Colliding(unique) for unique in uniques_of(model, using) if not unique.expressions)
    return [each for each in found if columns & {*each.columns}]


_APPLIES = "_applies_"


@dataclass(frozen=True)
class _Move:
    """One column of one row that will refer to the survivor."""

    reference: Reference
    old: Any
    new: Any
    survivor: Any


class _Stored:
    """The values by which a column refers to rows of the groups, and the keys of these rows; both ways."""

    def __init__(self, keys: Mapping[Any, Any]) -> None:
        self.keys = keys
        self.values = {key: value for value, key in keys.items()}


@dataclass
class _Row:
    """A row that refers to a row of a group. `surplus`: after the move it would equal another many-to-many row."""

    key: Any
    values: Mapping[str, Any]
    moves: Sequence[_Move]
    surplus: bool = False

    @property
    def moved_values(self) -> dict[str, Any]:
        """The values of the row after the move."""
        return {**self.values, **{each.reference.column.attname: each.new for each in self.moves}}

    @property
    def survivors(self) -> set[Any]:
        return {each.survivor for each in self.moves}


@dataclass(kw_only=True)
class Repointing:
    """The writes to the rows of one model, and the groups, by survivor, that they make impossible.

    refused: with the reason. busy: another session has locked a row of it.
    """

    model: type[Model]
    referring: Referring
    rows: Sequence[_Row] = ()
    refused: dict[Any, str] = field(default_factory=dict)
    busy: set[Any] = field(default_factory=set)

    def write(self, groups: Mapping[Any, Any], journal: Journal) -> Written:
        """Journal and write the moves of these groups, as other -> survivor."""
        survivors = {*groups.values()}
        # Also in rows that go themselves: InnoDB checks each as it is deleted, and not when all are gone.
        rows = [row for row in self.rows if row.survivors & survivors]
        surplus = [row.key for row in rows if row.surplus and row.survivors <= survivors]
        written = Written(delete=delete_rows(self.model, surplus, journal, using=self.referring.using))
        dropped = {*surplus}
        written.add(
            UPDATE, self._repoint([row for row in rows if row.key not in dropped], survivors, journal)
        )
        return written

    def _repoint(self, rows: Sequence[_Row], survivors: set[Any], journal: Journal) -> int:
        moves = [move for row in rows for move in row.moves if move.survivor in survivors]
        if not moves:
            return 0
        fields = list({move.reference.column.attname: move.reference.column for move in moves}.values())
        recorded = journal.record_before(self.model, fields, Keys([row.key for row in rows]))
        written = sum(self._update(some, survivors) for some in blocks(rows, CASES))
        completed = journal.record_after(self.model, fields)
        if not recorded == written == completed:
            raise ChunkConflictError(
                f"{self.model._meta.label}: of {recorded} rows {written} were updated; another session writes them."
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
            column.attname: first_true_branch(column, [*each.values()], using=using)
            for column, each in branches.items()
        }
        manager = self.model._base_manager.using(using)
        return manager.filter(Keys([row.key for row in rows]).on("pk")).update(**cases)


def examine_references(
    referring: Referring, groups: Mapping[Any, Any], *, lock: bool = True
) -> list[Repointing]:
    """Examine each referring model: the writes it needs so that `groups`, as other -> survivor, can be merged.

    lock: lock the rows to repoint, and tell which groups wait for other sessions.
    For each model one statement, one more where it has rows to repoint, which are then locked, and one for each
    reference by another column than the primary key.
    """
    return [
        _Examination(
            referring=referring, model=model, references=references, groups=groups, lock=lock
        ).examine()
        for model, references in referring.by_model().items()
    ]


@dataclass(frozen=True, kw_only=True)
class _Examination:
    """One referring model beside the groups to merge."""

    referring: Referring
    model: type[Model]
    references: Sequence[Reference]
    groups: Mapping[Any, Any]
    lock: bool

    def examine(self) -> Repointing:
        unique = unique_with(
            self.model, {each.column.attname for each in self.references}, self.referring.using
        )
        rows = self._rows(unique)
        found = Repointing(
            model=self.model, referring=self.referring, rows=[row for row in rows if row.moves]
        )
        for row in found.rows:
            for survivor, why in self._refuse(row):
                found.refused.setdefault(survivor, why)
        for number, each in enumerate(unique):
            self._collide(each, f"{_APPLIES}{number}", rows, found)
        if self.lock:
            found.busy.update(self._busy(found.rows))
        return found

    def _rows(self, unique: Sequence[Colliding]) -> list[_Row]:
        """Read the rows that refer to a row that goes; if they might collide, also rows that refer to one that stays."""
        members = Keys([*dict.fromkeys([*self.groups, *self.groups.values()])])
        stored = {each: _Stored(self.referring.values(each, members)) for each in self.references}
        condition = Q()
        for each, there in stored.items():
            sought = [value for value, key in there.keys.items() if unique or key in self.groups]
            condition |= self.referring.on(each, sought)
        rows = self.model._base_manager.using(self.referring.using).filter(condition).order_by("pk")
        applies = {f"{_APPLIES}{number}": each.applies for number, each in enumerate(unique)}
        columns = {name for each in unique for name in each.columns}
        for each in self.references:
            columns |= {each.column.attname} | ({each.kind.attname} if each.kind else set())
        listed = rows.annotate(**applies).values("pk", *columns - {"pk"}, *applies)
        return [_Row(values["pk"], values, [*self._moves(values, stored)]) for values in listed]

    def _moves(self, values: Mapping[str, Any], stored: Mapping[Reference, _Stored]) -> Iterator[_Move]:
        for each, there in stored.items():
            old = values[each.column.attname]
            of_kind = each.kind is None or values[each.kind.attname] in self.referring.kinds
            key = there.keys.get(old)
            if of_kind and key in self.groups:
                survivor = self.groups[key]
                yield _Move(each, old, there.values.get(survivor), survivor)

    def _refuse(self, row: _Row) -> Iterator[tuple[Any, str]]:
        """The groups that this row alone makes impossible."""
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
        if many_to_many_owner(self.model) and len(self.references) > 1:
            names = [each.column.attname for each in self.references]
            if len({row.moved_values[name] for name in names}) < len({row.values[name] for name in names}):
                for survivor in row.survivors:
                    yield survivor, f"{self.model._meta.label} {row.key} would connect it with itself."

    def _collide(self, unique: Colliding, applies: str, rows: Sequence[_Row], found: Repointing) -> None:
        """Mark moved rows that equal others as surplus, or refuse their groups."""
        judged = [row for row in rows if row.values[applies]]
        # What stays as it is comes first, so that of two the moved row is surplus.
        judged.sort(key=lambda row: bool(row.moves))
        by_key = {row.key: row for row in judged}
        for key, earlier in unique.find_collisions((row.key, row.moved_values) for row in judged):
            if many_to_many_owner(self.model):
                by_key[key].surplus = True
                continue
            names = ", ".join(unique.columns)
            for survivor in by_key[key].survivors | by_key[earlier].survivors:
                message = f"{self.model._meta.label} {key} would be the same as {earlier} in {names}, which is unique."
                found.refused.setdefault(survivor, message)

    def _busy(self, rows: Sequence[_Row]) -> Iterator[Any]:
        """The groups with a referring row that another session has locked, or has changed meanwhile."""
        if not rows or isinstance(self.model._meta.pk, CompositePrimaryKey):
            return
        names = list(dict.fromkeys(each.column.attname for each in self.references))
        wanted = self.model._base_manager.using(self.referring.using)
        wanted = wanted.filter(Keys([row.key for row in rows]).on("pk")).order_by("pk")
        free = {
            key: values
            for key, *values in dialect_of(self.referring.using)
            .lock_free_rows(wanted)
            .values_list("pk", *names)
        }
        for row in rows:
            if free.get(row.key) != [row.values[name] for name in names]:
                yield from row.survivors

    @property
    def _is_itself(self) -> bool:
        return self.model is self.referring.model


@dataclass(frozen=True)
class Merge(Remedy):
    """The row that stays takes over columns and references of its group. The others are journalled and deleted.

    Groups are merged whole, also where a chunk ends within one, so sums are over all their rows. A group of which
    another session holds a row, or a row that refers to one, is left for later. A group whose references would
    collide in a unique constraint of the model that refers is refused with a reason; only many-to-many rows that
    Django itself keeps are then deleted as the duplicates they have become.

    Nine statements a chunk, one for each model that refers, four more where rows of it are to be repointed, and
    one more for each 1,000 rows that one of them updates beyond the first. The keys of what refers to duplicates
    are held in memory.
    """

    verbs: ClassVar[Sequence[str]] = (DELETE, UPDATE)

    @property
    def bound(self) -> Bound:
        """What the survivors take over, and what refers to the others, is known as it is written."""
        return Bound.AT_LEAST

    def writes(self, finder: Finder) -> Iterable[Column]:
        """All columns of the rows, and the columns by which other rows refer to them."""
        relations = finder.model._meta.get_fields(include_hidden=True)
        fields = (each.field for each in relations if isinstance(each, ManyToOneRel))
        return columns_of(finder.model) | {(each.model, each.attname) for each in fields}

    def faults(self, drift: Drift, finder: Finder | None) -> Sequence[Fault]:
        """It serves a rule with `merge=` alone, and rows of one table."""
        if finder is None or not isinstance(finder.fix, Merging):
            hint = "Say how in BeUnique(…, merge={…}), or use Report()."
            return (Fault("reconcile.E012", f"Merge() does not mend this {drift} drift.", hint),)
        return list(deletion_faults("Merge()", finder.model))

    def refused(self, finder: Finder, keys: Keys) -> Mapping[Any, str]:
        """The rows of groups that what refers to them, or a value, keeps from being merged."""
        merging, using = finder.fix, finder.using
        if not isinstance(merging, Merging):
            return {}
        groups = {other: stays for other, stays in merging.members(keys) if other != stays}
        if not groups:
            return {}
        referring = Referring.to(finder.model, using)
        found = _referred_from_elsewhere(referring, groups)
        for each in examine_references(referring, groups, lock=False):
            found |= {survivor: why for survivor, why in each.refused.items() if survivor not in found}
        found |= _unfit_values(merging, _read_merged_values(merging, groups), using)
        wanted = {*keys.values}
        return {other: found[stays] for other, stays in groups.items() if stays in found and other in wanted}

    def spell(self, finder: Finder, keys: Keys) -> Iterator[WriteStep]:
        """What refers to the rows that go, the DELETE, and the UPDATE of the rows that stay."""
        merging, using = finder.fix, finder.using
        if not isinstance(merging, Merging):
            raise TypeError(f"{finder.drift} drift of {finder.model._meta.label} has nothing to merge.")
        groups = {other: stays for other, stays in merging.members(keys) if other != stays}
        refused = self.refused(finder, Keys([*groups]))
        groups = {other: stays for other, stays in groups.items() if other not in refused}
        yield from spell_refused(refused)
        yield spell_references(
            finder,
            "Read what refers to the rows that go, lock it, and update it to refer to the row that stays",
        )
        yield spell_delete(finder.model, [*groups], using=using)
        if taken := _read_merged_values(merging, groups):
            update = partial(_update_survivors, finder, merging, taken)
            yield WriteStep(
                "Update the rows that stay to the merged values.", first_write(update, using=using)
            )

    def write(self, finder: Finder, keys: Keys, journal: Journal) -> WriteResult:
        """Merge the whole groups of the rows of `keys`."""
        merging, using = finder.fix, finder.using
        if not isinstance(merging, Merging):
            raise TypeError(f"{finder.drift} drift of {finder.model._meta.label} has nothing to merge.")
        groups, waiting = _whole_groups(merging, keys, using)
        referring = Referring.to(finder.model, using) if groups else None
        repointings = examine_references(referring, groups) if referring else []
        refused = {survivor: why for each in reversed(repointings) for survivor, why in each.refused.items()}
        refused |= _referred_from_elsewhere(referring, groups) if referring else {}
        busy = {survivor for each in repointings for survivor in each.busy} - {*refused}
        busy |= _unseen(merging, groups)
        left = {other: stays for other, stays in groups.items() if stays not in busy and stays not in refused}
        taken = _read_merged_values(merging, left)
        unfit = _unfit_values(merging, taken, using)
        refused |= unfit
        left = {other: stays for other, stays in left.items() if stays not in unfit}
        taken = {stays: values for stays, values in taken.items() if stays not in unfit}
        written = Written()
        for each in repointings:
            written += each.write(left, journal)
        written.add(DELETE, delete_rows(finder.model, [*left], journal, using=using))
        # Last, when the rows are gone whose values the one that stays may take in a unique column.
        written.add(UPDATE, _take_over(finder, merging, taken, journal))
        return WriteResult(
            written=written,
            waiting=[*waiting, *(key for key in keys.values if groups.get(key) in busy)],
            refused={key: refused[groups[key]] for key in keys.values if groups.get(key) in refused},
            keys=[key for key in keys.values if key in left],
        )


def _referred_from_elsewhere(referring: Referring, groups: Mapping[Any, Any]) -> dict[Any, str]:
    """The survivors of groups with a row that a table refers to which no model declares, so that nothing can be repointed."""
    found = {}
    for each in referring.undeclared:
        for key in referring.referred_by(each, Keys([*groups])):
            found[groups[key]] = (
                f"Rows of the table {each.table}, which no model declares, refer to {key} by {', '.join(each.columns)}. "
                "Point them to the one that stays, or delete them, and repair again."
            )
    return found


def _unseen(merging: Merging, groups: Mapping[Any, Any]) -> set[Any]:
    """The survivors of groups with a row that no second run has confirmed. One statement, none without confirmation."""
    if merging.deletable is None or not groups:
        return set()
    free = {*merging.deletable([*groups])}
    return {stays for other, stays in groups.items() if other not in free}


def _whole_groups(merging: Merging, keys: Keys, using: str) -> tuple[dict[Any, Any], list[Any]]:
    """Lock the whole groups of `keys`, as other -> survivor; groups with a row that another session has locked are left out.

    And those of `keys` that drift in a group of which another session holds a row. Three statements.
    """
    locked = {*lock_rows(merging.model, dict(merging.members(keys)), using=using).values}
    now = dict(merging.members(keys))
    busy = {survivor for member, survivor in now.items() if member not in locked}
    others = {member: survivor for member, survivor in now.items() if member != survivor}
    free = {member: survivor for member, survivor in others.items() if survivor not in busy}
    return free, [key for key in keys.values if others.get(key) in busy]


def _read_merged_values(merging: Merging, groups: Mapping[Any, Any]) -> dict[Any, Sequence[Any]]:
    """Read the merged values of the rows that stay, if they differ. One statement."""
    if not merging.fields or not groups:
        return {}
    rows = merging.wanted(Keys([*dict.fromkeys([*groups, *groups.values()])]))
    taken = {key: values for key, *values in rows}
    if not {*taken} <= {*groups.values()}:
        raise ChunkConflictError(f"{rows.model._meta.label}: another row than before would stay.")
    return taken


def _unfit_values(merging: Merging, taken: Mapping[Any, Sequence[Any]], using: str) -> dict[Any, str]:
    """The survivors whose merged values don't fit their columns, each with the reason: SQLite would keep what Django can't read."""
    return {
        stays: f"The merged value is too large for {field.name!r}."
        for stays, values in taken.items()
        for field, value in zip(merging.fields, values, strict=True)
        if not fits(field, value, using)
    }


def _take_over(finder: Finder, merging: Merging, taken: Mapping[Any, Sequence[Any]], journal: Journal) -> int:
    """Journal and update the rows that stay. Three statements, and one more for each further 1,000 rows."""
    if not taken:
        return 0
    model = finder.model
    recorded = journal.record_before(model, merging.fields, Keys([*taken]))
    written = _update_survivors(finder, merging, taken)
    completed = journal.record_after(model, merging.fields)
    if not recorded == written == completed:
        raise ChunkConflictError(f"{model._meta.label}: of {recorded} rows that stay {written} were updated.")
    return written


def _update_survivors(finder: Finder, merging: Merging, taken: Mapping[Any, Sequence[Any]]) -> int:
    model, written = finder.model, 0
    for some in blocks([*taken], CASES):
        values = {
            field.attname: first_true_branch(
                field, [(Q(pk=key), taken[key][place]) for key in some], using=finder.using
            )
            for place, field in enumerate(merging.fields)
        }
        written += model._base_manager.using(finder.using).filter(Keys(some).on("pk")).update(**values)
    return written
