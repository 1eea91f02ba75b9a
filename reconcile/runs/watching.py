"""`watching`: what the bulk calls of a block have written is noted, and brought into being at its end what that owes; or only checked.

The bulk calls are Django's own: `bulk_create`, `bulk_update`, `update`, what is written to a many-to-many field, and deletes of rows at once. SQL of one's
own is not seen, and neither is what another thread writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from django.db import DEFAULT_DB_ALIAS, router
from django.db.models import Model, QuerySet

from reconcile.core.scopes import blocks
from reconcile.db.columns import concrete_model
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import explicit_alias, many_to_many_owner, referred_field
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

    parents: rows to which deleted ones referred. keyless: rows that were created and whose keys the database has not given back, by model. ensured, found: at
    the end of the block, what was ensured, or what a check has found.
    """

    written: dict[type[Model], dict[Any, None]] = field(default_factory=lambda: defaultdict(dict))
    created: dict[type[Model], dict[Any, None]] = field(default_factory=lambda: defaultdict(dict))
    parents: dict[type[Model], dict[Any, None]] = field(default_factory=lambda: defaultdict(dict))
    keyless: dict[type[Model], int] = field(default_factory=lambda: defaultdict(int))
    ensured: Ensured | None = None
    found: LookResult | None = None

    @property
    def keys(self) -> dict[type[Model], list[Any]]:
        """All keys of which something may be owed, by model."""
        models = {*self.written, *self.parents}
        found = {model: [*{**self.written.get(model, {}), **self.parents.get(model, {})}] for model in models}
        return {model: keys for model, keys in found.items() if keys}

    @property
    def is_new(self) -> bool:
        """Whether nothing but new rows was written, which nobody else can see."""
        return not self.parents and all(
            {*keys} == {*self.created.get(model, ())} for model, keys in self.written.items()
        )


_now: ContextVar[tuple[Watched, str] | None] = ContextVar("reconcile_watched", default=None)


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
        token = _now.set((watched, using))
        try:
            yield watched
        finally:
            _now.reset(token)
        _end(watched, rules, using, only_check=only_check)


def _end(watched: Watched, rules: Sequence[Rule | str] | None, using: str, *, only_check: bool) -> None:
    if watched.keyless:
        named = ", ".join(f"{number:,} {model._meta.label}" for model, number in watched.keyless.items())
        raise EnsureError(
            f"The database has not given back the keys of new rows ({named}), so what they owe can't be told. Leave out ignore_conflicts, or ensure a "
            "queryset of them yourself."
        )
    given = Given(watched.keys, using)
    if not given.keys:
        return
    with evaluation_errors(using):
        if only_check:
            watched.found = look_at(given, rules, repair=False, of_any_age=True)
        else:
            watched.ensured = ensure_given(given, rules, new=watched.is_new)


# What is noted.


def _patch() -> None:
    """Put what notes in place of what writes, and leave it there: a method that is put back would be another's, where threads overlap."""
    for name, instead in _NOTED.items():
        original = getattr(QuerySet, name)
        # Somebody else may have put back what stood there before.
        if not hasattr(original, "notes_for_watching"):
            setattr(QuerySet, name, _noting(original, instead))


def _noting(original: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def write(rows: QuerySet[Any], /, *args: Any, **kwargs: Any) -> Any:
        now = _now.get()
        if now is None or _home_of(rows) != now[1]:
            return original(rows, *args, **kwargs)
        # What Django writes for this call is part of it.
        token = _now.set(None)
        try:
            return instead(now[0], original, rows.using(now[1]), *args, **kwargs)
        finally:
            _now.reset(token)

    write.notes_for_watching = True  # type: ignore[attr-defined]
    return write


def _home_of(rows: QuerySet[Any]) -> str:
    """The database that a write of these rows goes to."""
    return explicit_alias(rows) or router.db_for_write(rows.model)


def _created(
    watched: Watched, original: Callable[..., Any], rows: QuerySet[Any], objs: Any, *args: Any, **kwargs: Any
) -> Any:
    made = original(rows, objs, *args, **kwargs)
    model = concrete_model(rows.model)
    known = {each.pk: None for each in made if each.pk is not None}
    watched.written[model] |= known
    if not (kwargs.get("ignore_conflicts") or kwargs.get("update_conflicts")):
        watched.created[model] |= known
    if len(known) < len(made):
        keyless = [each for each in made if each.pk is None]
        if many_to_many_owner(model) is not None:
            watched.written[model] |= dict.fromkeys(_between(model, keyless, rows.db))
        else:
            watched.keyless[model] += len(keyless)
    return made


def _between(model: type[Model], rows: Sequence[Model], using: str) -> Iterator[Any]:
    """The keys of rows of a many-to-many field that link any of these, since `add()` is given none of them. One statement for each 5,000."""
    names = [each.attname for each in model._meta.concrete_fields if each.is_relation]
    for block in blocks(rows):
        values = {f"{name}__in": {getattr(each, name) for each in block} for name in names}
        yield from model._base_manager.using(using).filter(**values).values_list("pk", flat=True)


def _updated_each(
    watched: Watched, original: Callable[..., Any], rows: QuerySet[Any], objs: Any, fields: Any, *args: Any, **kwargs: Any
) -> Any:  # fmt: skip
    listed = tuple(objs)
    model = rows.model
    for block in blocks([each.pk for each in listed]):
        _note_parents(watched, model._base_manager.using(rows.db).filter(pk__in=block), [*fields])
    watched.written[concrete_model(model)] |= {each.pk: None for each in listed}
    return original(rows, listed, fields, *args, **kwargs)


def _updated(watched: Watched, original: Callable[..., Any], rows: QuerySet[Any], /, **values: Any) -> Any:
    keys = dict.fromkeys(rows.order_by().values_list("pk", flat=True))
    _note_parents(watched, rows, [*values])
    watched.written[concrete_model(rows.model)] |= keys
    return original(rows, **values)


def _deleted(watched: Watched, original: Callable[..., Any], rows: QuerySet[Any], using: str) -> Any:
    _note_parents(watched, rows, None)
    return original(rows, using)


def _note_parents(watched: Watched, rows: QuerySet[Any], fields: Sequence[str] | None) -> None:
    """Note the rows to which these refer now, by these foreign keys or by all: they are about to lose them. One statement, or none."""
    keys = [
        each
        for each in rows.model._meta.concrete_fields
        if referred_field(each) is not None and (fields is None or {each.name, each.attname} & {*fields})
    ]
    if not keys:
        return
    found = [*rows.order_by().values_list(*(each.attname for each in keys)).distinct()]
    for place, each in enumerate(keys):
        target: Any = referred_field(each)
        values = {row[place] for row in found} - {None}
        parents = watched.parents[concrete_model(target.model)]
        parents |= dict.fromkeys(_keys_of(target, values, rows.db))


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
