"""Numbers with their nouns."""

from __future__ import annotations

__all__ = ["plural"]


def plural(number: int, noun: str) -> str:
    """A number with its noun, such as `1 rule` or `1,200 rules`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
