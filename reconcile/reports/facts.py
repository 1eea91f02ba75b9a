"""Facts about a rule that several reports give in the same words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from reconcile.core.wording.names import plural
from reconcile.rules.rule import Rule
from reconcile.rules.settle import Settle
from reconcile.rules.unattended import unattended_refusal

__all__ = ["age_in_words", "key_words", "nightly_in_words", "plural", "printable", "settle_in_words"]


def printable(text: str) -> str:
    """The text with its lines, whose other characters that can't be printed are written as Python's escapes: no terminal obeys them."""
    return "".join(
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def nightly_in_words(rule: Rule, using: str) -> str:
    """What the nightly job does with the rule: it `repairs`, or it only `reports`."""
    return "repairs" if rule.unattended and not unattended_refusal(rule, using) else "reports"


def settle_in_words(settle: Settle) -> str:
    """A sentence that says which records are left alone."""
    return f"Records younger than {settle.age} by {settle.column} are left alone."


def age_in_words(age: timedelta) -> str:
    """An age such as `15 minutes` or `1 day 2 hours`."""
    hours, seconds = divmod(age.seconds + age.microseconds / 1_000_000, 3600)
    minutes, seconds = divmod(seconds, 60)
    parts = (("day", age.days), ("hour", hours), ("minute", minutes), ("second", seconds))
    return " ".join(f"{number:g} {noun}{'' if number == 1 else 's'}" for noun, number in parts if number)


_MOST_OF_KEYS = 500


def key_words(keys: Sequence[str]) -> list[str]:
    """The words of a command that name records by `--keys`; of very many, that there were some."""
    if sum(map(len, keys)) > _MOST_OF_KEYS:
        return ["--keys", "…"]
    return [word for each in keys for word in ("--keys", each)]
