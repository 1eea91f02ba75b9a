"""What an expression may stand for. A set of these is what is known of one; the empty set is that nothing is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.db.models import Model

from reconcile.audit.trail import Thing

if TYPE_CHECKING:
    from reconcile.audit.resolver.classes import ClassInfo
    from reconcile.audit.resolver.scopes import Scope

__all__ = [
    "NOTHING",
    "Api",
    "ClassType",
    "External",
    "FunctionType",
    "Historical",
    "Instance",
    "Kind",
    "Many",
    "ModelType",
    "ModuleType",
    "Native",
    "Object",
    "Relation",
    "Rows",
    "Super",
    "Table",
    "Tuple",
    "Types",
    "native",
    "texts_of",
    "things_in",
    "union",
]


class Kind(StrEnum):
    """How a related manager's rows hang together with the record."""

    REVERSE_KEY = "reverse key"
    MANY_TO_MANY = "many-to-many"
    GENERIC = "generic relation"


@dataclass(frozen=True, kw_only=True)
class Relation:
    """What leads from a record to many others. column: the foreign key of the others, None for a many-to-many. through: the rows of a many-to-many."""

    kind: Kind
    name: str
    owner: type[Model]
    target: type[Model]
    column: str | None = None
    through: type[Model] | None = None


@dataclass(frozen=True, kw_only=True)
class Native:
    """Something that is known and isn't Django's: a text, a number, a file. text: the value of a literal text."""

    what: str
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelType:
    """A model itself."""

    model: type[Model]


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One record of the model. by_name: it was told by the name of an attribute alone. passed: the arguments of its constructor, where that is seen."""

    model: type[Model]
    by_name: bool = False
    passed: frozenset[str] | None = field(default=None)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A manager or queryset. manager, queryset: the live classes whose methods it has. as_values: it yields no instances."""

    model: type[Model]
    manager: type | None = None
    queryset: type | None = None
    relation: Relation | None = None
    by_name: bool = False
    as_values: bool = False

    @property
    def narrowed(self) -> Rows:
        """The rows after a method such as filter(), which a manager has from its queryset."""
        return replace(self, manager=None, relation=None)

    @property
    def element(self) -> Instance | Native:
        """What one gets by walking through them."""
        return Native(what="values") if self.as_values else Instance(model=self.model, by_name=self.by_name)


@dataclass(frozen=True, kw_only=True)
class Historical:
    """A model, its rows or a record as a migration has them. label: as it was asked for, empty if it wasn't literal."""

    label: str


@dataclass(frozen=True, kw_only=True)
class Many:
    """A list, tuple, set or iterator."""

    of: frozenset[Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A dictionary."""

    keys: frozenset[Any]
    values: frozenset[Any]


@dataclass(frozen=True, kw_only=True)
class Tuple:
    """A tuple whose places are told apart."""

    items: tuple[frozenset[Any], ...]


@dataclass(frozen=True, kw_only=True)
class ModuleType:
    """A module of the name."""

    name: str


@dataclass(frozen=True, kw_only=True)
class External:
    """A function or class of Django or the standard library by its path, such as `django.shortcuts.get_object_or_404`."""

    path: str


@dataclass(frozen=True, kw_only=True)
class ClassType:
    """A class other than a model."""

    info: ClassInfo


@dataclass(frozen=True, kw_only=True)
class Object:
    """An instance of a class other than a model."""

    info: ClassInfo


@dataclass(frozen=True, kw_only=True)
class FunctionType:
    """A function with source. bound: what its first argument is, if it is a method that was looked up."""

    scope: Scope
    bound: Any = None


@dataclass(frozen=True, kw_only=True)
class Api:
    """A method that Django gives to what it is bound to, such as `filter` of rows."""

    name: str
    of: Any


@dataclass(frozen=True, kw_only=True)
class Super:
    """What `super()` gives in a method of the class body `after`."""

    of: Any
    after: Scope


Types = frozenset[Any]

NOTHING: Types = frozenset()


def texts_of(types: Types) -> list[str]:
    """The types as texts that are the same in each run."""
    return sorted(map(_text_of, types))


def _text_of(value: Any) -> str:
    match value:
        case frozenset():
            return f"{{{', '.join(texts_of(value))}}}"
        case tuple():
            return f"({', '.join(map(_text_of, value))})"
        case type():
            return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "path") and hasattr(value, "mro"):
        return str([each.path for each in value.mro])
    if hasattr(value, "module") and hasattr(value, "bindings"):
        return f"{value.module.path}::{value.name}"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}{[_text_of(getattr(value, each.name)) for each in fields(value)]}"
    return repr(value)


def things_in(types: Types) -> Iterator[Thing]:
    """What whoever has the types depends on: the functions and classes among them, those that the classes inherit from too."""
    for each in types:
        match each:
            case FunctionType(scope=scope, bound=bound):
                yield from (scope.thing,) if scope.thing else ()
                yield from things_in(frozenset({bound})) if bound is not None else ()
            case Super(after=scope, of=of):
                yield from (scope.thing,) if scope.thing else ()
                yield from things_in(frozenset({of}))
            case ClassType(info=info) | Object(info=info):
                yield from (one.thing for one in info.mro if one.thing)
            case Api(of=of):
                yield from things_in(frozenset({of}))
            case Many(of=types_):
                yield from things_in(types_)
            case Table(keys=keys, values=values):
                yield from things_in(keys | values)
            case Tuple(items=items):
                yield from (thing for item in items for thing in things_in(item))


def native(what: str) -> Types:
    """The set of one native thing."""
    return frozenset({Native(what=what)})


def union(several: Iterable[Types]) -> Types:
    """All that is known."""
    return frozenset().union(*several)
