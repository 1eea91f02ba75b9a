"""Models and functions by the names that people know them by, each by one that no other has; and how many there are of a thing."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from django.apps import apps
from django.db.models import Model

from reconcile.core.function_source import source_of
from reconcile.core.wording.constants import constant_in_words

__all__ = ["function_in_words", "model_in_words", "models_in_words", "plural", "row_in_words"]


def plural(number: int, noun: str) -> str:
    """A number with its noun, such as `1 rule` or `1,200 rules`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def model_in_words(model: type[Model]) -> str:
    """`knowledge base item`, as in mid-sentence; the label, `shop.Item`, where another model is called the same."""
    return _name(model, _verbose_name)


def models_in_words(model: type[Model]) -> str:
    """The same for several: `knowledge base items`."""
    return _name(model, _verbose_name_plural)


def row_in_words(model: type[Model]) -> str:
    """The model's class, `Invoice`; the label where another class is called the same."""
    return _name(model, _class_name)


def _verbose_name(model: type[Model]) -> str:
    return _uncapitalised(str(model._meta.verbose_name))


def _verbose_name_plural(model: type[Model]) -> str:
    return _uncapitalised(str(model._meta.verbose_name_plural))


def _class_name(model: type[Model]) -> str:
    return model.__name__


def _name(model: type[Model], naming: Callable[[type[Model]], str]) -> str:
    name = naming(model)
    return model._meta.label if _shared(naming, tuple(apps.get_models()))[name] > 1 else name


@functools.lru_cache(maxsize=8)
def _shared(naming: Callable[[type[Model]], str], models: Iterable[type[Model]]) -> Counter[str]:
    """How many of the models have each name."""
    return Counter(map(naming, models))


def _uncapitalised(name: str) -> str:
    """The name with a small letter first, unless its first word has another capital letter: an `FAQ` stays one."""
    first, space, rest = name.partition(" ")
    return f"{first.lower()}{space}{rest}" if first.istitle() else name


def function_in_words(function: Any) -> str:
    """`shop.text.slug_of`; a lambda by its source, a partial with what it has bound, and a closure with what it has seen."""
    if isinstance(function, functools.partial):
        return f"{function_in_words(function.func)}{_bound(function.args, function.keywords)}"
    if inspect.ismethod(function) and not inspect.isclass(function.__self__):
        return f"{_instance(function.__self__)}.{function.__name__}"
    if inspect.isfunction(function):
        return f"{_source_or_name(function)}{_bound((), dict(_seen(function)))}"
    return _dotted(function) if hasattr(function, "__qualname__") else _instance(function)


def _source_or_name(function: Any) -> str:
    if function.__name__ != "<lambda>":
        return _dotted(function)
    source = source_of(function)
    code = function.__code__
    return (
        f"({' '.join(source.split())})" if source else f"lambda {function.__module__}:{code.co_firstlineno}"
    )


def _dotted(function: Any) -> str:
    name = str(function.__qualname__).replace("<locals>.", "")
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if module and module != "builtins" else name


def _instance(value: Any) -> str:
    """What was made of a class: as it shows itself, unless that names an address, which each process has anew."""
    shown = repr(value)
    return _dotted(type(value)) if " at 0x" in shown else shown


def _bound(values: Iterable[Any], named: Mapping[str, Any]) -> str:
    given = [*map(_plain, values), *(f"{name}={_plain(value)}" for name, value in sorted(named.items()))]
    return f"[{', '.join(given)}]" if given else ""


def _plain(value: Any) -> str:
    return function_in_words(value) if callable(value) else constant_in_words(value)


def _seen(function: Any) -> Iterator[tuple[str, Any]]:
    """What the function takes from where it was made: two of one text may differ by nothing else."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            seen = cell.cell_contents
        except ValueError:
            continue  # It isn't bound yet.
        if isinstance(seen, _TOLD):
            yield name, seen
    if function.__name__ == "<lambda>":
        defaults = function.__defaults__ or ()
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        yield from zip(names[len(names) - len(defaults) :], defaults, strict=True)
        yield from (function.__kwdefaults__ or {}).items()


_TOLD = (str, int, float, bytes, tuple, frozenset, type(None))
