"""How reports for people are laid out."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table

__all__ = ["indented", "table"]

_FOLDED = {"Rule", "Kind", "Result"}
"""Columns whose text goes on in the next line if the terminal is narrow."""


def indented(line: RenderableType, by: int = 2) -> Padding:
    """The line, this many columns to the right, as all that follows from it."""
    return Padding(line, (0, 0, 0, by), expand=False)


def table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    """An empty table in the style of all reports. The columns in `numbers` are aligned to the right.

    If the terminal is too narrow, the names of rules go on in the next line; nothing is cut off.
    """
    empty = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False
    )
    for column in columns:
        justify: JustifyMethod = "right" if column in numbers else "left"
        empty.add_column(column, justify=justify, no_wrap=column not in _FOLDED, overflow="fold")
    return empty
