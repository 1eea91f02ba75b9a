"""The options of a declaration: what each may be, and the way out where it is something else.

A kind, a remedy and the rule itself each keep a table of their options; `option_faults` reads it. What depends on a
model, or on two options at once, is no matter of one option's type and stays a function of the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db.models import QuerySet
from django.db.models.manager import BaseManager

from reconcile.errors import Fault

__all__ = [
    "Option",
    "as_given",
    "is_list",
    "is_list_of",
    "is_mapping",
    "is_one_of",
    "is_whole",
    "option_faults",
    "or_none",
]


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name, whether it accepts a value, and what to give in place of a value that it doesn't.

    subject: how a fault speaks of it; `name=` unless given.
    """

    name: str
    accepts: Callable[[Any], bool]
    hint: str
    subject: str = ""


def as_given(value: Any) -> str:
    """The value as Python shows it; a queryset by its model, since to show itself it would ask the database, and a class by its name."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{as_given(key)}: {as_given(each)}' for key, each in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_given, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(as_given, value))}{',' * (len(value) == 1)})"
    return _single_as_given(value)


def _single_as_given(value: Any) -> str:
    if isinstance(value, QuerySet):
        return f"<QuerySet of {value.model._meta.label}>"
    if isinstance(value, BaseManager):
        return f"a manager of {value.model._meta.label}" if getattr(value, "model", None) else "a manager"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return str(value) if isinstance(value, StrEnum) else repr(value)


def option_faults(declaration: object, options: Sequence[Option], owner: str = "") -> Iterator[Fault]:
    """A fault for each option of `declaration` that doesn't accept its value. `owner`: the kind or remedy to name."""
    where = f"{owner}: " if owner else ""
    for option in options:
        value = getattr(declaration, option.name)
        if not option.accepts(value):
            yield Fault(
                "reconcile.E012",
                f"{where}{option.subject or option.name + '='} is {as_given(value)}.",
                option.hint,
            )


def is_one_of(*kinds: type) -> Callable[[Any], bool]:
    """Accepts instances of `kinds`; True and False only where `bool` is among them."""

    def accepts(value: Any) -> bool:
        return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))

    return accepts


def is_whole(least: int, most: int | None = None) -> Callable[[Any], bool]:
    """Accepts whole numbers from `least` on, up to `most` where one is given."""

    def accepts(value: Any) -> bool:
        number = isinstance(value, int) and not isinstance(value, bool)
        return number and least <= value and (most is None or value <= most)

    return accepts


def or_none(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Accepts None as well."""
    return lambda value: value is None or accepts(value)


def is_list(value: Any) -> bool:
    """Whether it is a list or tuple of anything; a text is none."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def is_list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Accepts a list or tuple of what `accepts` accepts."""
    return lambda value: is_list(value) and all(map(accepts, value))


def is_mapping(value: Any) -> bool:
    """Whether it is a dictionary, or another mapping."""
    return isinstance(value, Mapping)
