"""`watching`: what the bulk calls of a block have written is noted, and brought into being at its end what that owes; or only checked.

The bulk calls are Django's own: `bulk_create`, `bulk_update`, `update`, what is written to a many-to-many field, and deletes of rows at once. SQL of one's
own is not seen, and neither is what another thread writes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from inspect import signature
from typing import Any

from django.db import DEFAULT_DB_ALIAS, router
from django.db.models import Model, Q, QuerySet

from reconcile.core.scopes import blocks
from reconcile.db.columns import concrete_model, stored_field
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import (
    Collector,
    collected_keys,
    explicit_alias,
    is_generic_relation,
    many_to_many_owner,
    private_fields,
    referred_field,
)
from reconcile.detect.checking import evaluation_errors
from reconcile.errors import EnsureError
from reconcile.rules.rule import Rule
from reconcile.runs.ensuring import Ensured, ensure_given
from reconcile.runs.given import Given
from reconcile.runs.looking import LookResult, look_at

__all__ = ["Watched", "watching"]


@dataclass(kw_only=True)
class Watched:
    """What a block has written in bulk. written, created: keys of rows by model; those that were created are among both.

    parents: rows to which deleted ones referred. keyless: by model and reason, rows that were written and whose keys nobody knows. ensured, found: at
    the end of the block, what was ensured, or what a check has found.
    """

    written: dict[type[Model], dict[Any, None]] = field(default_factory=lambda: defaultdict(dict))
    created: dict[type[Model], dict[Any, None]] = field(default_factory=lambda: defaultdict(dict))
    parents: dict[type[Model], dict[Any, None]] = field(default_factory=lambda: defaultdict(dict))
    keyless: Counter[tuple[type[Model], str]] = field(default_factory=Counter)
    ensured: Ensured | None = None
    found: LookResult | None = None

    @property
    def keys(self) -> dict[type[Model], list[Any]]:
        """All keys of which something may be owed, by model."""
        models = {*self.written, *self.parents}
        found = {model: [*{**self.written.get(model, {}), **self.parents.get(model, {})}] for model in models}
        return {model: keys for model, keys in found.items() if keys}

    def note(self, kind: str, model: type[Model], keys: Iterable[Any]) -> None:
        """Note keys as `written`, `created` or `parents`, as the database has them."""
        model = concrete_model(model)
        as_stored = stored_field(model._meta.pk).to_python
        found = dict.fromkeys(map(as_stored, keys))
        if found:
            getattr(self, kind)[model].update(found)


_now: ContextVar[tuple[tuple[Watched, str], ...]] = ContextVar("reconcile_watched", default=())
"""The blocks around, each with its database, the outermost first."""


@contextmanager
def watching(
    rules: Sequence[Rule | str] | None = None, *, only_check: bool = False, using: str = DEFAULT_DB_ALIAS
) -> Iterator[Watched]:
    """A transaction at whose end is ensured what the bulk calls in it have written: for an import that nobody wants to read line by line.

    rules: rules, or their names; unless given, all rules of the project that read what was written. only_check: nothing is written; `found` of what
    is yielded then has the drift. using: the database; what is written to another is not watched.

    Costs a statement more for each `update()`, which asks first for the keys of its rows, and one for each foreign key of what is deleted at once. The keys are held in memory.

    Raises what `ensure` raises; EnsureError if keys of new rows are not known, as after `bulk_create(ignore_conflicts=True)`. The transaction is gone then.
    """
    _patch()
    watched = Watched()
    with dialect_of(using).writing_transaction():
        token = _now.set((*_now.get(), (watched, using)))
        try:
            yield watched
        finally:
            _now.reset(token)
        _end(watched, rules, using, only_check=only_check)


def _end(watched: Watched, rules: Sequence[Rule | str] | None, using: str, *, only_check: bool) -> None:
    if watched.keyless:
        raise EnsureError(
            "What new or changed rows owe can't be told, since nobody knows which these are. "
            + " ".join(
                f"{number:,} {model._meta.label}: {why}" for (model, why), number in watched.keyless.items()
            )
            + " Or ensure a queryset of them yourself, outside of the block."
        )
    given = Given(watched.keys, using)
    if not given.keys:
        return
    with evaluation_errors(using):
        if only_check:
            watched.found = look_at(given, rules, repair=False, of_any_age=True)
        else:
            watched.ensured = ensure_given(given, rules, new=watched.created)


# What is noted.


def _patch() -> None:
    """Put what notes in place of what writes, and leave it there: a method that is put back would be another's, where threads overlap."""
    for holder, noted in ((QuerySet, _NOTED), (Collector, {"delete": _cascaded})):
        for name, instead in noted.items():
            original = getattr(holder, name)
            # Somebody else may have put back what stood there before.
            if not hasattr(original, "notes_for_watching"):
                setattr(holder, name, _noting(original, instead))


def _noting(original: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def write(rows: Any, /, *args: Any, **kwargs: Any) -> Any:
        home = _home_of(rows) if _now.get() else ""
        blocks_around = [watched for watched, using in _now.get() if using == home]
        if not blocks_around:
            return original(rows, *args, **kwargs)
        call = _Call(blocks_around, home, original)
        return instead(call, rows, *args, **kwargs)

    write.notes_for_watching = True  # type: ignore[attr-defined]
    return write


@dataclass(frozen=True)
class _Call:
    """One call that writes. watched: the blocks around it on its database."""

    watched: Sequence[Watched]
    home: str
    original: Callable[..., Any]

    def write(self, rows: Any, /, *args: Any, **kwargs: Any) -> Any:
        """What Django does. What it writes for this call is part of it, and is not noted again."""
        token = _now.set(())
        try:
            return self.original(rows, *args, **kwargs)
        finally:
            _now.reset(token)

    def note(self, kind: str, model: type[Model], keys: Iterable[Any]) -> None:
        """Note it in each block."""
        listed = [*keys]
        for each in self.watched:
            each.note(kind, model, listed)

    def lose(self, model: type[Model], number: int, why: str) -> None:
        """Note rows whose keys nobody knows."""
        for each in self.watched:
            each.keyless[concrete_model(model), why] += number


def _home_of(rows: Any) -> str:
    """The database that a write of these rows goes to."""
    if isinstance(rows, Collector):
        return str(rows.using)
    return explicit_alias(rows) or router.db_for_write(rows.model)


_LEAVE_OUT = "Leave out ignore_conflicts."
_NO_UNIQUE = "Say unique_fields= with update_conflicts, where the database takes it."
_MEANWHILE = "Another session has written rows meanwhile that the update() met as well. Try it again."


def _created(call: _Call, rows: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
    given = _BULK_CREATE.bind(rows, *args, **kwargs).arguments
    if given.get("update_conflicts"):
        return _created_or_updated(call, rows, given)
    made = call.write(rows, *args, **kwargs)
    model = concrete_model(rows.model)
    known = [each.pk for each in made if each.pk is not None]
    call.note("written", model, known)
    if not given.get("ignore_conflicts"):
        call.note("created", model, known)
    if keyless := [each for each in made if each.pk is None]:
        if many_to_many_owner(model) is not None:
            call.note("written", model, _between(model, keyless, call.home))
        else:
            call.lose(model, len(keyless), _LEAVE_OUT)
    return made


_BULK_CREATE = signature(QuerySet.bulk_create)


def _created_or_updated(call: _Call, rows: QuerySet[Any], given: Mapping[str, Any]) -> Any:
    """Rows that are there already are told by what must be unique: before, for the parents that they leave, and after, for their keys."""
    listed = [*given["objs"]]
    unique = [rows.model._meta.get_field(name).attname for name in given.get("unique_fields") or ()]
    met = [_met(rows.model, unique, block, call.home) for block in blocks(listed, 500)] if unique else []
    for each in met:
        _note_parents(call, each, list(given.get("update_fields") or ()))
    named = {name: value for name, value in given.items() if name not in {"self", "objs"}}
    made = call.write(rows, listed, **named)
    for each in met:
        call.note("written", rows.model, each.values_list("pk", flat=True))
    if listed and not met:
        call.lose(rows.model, len(listed), _NO_UNIQUE)
    return made


def _met(model: type[Model], unique: Sequence[str], objs: Sequence[Model], using: str) -> QuerySet[Any]:
    """The rows that have what these have in the columns that must be unique."""
    if len(unique) == 1:
        wanted = Q(**{f"{unique[0]}__in": [getattr(each, unique[0]) for each in objs]})
    else:
        wanted = Q()
        for each in objs:
            wanted |= Q(**{name: getattr(each, name) for name in unique})
    return model._base_manager.using(using).filter(wanted)


def _between(model: type[Model], rows: Sequence[Model], using: str) -> Iterator[Any]:
    """The keys of rows of a many-to-many field that link any of these, since `add()` is given none of them. One statement for each 5,000."""
    names = [each.attname for each in model._meta.concrete_fields if each.is_relation]
    for block in blocks(rows):
        values = {f"{name}__in": {getattr(each, name) for each in block} for name in names}
        yield from model._base_manager.using(using).filter(**values).values_list("pk", flat=True)


def _updated_each(call: _Call, rows: QuerySet[Any], objs: Any, fields: Any, *args: Any, **kwargs: Any) -> Any:
    listed, names = tuple(objs), tuple(fields)
    keys = [each.pk for each in listed]
    for block in blocks(keys):
        _note_parents(call, rows.model._base_manager.using(call.home).filter(pk__in=block), names)
    call.note("written", rows.model, (each for each in keys if each is not None))
    return call.write(rows, listed, names, *args, **kwargs)


def _updated(call: _Call, rows: QuerySet[Any], /, **values: Any) -> Any:
    there = rows.using(call.home)
    keys = [*dict.fromkeys(there.order_by().values_list("pk", flat=True))]
    _note_parents(call, there, [*values])
    call.note("written", rows.model, keys)
    number = call.write(rows, **values)
    if number > len(keys):
        call.lose(rows.model, number - len(keys), _MEANWHILE)
    return number


def _deleted(call: _Call, rows: QuerySet[Any], using: str) -> Any:
    _note_parents(call, rows.using(using), None)
    return call.write(rows, using)


def _cascaded(call: _Call, collector: Collector) -> Any:
    """Rows that Django has read to delete them: of a queryset, and those that go along. A record that is deleted itself has its signals."""
    for model, keys in collected_keys(collector):
        for block in blocks(keys):
            _note_parents(call, model._base_manager.using(call.home).filter(pk__in=block), None)
    # What it deletes unread, and what it sets to NULL, are calls of their own.
    return call.original(collector)


def _note_parents(call: _Call, rows: QuerySet[Any], fields: Sequence[str] | None) -> None:
    """Note the rows to which these refer now, by these foreign keys or by all, generic ones too: they are about to lose them. One statement for each kind, or none."""
    keys = [
        each
        for each in rows.model._meta.concrete_fields
        if referred_field(each) is not None and (fields is None or {each.name, each.attname} & {*fields})
    ]
    found = [*rows.order_by().values_list(*(each.attname for each in keys)).distinct()] if keys else []
    for place, each in enumerate(keys):
        target: Any = referred_field(each)
        values = {row[place] for row in found} - {None}
        call.note("parents", target.model, _keys_of(target, values, call.home))
    generic = (
        each
        for each in private_fields(rows.model)
        if hasattr(each, "ct_field") and not is_generic_relation(each)
    )
    for each in generic:
        if fields is None or {each.ct_field, f"{each.ct_field}_id", each.fk_field} & {*fields}:
            _note_owners(call, rows, each)


def _note_owners(call: _Call, rows: QuerySet[Any], key: Any) -> None:
    """Note what a generic foreign key refers to now."""
    by_kind: dict[Any, list[Any]] = defaultdict(list)
    for kind, owner in rows.order_by().values_list(f"{key.ct_field}_id", key.fk_field).distinct():
        by_kind[kind].append(owner)
    types: Any = rows.model._meta.get_field(key.ct_field).related_model
    for kind in types._base_manager.using(call.home).filter(
        pk__in=[each for each in by_kind if each is not None]
    ):
        model, owners = kind.model_class(), by_kind[kind.pk]
        if model is not None:
            call.note("parents", model, (each for each in owners if each is not None))


def _keys_of(target: Any, values: set[Any], using: str) -> Iterator[Any]:
    """The primary keys of the rows that have these values in a column that is referred to."""
    if target.primary_key:
        yield from values
        return
    for block in blocks([*values]):
        rows = target.model._base_manager.using(using).filter(**{f"{target.attname}__in": block})
        yield from rows.values_list("pk", flat=True)


_NOTED: Mapping[str, Callable[..., Any]] = {
    "bulk_create": _created,
    "bulk_update": _updated_each,
    "update": _updated,
    "_raw_delete": _deleted,
}
