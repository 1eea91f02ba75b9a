"""A rule's trend as a small inline SVG: a bar for each earlier run, and the last for the check at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from reconcile.reports._saying import local

if TYPE_CHECKING:
    from reconcile.history import Past

__all__ = ["sparkline"]

_HEIGHT, _BAR, _GAP = 32, 7, 2


def sparkline(past: Sequence[Past], *, now: int) -> SafeString:
    """The SVG, whose title says it in words, with a caption; empty where there are no earlier runs."""
    if not past:
        return SafeString()
    numbers = [*(each.drifted for each in past), now]
    most = max(numbers)
    said = f"{len(past)} earlier runs since {_day(past[0])}" if len(past) > 1 else f"a run of {_day(past[0])}"
    title = f"Drifted rows after {said}: {', '.join(f'{each:,}' for each in numbers[:-1])}; now {now:,}."
    bars = format_html_join(
        "",
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>',
        (
            (
                "now" if position == len(past) else "then",
                position * (_BAR + _GAP),
                _HEIGHT - _height(number, most),
                _BAR,
                _height(number, most),
            )
            for position, number in enumerate(numbers)
        ),
    )
    width = len(numbers) * (_BAR + _GAP) - _GAP
    return format_html(
        '<figure class="trend"><svg role="img" viewBox="0 0 {} {}" width="{}" height="{}"><title>{}</title>{}</svg>'
        "<figcaption>After {}, at most {}</figcaption></figure>",
        width, _HEIGHT, width, _HEIGHT, title, bars, said, f"{most:,}",
    )  # fmt: skip


def _height(number: int, most: int) -> int:
    """In pixels: none is a line, the least drift can be seen, the most fills the height."""
    return max(4, round(_HEIGHT * number / most)) if number else 1


def _day(past: Past) -> str:
    return f"{local(past.at):%d %B %Y}".lstrip("0")
