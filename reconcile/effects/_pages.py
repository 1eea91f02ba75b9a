"""Reading for Python: a scope in pages of keys, so that memory stays flat however wide the window is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from reconcile.finders import Rows
from reconcile.windows import Keys, Scope, Window

__all__ = ["PAGE", "Page", "pages"]

PAGE = 10_000
"""Records that are read at once. Fewer cost more statements; more, memory, where columns hold long texts."""

Page = tuple[Scope, list[tuple[Any, ...]]]


def pages(read: Callable[[Scope], Rows], scope: Scope, size: int = PAGE) -> Iterator[Page]:
    """What `read` selects in `scope`, in key order, page by page, each with its part of the scope.

    The key is the first thing that `read` selects. The parts are the whole scope together, also where there
    is nothing to read. Plain statements, since a server-side cursor outside a transaction is held by the server as
    a copy of the whole result, and MySQL has none.
    """
    if isinstance(scope, Keys):
        yield scope, list(read(scope).order_by("pk"))
        return
    after, upto = scope.after, scope.upto
    while True:
        page = list(read(Window(after, upto)).order_by("pk")[:size])
        if len(page) < size or page[-1][0] == upto:
            yield Window(after, upto), page
            return
        last = page[-1][0]
        yield Window(after, last), page
        after = last
