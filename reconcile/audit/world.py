"""The running project beside its files, as digests: models, receivers, what names of modules hold. Where these are as they were, the source means what it meant."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.db import connections
from django.db.models import Manager, Model, QuerySet

from reconcile.audit.effects import effects_of
from reconcile.audit.places import name_of
from reconcile.audit.raw_sql import can_parse
from reconcile.audit.resolver.live import held_in
from reconcile.audit.resolver.relations import Registry
from reconcile.db.django_compat import admin_pages, referred_field

__all__ = ["digest", "held_by", "world_digest"]

_PLAIN = int | float | complex | bytes | None


def digest(parts: Iterable[object]) -> str:
    """A digest of the texts of the parts, in their order."""
    found = sha256()
    for each in parts:
        found.update(repr(each).encode(errors="replace"))
        found.update(b"\0")
    return found.hexdigest()[:24]


def world_digest() -> str:
    """The digest of what the audit reads that stands in no file of the project."""
    return digest([
        sys.version, django.VERSION, can_parse(), settings.AUTH_USER_MODEL, connections["default"].vendor, *_own_source(),
        *(each.path for each in apps.get_app_configs()), *_models(), *_admin(),
    ])  # fmt: skip


def _own_source() -> Iterator[bytes]:
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        yield file.read_bytes()


def _models() -> Iterator[object]:
    registry = Registry()
    for model in registry.models:
        options = model._meta
        yield (
            options.label,
            options.proxy,
            options.db_table,
            [_path(each) for each in model.__mro__],
        )
        for field in options.get_fields():
            facts = [getattr(field, each, None) for each in ("attname", "null", "primary_key", "column", "auto_now", "auto_now_add", "many_to_many")]  # fmt: skip
            default = getattr(field, "default", None)
            yield (
                field.name,
                _path(type(field)),
                facts,
                str(field.related_model),
                name_of(on_delete) if (on_delete := getattr(field.remote_field, "on_delete", None)) else "",
                getattr(referred_field(field), "name", ""),
                "" if callable(default) else _held(default),
            )
        for name, relation in sorted(registry.relations_of(model).items()):
            yield name, str(relation)
        for effect in effects_of(model):
            # At which line it stands is the file's own matter.
            yield effect.key, effect.place and effect.place.file, effect.of_all, effect.is_async
        for name, manager in sorted(registry.managers_by_name(model).items()):
            rows = registry.rows(manager)
            updates = [_path_of_update(each) for each in (rows.manager, rows.queryset)]
            yield name, manager.name, str(rows), updates


def _path_of_update(cls: Any) -> str:
    """Whose `update()` the rows have."""
    found = inspect.unwrap(cls.update) if cls is not None and hasattr(cls, "update") else None
    return "" if found is None else f"{found.__module__}.{found.__qualname__}"


def _admin() -> Iterator[object]:
    for model, page in admin_pages():
        yield (
            model._meta.label,
            _path(type(page)),
            [str(each if isinstance(each, str) else name_of(each)) for each in page.actions or ()],
        )


def held_by(name: str) -> str:
    """What tells what the name `module:name` holds from what else it could."""
    module, _, name = name.partition(":")
    live = vars(sys.modules[module]).get(name, _ABSENT) if module in sys.modules else _ABSENT
    return "" if live is _ABSENT else _held(live)


_ABSENT = object()


def _held(value: Any, *, within: bool = False) -> str:
    """What tells an object from another that stands for something else; nothing is asked of it that could be a lazy one's."""
    cls = type(value)
    if issubclass(cls, type):
        return f"{[_path(each) for each in value.__mro__]}"
    if issubclass(cls, str | _PLAIN):
        return repr(value) if issubclass(cls, str) else cls.__name__
    if issubclass(cls, Manager | QuerySet):
        return f"{_path(cls)} {value.model and value.model._meta.label}"
    if issubclass(cls, Model):
        return f"{_path(cls)} instance"
    if issubclass(cls, list | tuple | set | frozenset | dict) and not within:
        return _collection(value)
    is_module = issubclass(cls, ModuleType)
    name = value.__name__ if is_module else name_of(value) if issubclass(cls, _CALLED) else ""
    return f"{_path(cls)} {name}"


def _collection(value: Any) -> str:
    """Of texts all, since they may be the names of columns; of others what is looked at."""
    name = type(value).__name__
    if all(type(each) is str for each in value) and not isinstance(value, dict):
        return f"{name} {digest(sorted(value))}"
    return f"{name} {sorted(_held(each, within=True) for each in held_in(value))}"


_CALLED = (FunctionType, BuiltinFunctionType, MethodType, partial)


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
