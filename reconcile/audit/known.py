"""Bypasses that are known: a baseline of them in a TOML file, and what is new beside it or beside another revision.

A bypass is recognised by the effect, the function around the call, the way of writing and the model; never by a line.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reconcile.audit.bypasses import Bypass, Level, Skip
from reconcile.baseline import new_document
from reconcile.errors import UsageError

__all__ = [
    "Identity",
    "Known",
    "as_toml",
    "identity_of",
    "known_of",
    "only_new",
    "read_known",
    "without_known",
]

VERSION = 1

_HEAD = """\
Calls that skip effects and are known. `reconcile signals bypasses --baseline FILE` passes over these and fails for any other;
`--update-baseline` writes the file anew and keeps each `reason`, which is yours to write."""

_TEXTS = ("effect", "function", "operation", "model")


@dataclass(frozen=True, order=True)
class Identity:
    """By what a skipped effect is recognised. function: module and qualified name, the module alone for a call outside functions."""

    effect: str
    function: str
    operation: str
    model: str


@dataclass(frozen=True, kw_only=True)
class Known:
    """How many calls of one identity are known, and why they may stay."""

    calls: int
    reason: str = ""


def identity_of(bypass: Bypass, skip: Skip) -> Identity:
    """By what the skipped effect is recognised."""
    site = bypass.site
    function = f"{site.module}.{site.function}" if site.function else site.module
    return Identity(f"{skip.effect.name} ({skip.effect.on})", function, site.operation, bypass.model or "")


def known_of(
    bypasses: Iterable[Bypass], before: Mapping[Identity, Known], looked_through: Callable[[str], bool]
) -> dict[Identity, Known]:
    """All uncovered effects of the bypasses, with the reasons that were given before, and what was known of functions that were not looked through."""
    found = Counter(
        identity_of(each, skip) for each in bypasses for skip in each.skips if skip.state is Level.UNCOVERED
    )
    reasons = {key: each.reason for key, each in before.items()}
    others = {key: each for key, each in before.items() if not looked_through(key.function)}
    here = {key: Known(calls=number, reason=reasons.get(key, "")) for key, number in found.items()}
    return dict(sorted({**others, **here}.items()))


def without_known(
    bypasses: Iterable[Bypass], known: Mapping[Identity, Known], looked_through: Callable[[str], bool]
) -> tuple[list[Bypass], list[Identity]]:
    """The bypasses with those exempt that are known, and the known ones of what was looked through that are there no more, or fewer of them."""
    left = Counter({key: each.calls for key, each in known.items()})
    found = [_marked(each, known, left) for each in bypasses]
    gone = (key for key, number in left.items() if number > 0 and looked_through(key.function))
    return found, sorted(gone)


def only_new(now: Iterable[Bypass], before: Iterable[Bypass]) -> list[Bypass]:
    """The bypasses with an effect that they skip now, and that as many calls of their function did not skip before; with no other effects."""
    left = Counter(identity_of(each, skip) for each in before for skip in each.skips)
    unknown = Counter(_unknown_identity(each) for each in before if not each.skips)
    found = []
    for each in now:
        if not each.skips:
            unknown[_unknown_identity(each)] -= 1
            found += [each] if unknown[_unknown_identity(each)] < 0 else []
            continue
        skips = tuple(skip for skip in each.skips if _is_new(identity_of(each, skip), left))
        found += [replace(each, skips=skips)] if skips else []
    return found


def _is_new(key: Identity, left: Counter[Identity]) -> bool:
    left[key] -= 1
    return left[key] < 0


def _unknown_identity(bypass: Bypass) -> tuple[str, str, str]:
    return bypass.site.module, bypass.site.function, bypass.site.call


def _marked(bypass: Bypass, known: Mapping[Identity, Known], left: Counter[Identity]) -> Bypass:
    skips = []
    for each in bypass.skips:
        skip, key = each, identity_of(bypass, each)
        if each.state is Level.UNCOVERED and left[key] > 0:
            left[key] -= 1
            skip = replace(
                each, state=Level.EXEMPT, reason=known[key].reason or "known: it stands in the baseline"
            )
        skips.append(skip)
    return replace(bypass, skips=tuple(skips))


def read_known(path: Path) -> dict[Identity, Known]:
    """Read the file. Raises UsageError if there is none, or if it can't be used."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"The baseline {str(path)!r} can't be read: {error.strerror or error}. Write it with: reconcile signals bypasses "
            f"--baseline {path} --update-baseline"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unusable(path, str(error)) from error
    if found.get("version") != VERSION:
        raise _unusable(
            path, f"version is {found.get('version')!r}, and this release reads version {VERSION}"
        )
    entries = found.get("bypass", [])
    if not isinstance(entries, list):
        raise _unusable(path, "bypass is no list of tables")
    return dict(_entry(path, each) for each in entries)


def _entry(path: Path, entry: Any) -> tuple[Identity, Known]:
    if not isinstance(entry, dict) or {*entry} - {*_TEXTS, "calls", "reason"}:
        raise _unusable(path, f"{entry!r} is no [[bypass]] with {', '.join(_TEXTS)}, calls and reason")
    texts = [entry.get(each) for each in _TEXTS]
    calls, reason = entry.get("calls", 1), entry.get("reason", "")
    if not all(isinstance(each, str) for each in (*texts, reason)) or not isinstance(calls, int) or calls < 1:
        raise _unusable(path, f"{entry!r} lacks a text, or its calls are no number above 0")
    return Identity(*map(str, texts)), Known(calls=calls, reason=reason)


def _unusable(path: Path, what: str) -> UsageError:
    return UsageError(
        f"The baseline {str(path)!r} can't be used: {what}. Mend the file, or write it anew with --update-baseline."
    )


def as_toml(known: Mapping[Identity, Known]) -> str:
    """The text of the file. Raises ImportError if tomlkit is not installed."""
    import tomlkit

    document = new_document(_HEAD, VERSION)
    entries = tomlkit.aot()
    for key, each in sorted(known.items()):
        entries.append(_table(key, each))
    if known:
        document.add("bypass", entries)
    return tomlkit.dumps(document)


def _table(key: Identity, known: Known) -> Any:
    import tomlkit

    table = tomlkit.table()
    for name in _TEXTS:
        table.add(name, getattr(key, name))
    table.add("calls", known.calls)
    if known.reason:
        table.add("reason", known.reason)
    return table
