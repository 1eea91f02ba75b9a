"""Functions by where they stand: `package.module:function`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from reconcile.errors import UsageError

__all__ = ["named_function"]


def named_function(text: str) -> Callable[[], Any]:
    """The function that stands at `package.module:function`. Raises UsageError if there is none."""
    module_name, colon, path = text.partition(":")
    if not colon or not module_name or not path:
        raise UsageError(f"{text!r} names no function: write package.module:function.")
    try:
        found: Any = import_module(module_name)
    except ImportError as error:
        raise UsageError(f"{text!r} names no function: {error}.") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{text!r} names no function: {module_name} has no {path!r}.")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{text!r} is {type(found).__name__}, and no function.")
    function: Callable[[], Any] = found
    return function
