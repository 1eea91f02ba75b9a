"""How reports for people are laid out."""

from __future__ import annotations

from rich.console import RenderableType
from rich.padding import Padding

__all__ = ["indented"]


def indented(line: RenderableType, by: int = 2) -> Padding:
    """The line, this many columns to the right, as all that follows from it."""
    return Padding(line, (0, 0, 0, by), expand=False)
