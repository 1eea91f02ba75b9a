"""How two paths compare, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from reconcile.audit.parity.comparing import Difference, Parity
from reconcile.core.wording.names import plural

__all__ = ["parity_as_text"]

_DID = {
    "insert": "new row of",
    "update": "changed row of",
    "delete": "deleted row of",
    "task": "message",
    "mail": "",
}
_MOST = 20
_COLOUR = re.compile(r"#[0-9a-f]{12}(\+#[0-9a-f]{12})*")
"""A new row, as a value tells it."""


def parity_as_text(found: Parity, names: tuple[str, str]) -> str:
    """All differences, each with what either path did. names: of the paths."""
    return "\n".join(_lines(found, names))


def _lines(found: Parity, names: tuple[str, str]) -> Iterator[str]:
    if found.is_same:
        yield f"{names[0]} and {names[1]} leave the same."
    for path, differences in found.unsteady.items():
        name = names[0 if path == "one" else 1]
        yield f"{name} does not do the same twice, so that nothing can be said of the other:"
        yield from _differences(differences, (f"{name}, first", f"{name}, again"))
    if found.differences:
        yield f"{names[0]} and {names[1]} differ in {plural(len(found.differences), 'place')}:"
        yield from _differences(found.differences, names)
    if found.volatile:
        told = ", ".join(sorted(f"{name}.{column}" for name, column in found.volatile))
        yield f"Of these only the shape was compared, since they differ between two runs of one path: {told}."


def _differences(differences: Sequence[Difference], names: tuple[str, str]) -> Iterator[str]:
    own = [each for each in differences if _is_own(each)] or differences
    for each in own[:_MOST]:
        yield from _difference(each, names)
    if len(own) > _MOST:
        yield f"  … and {len(own) - _MOST:,} more."
    if following := len(differences) - len(own):
        yield f"  {following:,} more {'refers' if following == 1 else 'refer'} to other rows, which may be no more than what follows from these."


def _is_own(each: Difference) -> bool:
    """Whether it is more than a reference to a row that is another one, as all have that refer to a row with a difference."""
    values = [one.get(name, "") for name in each.columns for one in (each.one or {}, each.other or {})]
    return each.by_reference or not each.columns or not all(map(_COLOUR.fullmatch, values))


def _difference(each: Difference, names: tuple[str, str]) -> Iterator[str]:
    what = f"{_DID[each.kind]} {each.name}".strip()
    times = f", {each.times:,} times" if each.times > 1 else ""
    if each.one is None or each.other is None:
        only = names[1] if each.one is None else names[0]
        yield f"  {what}: only {only}{times}"
        yield f"    {_values(each.one or each.other or {})}"
        return
    by_reference = ", which other rows refer to" if each.by_reference else ""
    yield f"  {what}{by_reference}{times}"
    for column in each.columns:
        yield f"    {column}: {each.one.get(column, 'not set')} ↔ {each.other.get(column, 'not set')}"


def _values(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())
