"""Saves existing records after columns were disturbed, and sees which of them the saves put right. All is rolled back.

On consistent data a save changes nothing that one could see. So before it the column gets a value that it can't have; where that is gone after the save, an effect has
written the column, and what stands there now is what it says.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django.db import connections
from django.db.models import BooleanField, Field, ForeignKey, JSONField, Model, UUIDField
from django.utils import timezone

from reconcile.audit.capture.capturing import kept_to
from reconcile.audit.chosen import choose_rows
from reconcile.audit.cost.classes import Presence, features_of
from reconcile.audit.drafts.candidates import children_of
from reconcile.audit.muting import save_muted
from reconcile.audit.raw_sql import Verb, is_writing, writes_of
from reconcile.audit.resolver.relations import Registry
from reconcile.audit.rolling_back import CommittedError, rolled_back
from reconcile.audit.shut import Outside, shut_outside
from reconcile.db.columns import concrete_model
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import flat_choices
from reconcile.errors import with_type

__all__ = ["MOST_SAVED", "SENTINEL", "Observer", "Seen", "Target"]

MOST_SAVED = 20
"""Records of a model that are saved for each column."""
NEAR = 10
"""Rows of one relation that are looked at."""
MOST_CHOICES = 4
"""Choices that are put into a column, one after the other."""
HOPS = 2
SENTINEL = {"reconcile": 1}
"""The document that is put in place of one."""


@dataclass(frozen=True)
class Target:
    """A column that saves may write: the model of its rows, and its name."""

    model: type[Model]
    column: str

    @property
    def field(self) -> Any:
        """The field of the column."""
        return self.model._meta.get_field(self.column)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One row whose column was disturbed before a save. written: the save has put something else there, which is `value`. is_own: it is the record that was saved. facts:
    choices, truths and NULLs of the row and of those that it refers to.
    """

    key: Any
    written: bool
    is_own: bool
    value: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)


Judge = Callable[[Any], Any]
"""Called with the key of a row that was written, while it stands."""


class Observer:
    """Saves records of one model. faults: by record, why a save failed. on_commit, outside: what was kept from the world."""

    def __init__(self, model: type[Model], using: str) -> None:
        self.model, self.using = concrete_model(model), using
        self.registry = Registry()
        self.outside = Outside()
        self.faults: dict[str, str] = {}
        self.saves = 0
        self._effects_write: dict[type[Model], set[str]] = defaultdict(set)
        self.rows = self._rich_first(choose_rows(model, using, at_least=MOST_SAVED).rows)

    def _rich_first(self, rows: Sequence[Model]) -> list[Model]:
        """Those with most rows that refer to them first: what is computed of one row alone tells little."""
        children = children_of(self.model)

        def riches(row: Model) -> int:
            counts = (
                each.model._base_manager.using(self.using).filter(**{each.key: row.pk})[:NEAR].count() for each in children
            )  # fmt: skip
            filled = sum(getattr(row, each.attname) is not None for each in row._meta.concrete_fields)
            return sum(counts) + filled

        return sorted(rows, key=riches, reverse=True)

    def targets(self) -> list[Target]:
        """The columns that may be written: those of the record itself, and of other rows those that a statement of an effect names."""
        own = [
            Target(self.model, each.name)
            for each in self.model._meta.concrete_fields
            if _can_be_disturbed(each)
        ]
        others: dict[Target, None] = {}
        for row in self.rows:
            others |= dict.fromkeys(self._written_by(row))
        for each in others:
            self._effects_write[each.model].add(each.column)
        return [*dict.fromkeys([*own, *others])]

    def _written_by(self, row: Model) -> Iterator[Target]:
        found: list[Counter[tuple[str, str]]] = []
        for save in (
            lambda each: save_muted(each, using=self.using),
            lambda each: each.save(using=self.using),
        ):
            written: Counter[tuple[str, str]] = Counter()
            with self._kept(row), self._noting(written):
                save(deepcopy(row))
            found.append(written)
        if len(found) == 2:  # noqa: PLR2004 - in silence, and with effects
            for table, column in found[1] - found[0]:
                model = self.registry.model_of_table(table)
                fields = {str(each.column): each for each in model._meta.concrete_fields} if model else {}
                if column in fields and model is not None and _can_be_disturbed(fields[column]):
                    yield Target(concrete_model(model), fields[column].name)

    @contextmanager
    def _noting(self, written: Counter[tuple[str, str]]) -> Iterator[None]:
        vendor = connections[self.using].vendor

        def note(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001
            if is_writing(str(sql)):
                for each in writes_of(str(sql), vendor) or ():
                    if each.verb is Verb.UPDATE:
                        written.update((each.table, column) for column in each.columns)
            return execute(sql, params, many, context)

        with connections[self.using].execute_wrapper(note):
            yield

    def observe(self, row: Model, target: Target, judge: Judge, beside: Sequence[Target] = ()) -> list[Seen]:
        """Disturb the column of the record, or of the rows near it, save the record, and say what has become of it.

        judge: is called for each row that was written. beside: other columns of the same rows that are disturbed as well, since an effect may ask for these.
        """
        found: list[Seen] = []
        for turn in range(min(len(flat_choices(target.field)), MOST_CHOICES) or 1):
            if target.model is self.model and not beside:
                found += self._own(row, target, judge, turn)
            found += self._others(row, target, judge, beside, turn)
        return found

    def _own(self, row: Model, target: Target, judge: Judge, turn: int) -> list[Seen]:
        disturbed = deepcopy(row)
        sentinel = _other_than(target.field, getattr(row, target.field.attname), turn)
        setattr(disturbed, target.field.attname, sentinel)
        found: list[Seen] = []
        of_django: Any = None
        with self._kept(row):
            before = deepcopy(disturbed)
            save_muted(before, using=self.using)
            of_django = self._read(target, [row.pk]).get(row.pk)
        if not _is(of_django, sentinel):
            # A field that makes its own value, such as auto_now.
            return []
        with self._kept(row):
            disturbed.save(using=self.using)
            found += self._compared(target, {row.pk: sentinel}, judge, is_own=True)
        return found

    def _others(
        self, row: Model, target: Target, judge: Judge, beside: Sequence[Target], turn: int
    ) -> list[Seen]:
        keys = [each for each in self._near(row, target.model) if target.model is not self.model or each != row.pk]  # fmt: skip
        if not keys or target.field.unique:
            return []
        found: list[Seen] = []
        with self._kept(row):
            for each in beside:
                self._disturb(each, keys, turn)
            sentinels = self._disturb(target, keys, turn)
            fresh = self._rows(self.model).get(pk=row.pk)
            fresh.save(using=self.using)
            found += self._compared(target, sentinels, judge, is_own=False)
        return found

    def _disturb(self, target: Target, keys: Sequence[Any], turn: int) -> dict[Any, Any]:
        """Put into the column of these rows what it doesn't hold. Returns it, by row."""
        there = self._read(target, keys)
        sentinels = {key: _other_than(target.field, value, turn) for key, value in there.items()}
        for key, value in sentinels.items():
            self._rows(target.model).filter(pk=key).update(**{target.field.attname: value})
        return sentinels

    def _compared(self, target: Target, sentinels: Mapping[Any, Any], judge: Judge, *, is_own: bool) -> Iterator[Seen]:  # fmt: skip
        for key, value in self._read(target, [*sentinels]).items():
            written = not _is(value, sentinels[key])
            if written:
                judge(key)
            yield Seen(
                key=key,
                written=written,
                is_own=is_own,
                value=value,
                facts=self._facts(target, key, sentinels[key]),
            )

    def _facts(self, target: Target, key: Any, sentinel: Any) -> Mapping[str, Any]:
        row = self._rows(target.model).get(pk=key)
        found = features_of(row)
        for name in {target.column, *self._effects_write[target.model]}:
            # Whether a column is NULL that effects write follows from them, and is no reason.
            if name == target.column or isinstance(found.get(name), Presence):
                found.pop(name, None)
        if target.field.choices:
            # What it had been before the save may be what an effect asks for.
            found[target.column] = sentinel
        for each in (one for one in target.model._meta.concrete_fields if isinstance(one, ForeignKey)):
            parent = self._rows(each.related_model).filter(pk=getattr(row, each.attname)).first()
            if parent is not None and each.name != target.column:
                found |= {f"{each.name}__{name}": value for name, value in features_of(parent).items()}
        return found

    def _near(self, row: Model, wanted: type[Model]) -> list[Any]:
        """The keys of rows that foreign keys lead to, there and back, in two steps."""
        found: dict[Any, None] = {}
        reached: dict[type[Model], set[Any]] = {self.model: {row.pk}}
        for _ in range(HOPS):
            new: dict[type[Model], set[Any]] = defaultdict(set)
            for model, keys in reached.items():
                for other, others in self._related(model, [*keys][:NEAR]):
                    new[other] |= {*others}
            for model, keys in new.items():
                if model is wanted:
                    found |= dict.fromkeys(sorted(keys, key=str))
            reached = new
        return [*found][:NEAR]

    def _related(
        self, model: type[Model], keys: Sequence[Any]
    ) -> Iterator[tuple[type[Model], Sequence[Any]]]:
        rows = self._rows(model).filter(pk__in=keys)
        for each in (one for one in model._meta.concrete_fields if isinstance(one, ForeignKey)):
            values = rows.exclude(**{each.attname: None}).values_list(each.attname, flat=True)
            yield concrete_model(each.related_model), [*values]
        for child in self.registry.models:
            for each in (one for one in child._meta.concrete_fields if isinstance(one, ForeignKey)):
                if each.related_model is model and not child._meta.proxy:
                    found = self._rows(child).filter(**{f"{each.attname}__in": keys}).order_by("-pk")
                    yield concrete_model(child), [*found.values_list("pk", flat=True)[:NEAR]]

    def _read(self, target: Target, keys: Sequence[Any]) -> dict[Any, Any]:
        rows = self._rows(target.model).filter(pk__in=keys)
        return dict(rows.values_list("pk", target.field.attname))

    def _rows(self, model: Any) -> Any:
        return model._base_manager.using(self.using)

    @contextmanager
    def _kept(self, row: Model) -> Iterator[None]:
        """Roll back what is done to the record, and let nothing out. A save that fails is noted, and what comes after it in the block isn't done."""
        self.saves += 1
        try:
            with (
                rolled_back(self.using, f"The save of {row._meta.label} {row.pk}"),
                shut_outside(self.using, self.outside),
                kept_to(self.using),
            ):
                yield
                dialect_of(self.using).check_references()
        except CommittedError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the project's code
            self.faults[f"{row._meta.label} {row.pk}"] = with_type(error)


def _can_be_disturbed(each: Field[Any, Any]) -> bool:
    if each.primary_key or getattr(each, "generated", False):
        return False
    # A row that refers to itself, or in a circle, may be saved for ever.
    is_circle = isinstance(each, ForeignKey) and each.related_model is each.model
    return not is_circle and not (isinstance(each, ForeignKey) and not each.null)


def _is(value: Any, other: Any) -> bool:
    """Whether the column holds the value that was put there, as far as its type can hold it."""
    if isinstance(value, Decimal) and other is not None:
        return value == Decimal(other)
    return bool(value == other)


def _other_than(each: Field[Any, Any], value: Any, turn: int) -> Any:
    """A value that the column can hold and doesn't. Of choices one after the other, for an effect may ask which it is.

    A foreign key that is NULL stays so: which row it may refer to isn't known.
    """
    if isinstance(each, ForeignKey):
        return None
    if choices := [one for one, _ in flat_choices(each) if one not in {value, None, ""}]:
        return choices[turn % len(choices)]
    if isinstance(each, BooleanField):
        return not value
    if isinstance(each, JSONField):
        return dict(SENTINEL)
    if isinstance(each, UUIDField):
        return uuid4()
    return _shifted(each, value)


def _shifted(each: Field[Any, Any], value: Any) -> Any:
    kind: Any = each.get_internal_type()
    if "Integer" in kind:
        return 7 if value != 7 else 8  # noqa: PLR2004
    if kind in {"DecimalField", "FloatField"}:
        made = Decimal("7.5") if getattr(each, "decimal_places", 1) else Decimal(7)
        made = made if value != made else made + 1
        return made if kind == "DecimalField" else float(made)
    if kind in {"DateTimeField", "DateField", "TimeField"}:
        return _moved(kind, value)
    if kind == "DurationField":
        return timedelta(days=77)
    text = "~reconcile~"[: each.max_length or 20]
    return text if value != text else text[::-1] + "x"


def _moved(kind: str, value: Any) -> Any:
    if kind == "TimeField":
        return time(7, 7, 7) if value != time(7, 7, 7) else time(8, 8, 8)
    if value is None:
        now = timezone.now() - timedelta(days=7_777)
        return now if kind == "DateTimeField" else now.date()
    moved: datetime | date = value - timedelta(days=777)
    return moved
