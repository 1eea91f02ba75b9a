"""The source text of a function: by it a fingerprint tells whether the function was edited, on every Python alike."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
from collections.abc import Callable, Iterator
from textwrap import dedent
from types import CodeType
from typing import Any

from reconcile.errors import Fault

__all__ = ["source_of", "version_faults"]


def source_of(function: Any) -> str | None:
    """The source text of a Python function, without its indentation; None if it has none of its own.

    Two lambdas that begin on one line can't be told apart, and a function made by `exec` stands in no file. The text is
    read once in a process, so that a file edited under a running worker doesn't count before the worker loads it.
    """
    code: CodeType = function.__code__
    # Code objects of two files may be equal.
    return _source_of(code, code.co_filename)


@functools.cache
def _source_of(code: CodeType, file: str) -> str | None:
    if code.co_name == "<lambda>":
        return _lambda_source(code, file)
    try:
        return dedent(inspect.getsource(code)).strip()
    except (OSError, TypeError):
        return None


def _lambda_source(code: CodeType, file: str) -> str | None:
    text = "".join(linecache.getlines(file))
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return None
    found = [
        node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno
    ]
    return ast.get_source_segment(text, found[0]) if len(found) == 1 else None


def version_faults(function: Any, version: Any, where: str) -> Iterator[Fault]:
    """A fault if `version` is no text or number, or if it is missing and the function has no source of its own."""
    if version is not None and not isinstance(version, str | int):
        yield Fault("reconcile.E012", f"{where}: version= is {version!r}.", "Give a number or a text.")
    elif version is None:
        for each in _functions_in(function):
            if source_of(each) is None:
                message = f"{where}: {each.__name__}() has no source text of its own, so an edit of it would not be seen."
                hint = "Name it by def in a module, or give version=1 and another version with each edit."
                yield Fault("reconcile.E012", message, hint)


def _functions_in(function: Any) -> Iterator[Callable[..., Any]]:
    """The Python functions that are called, behind partials, methods and wrappers."""
    if isinstance(function, functools.partial):
        yield from _functions_in(function.func)
    elif inspect.ismethod(function):
        yield from _functions_in(function.__func__)
    elif inspect.isfunction(function):
        yield function
