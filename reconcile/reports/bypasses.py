"""The calls that skip effects, by effect, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from reconcile.audit.bypasses import Bypass, Level, Skip
from reconcile.audit.effects import Effect
from reconcile.audit.known import Identity
from reconcile.audit.searching import BypassAudit
from reconcile.core.declaration import shown_path
from reconcile.reports.facts import plural
from reconcile.reports.findings import plain
from reconcile.reports.layout import indented

__all__ = ["BypassReport", "as_json", "as_text", "sentence"]

VERSION = 1
"""The version of the JSON."""

_STYLES = {
    Level.UNCOVERED: "red", Level.COVERED: "green", Level.EXEMPT: "dim", Level.BY_HAND: "cyan", Level.LOW: "dim", Level.THIRD_PARTY: "dim",
    Level.UNKNOWN: "yellow",
}  # fmt: skip

_WORDS = {
    Level.COVERED: "covered by rules", Level.EXEMPT: "exempt", Level.BY_HAND: "seem done by hand", Level.LOW: "low",
    Level.THIRD_PARTY: "third party", Level.UNKNOWN: "unknown",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BypassReport:
    """What was found, and how it is shown. shown: the levels that the text lists. mended: known bypasses that are there no more. since: the revision
    beside which only new ones are told.
    """

    audit: BypassAudit
    bypasses: Sequence[Bypass]
    shown: AbstractSet[Level] = frozenset({Level.UNCOVERED})
    mended: Sequence[Identity] = ()
    since: str = ""
    baseline: str = ""

    @property
    def uncovered(self) -> list[Bypass]:
        """The calls that skip an effect which no rule covers, in the source or as they were seen to run."""
        return [each for each in (*self.bypasses, *self.audit.unlisted) if each.state is Level.UNCOVERED]

    @property
    def status(self) -> str:
        """`error` if a file can't be read, `uncovered`, `fault`, or `clean`."""
        if self.audit.unreadable:
            return "error"
        if self.uncovered:
            return "uncovered"
        return "fault" if self.audit.faults else "clean"


def as_text(report: BypassReport) -> RenderableType:
    """A paragraph for each effect that is skipped, with the calls beneath it, then what is wrong, then the sum."""
    parts: list[RenderableType] = [""]
    for level in (each for each in Level if each in report.shown):
        for effect, found in _by_effect(report.bypasses, level).items():
            parts += [*_effect(level, effect, found), ""]
        if level is Level.UNKNOWN:
            parts += [*_unknown(report)]
    parts += [
        Text(f"{shown_path(each.path)} can't be read: {plain(each.why)}", style="red")
        for each in report.audit.unreadable
    ]
    parts += [Text(plain(each), style="red") for each in report.audit.faults]
    parts += [*_mended(report), *_unlisted(report)]
    return Group(*parts, *_sum(report))


def _by_effect(bypasses: Iterable[Bypass], level: Level) -> Mapping[Effect, list[tuple[Bypass, Skip]]]:
    found: dict[Effect, list[tuple[Bypass, Skip]]] = {}
    for bypass in bypasses:
        for skip in bypass.skips:
            if skip.state is level:
                found.setdefault(skip.effect, []).append((bypass, skip))
    return found


def _effect(level: Level, effect: Effect, found: Sequence[tuple[Bypass, Skip]]) -> Iterator[RenderableType]:
    place = f" · {effect.place}" if effect.place else ""
    yield Text.assemble((f"{level:<11} ", _STYLES[level]), (plain(effect.name), "bold"))
    yield indented(Text(f"{effect.on} of {effect.model._meta.label}{place}", style="dim"), 12)
    rules = {name: None for _, skip in found for name in skip.rules} if level is Level.COVERED else {}
    if rules:
        yield indented(Text(f"covered by {', '.join(map(plain, rules))}", style="green"), 12)
    for bypass, skip in found:
        yield indented(_call(bypass), 12)
        if skip.reason:
            yield indented(Text(plain(skip.reason), style="dim"), 14)


def _call(bypass: Bypass) -> Text:
    site = bypass.site
    text = Text(f"{shown_path(site.path)}:{site.line}  ")
    text.append(plain(site.call), style="cyan")
    if bypass.by_name:
        text.append("  told by its name", style="dim")
    if site.historical:
        text.append("  in a migration", style="dim")
    if bypass.times is not None:
        text.append(
            f"  ran {plural(bypass.times, 'time')}" if bypass.times else "  no test runs it",
            style="dim" if bypass.times else "yellow",
        )
    return text


def _unknown(report: BypassReport) -> Iterator[RenderableType]:
    found = [each for each in report.bypasses if each.state is Level.UNKNOWN]
    for each in found:
        yield Text.assemble(
            (f"{Level.UNKNOWN:<11} ", _STYLES[Level.UNKNOWN]), _call(each), (f"  {plain(each.reason)}", "dim")
        )
    if found:
        yield ""


def _mended(report: BypassReport) -> Iterator[RenderableType]:
    for each in report.mended:
        yield Text(
            f"{plain(report.baseline)} has {plain(each.effect)} in {plain(each.function)}, which is there no more, or fewer times.",
            style="yellow",
        )
    if report.mended:
        yield Text("Take such entries out with --update-baseline.")


def _unlisted(report: BypassReport) -> Iterator[RenderableType]:
    for each in report.audit.unlisted:
        names = dict.fromkeys(skip.effect.name for skip in each.skips)
        yield Text.assemble(
            ("seen        ", "yellow"),
            f"{shown_path(each.site.path)}:{each.site.line}  {plain(each.site.call)} of {each.model} skips {', '.join(map(plain, names))}",
        )
    if report.audit.unlisted:
        yield Text("These ran, and the source doesn't show them.\n")


def _seen(report: BypassReport) -> str:
    watched = [each for each in report.bypasses if each.times is not None]
    ran = sum(bool(each.times) for each in watched)
    return (
        f" Of {plural(len(watched), 'listed call')}, tests ran {ran:,}; {len(report.audit.unlisted):,} ran that are not listed."
        if watched
        else ""
    )


def _sum(report: BypassReport) -> Iterator[RenderableType]:
    calls = len(report.uncovered)
    effects = len(_by_effect(report.uncovered, Level.UNCOVERED))
    since = f" since {plain(report.since)}" if report.since else ""
    unknown = _counts(report.bypasses).get(Level.UNKNOWN, 0)
    if calls:
        skips = "skips" if calls == 1 else "skip"
        text = Text(
            f"{plural(calls, 'call')}{since} {skips} {plural(effects, 'effect')} that no rule covers.",
            style="red",
        )
    else:
        told = " that can be told" if unknown else ""
        text = Text(
            f"No call{since}{told} skips an effect that no rule covers.",
            style="green" if report.status == "clean" else "default",
        )
    counts = _counts(report.bypasses)
    others = [f"{counts[level]:,} {word}" for level, word in _WORDS.items() if counts.get(level)]
    if others:
        text.append(f" Others: {', '.join(others)}.", style="default")
    yield text
    yield Text(_looked_through(report), style="dim")


def _looked_through(report: BypassReport) -> str:
    said = f"{plural(report.audit.files, 'file')} looked through"
    if report.audit.left_out:
        said += f", {report.audit.left_out:,} of tests and migrations left out (--tests, --migrations)"
    hidden = [level for level in _counts(report.bypasses) if level not in report.shown]
    shows = f" --show {hidden[0].replace('_', '-')} lists those, --show all everything." if hidden else ""
    return f"{said}.{_seen(report)}{shows}"


def _counts(bypasses: Iterable[Bypass]) -> Mapping[Level, int]:
    found: dict[Level, int] = {}
    for each in bypasses:
        found[each.state] = found.get(each.state, 0) + 1
    return found


def sentence(bypass: Bypass) -> str:
    """What a call skips that no rule covers, in one sentence, for a machine that shows it to a person."""
    names = dict.fromkeys(
        f"{each.effect.name} ({each.effect.on})" for each in bypass.skips if each.state is Level.UNCOVERED
    )
    return (
        f"{bypass.site.call} on {bypass.model} skips {', '.join(map(plain, names))}, and no rule covers that."
    )


def as_json(report: BypassReport) -> str:
    """All levels, for machines."""
    return json.dumps(
        {
            "version": VERSION,
            "status": report.status,
            "files": report.audit.files,
            "findings": [_finding(each) for each in report.bypasses],
            "unlisted": [_finding(each) for each in report.audit.unlisted],
            "faults": list(report.audit.faults),
            "unreadable": [
                {"path": shown_path(each.path), "why": each.why} for each in report.audit.unreadable
            ],
        },
        indent=2,
    )


def _finding(bypass: Bypass) -> dict[str, Any]:
    site = bypass.site
    return {
        "path": shown_path(site.path),
        "line": site.line,
        "function": f"{site.module}.{site.function}" if site.function else site.module,
        "call": site.call,
        "operation": str(site.operation),
        "model": bypass.model,
        "by_name": bypass.by_name,
        "historical": site.historical,
        "state": str(bypass.state),
        "seen": bypass.times,
        "skips": [_skip(each) for each in bypass.skips],
        "reason": bypass.reason
        or next((each.reason for each in bypass.skips if each.state is bypass.state and each.reason), None),
    }


def _skip(skip: Skip) -> dict[str, Any]:
    place = skip.effect.place
    return {
        "effect": skip.effect.name,
        "on": str(skip.effect.on),
        "path": place.path if place else None,
        "line": place.line if place else None,
        "state": str(skip.state),
        "rules": list(skip.rules),
        "reason": skip.reason or None,
    }
