"""Deletes that write or delete other records past their own code. Said once for each relation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import CASCADE, SET_DEFAULT, SET_NULL, Model

from reconcile.audit.effects import OF_SAVES, On, effects_of
from reconcile.db.django_compat import reverse_relations

__all__ = ["Cascade", "cascades_of"]

DELETING_BY_SIGNAL = frozenset({On.PRE_DELETE, On.POST_DELETE})


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """What the delete of a record does to others. does: `deletes` or `sets … to NULL`; past: the names of the effects that don't run."""

    model: type[Model]
    column: str
    does: str
    past: tuple[str, ...]


def cascades_of(model: type[Model]) -> Iterator[Cascade]:
    """Each relation by which a delete of the model's records goes past the effects of others."""
    for relation in reverse_relations(model):
        child, column = relation.related_model, relation.field
        if not isinstance(child, type) or not issubclass(child, Model):
            continue
        does, skipped = _what(getattr(relation, "on_delete", None))
        past = tuple(dict.fromkeys(each.name for each in effects_of(child) if each.on in skipped))
        if past:
            yield Cascade(model=child, column=column.name, does=does, past=past)


def _what(on_delete: object) -> tuple[str, frozenset[On]]:
    """What an on_delete does, and which effects of the other record it goes past."""
    if on_delete is CASCADE:
        return "deletes", frozenset({On.DELETE})
    if on_delete is SET_NULL:
        return "sets to NULL", OF_SAVES
    if on_delete is SET_DEFAULT:
        return "sets to its default", OF_SAVES
    if hasattr(on_delete, "deconstruct"):
        # SET(…).
        return "sets", OF_SAVES
    return _by_database(str(getattr(on_delete, "__name__", "")))


def _by_database(name: str) -> tuple[str, frozenset[On]]:
    """The same of an on_delete that is the database's, from Django 6.1 on: no signal is sent either."""
    if name == "DB_CASCADE":
        return "has the database delete", frozenset({On.DELETE}) | DELETING_BY_SIGNAL
    if name in {"DB_SET_NULL", "DB_SET_DEFAULT"}:
        return "has the database set", OF_SAVES
    return "", frozenset()
