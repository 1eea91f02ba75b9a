"""What `init` has drafted, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from rich.console import Group, RenderableType
from rich.text import Text

from reconcile.audit.drafts.trying import Tried
from reconcile.audit.drafts.watched.drafting import Watching
from reconcile.audit.effects import Effect
from reconcile.reports.facts import plural
from reconcile.reports.findings import plain
from reconcile.reports.layout import indented

__all__ = ["DraftReport", "as_json", "as_text"]

VERSION = 1
"""The version of the JSON."""


@dataclass(frozen=True, kw_only=True)
class DraftReport:
    """written: files that were made. kept: files that were there already, with the drafts that would have stood in them. uncovered: the project's effects
    that no draft covers. settings: the line that the settings lack, empty if they have it. left_out: models
    that could not be read. looked_at: how many models were. watching: what saves were seen to write, if that was asked for.
    """

    tried: Sequence[Tried]
    written: Sequence[str]
    kept: dict[str, str]
    uncovered: Sequence[Effect]
    settings: str
    left_out: Sequence[tuple[type[Model], str]] = ()
    looked_at: int = 0
    watching: Watching | None = None


def as_text(report: DraftReport) -> RenderableType:
    """A table of the drafts with their drift, then what no draft covers, what was written, and what comes next."""
    parts: list[RenderableType] = [""]
    for each in report.tried:
        parts += [*_draft(each)]
    parts += [""] if report.tried else []
    for effect in report.uncovered:
        parts.append(Text.assemble(("no draft covers  ", "yellow"), plain(effect.name)))
        parts.append(indented(Text(f"{effect.on} of {effect.model._meta.label}", style="dim")))
    parts += _watched(report)
    for model, why in report.left_out:
        parts.append(Text.assemble(("left out  ", "red"), f"{model._meta.label}: {plain(why)}"))
    for path, text in report.kept.items():
        parts += [
            "",
            Text(f"{plain(path)} is there already and was not touched. Its drafts:", style="yellow"),
            "",
            *(Text(plain(line)) for line in text.splitlines()),
        ]
    return Group(*parts, *_next(report))


def _watched(report: DraftReport) -> Iterator[RenderableType]:
    """What the watching left open, and how much was saved for it."""
    if report.watching is None:
        return
    for each in report.watching.unexplained:
        yield Text.assemble(("no expression found  ", "yellow"), f"{each.model._meta.label}.{each.column}")
        yield indented(
            Text("saves write it: say what with FromPython and the receiver's own function", style="dim")
        )
    for record, why in report.watching.faults.items():
        yield Text.assemble(("not saved  ", "red"), f"{plain(record)}: {plain(why)}")
    faults = len(report.watching.faults)
    failed = f"; saves of {plural(faults, 'record')} failed" if faults else ""
    yield Text(f"Watched {plural(report.watching.saves, 'save')}, each rolled back{failed}.", style="dim")


def _draft(each: Tried) -> Iterator[RenderableType]:
    """Two lines: how far the rule holds, and what it says."""
    drifted = each.check.tally.total
    yield Text.assemble(
        (plain(each.rule), "bold"),
        f"  holds for {_percent(each.draft.share)}, ",
        (f"{drifted:,} drifted" if drifted else "none drifted", "red" if drifted else "green"),
        (
            ", unsure: it only reports" if each.draft.reports else ", unsure" if each.draft.unsure else "",
            "yellow",
        ),
        (f", as {plain(each.draft.said_by)} says already" if each.draft.said_by else "", "dim"),
    )
    yield indented(Text(plain(each.draft.must), style="dim"))


def _percent(share: float) -> str:
    """Never 100 % of what isn't all."""
    return "100 %" if share == 1 else f"{min(99.9, 100 * share):.1f} %"


def _next(report: DraftReport) -> list[RenderableType]:
    found: list[RenderableType] = [Text(f"{plain(each)} written.", style="green") for each in report.written]
    if report.settings and report.written:
        found.append(Text(f"Add to the settings: {report.settings}"))
    if not report.tried:
        found.append(Text(_why_nothing(report)))
        return found
    drifting = sum(bool(each.check.tally.total) for each in report.tried)
    said = sum(bool(each.draft.said_by) for each in report.tried)
    others = f"; {said:,} are said by rules of the project already, and not written" if said else ""
    then = " Read them, then: reconcile check" if report.written or report.kept else ""
    found.append(Text(f"{plural(len(report.tried), 'draft')}, {drifting:,} with drift{others}.{then}"))
    return found


def _why_nothing(report: DraftReport) -> str:
    if not report.looked_at:
        return "Nothing was drafted: the project has no models of its own. For those of a package, name each: reconcile init app.Model"
    if report.left_out:
        return "Nothing else was drafted."
    return (
        "Nothing was drafted: the tables have too few records, or nothing was found in them of what is looked for: counts, sums and the latest of rows that refer to the "
        "record, copies from those to which it refers, slugs, a row each. What is two steps away isn't looked for. On with a rule by hand: docs/first-rule.md"
    )


def _watched_as_dict(watching: Watching) -> dict[str, Any]:
    return {
        "saves": watching.saves,
        "unexplained": [f"{each.model._meta.label}.{each.column}" for each in watching.unexplained],
        "faults": dict(watching.faults),
    }


def as_json(report: DraftReport) -> str:
    """The same for machines."""
    return json.dumps(
        {
            "version": VERSION,
            "drafts": [
                {
                    "rule": each.rule,
                    "every": each.draft.every,
                    "must": each.draft.must,
                    "evidence": list(each.draft.evidence),
                    "unsure": each.draft.unsure or None,
                    "only_reports": bool(each.draft.reports),
                    "said_by": each.draft.said_by or None,
                    "share": round(each.draft.share, 4),
                    "drifted": each.check.tally.total,
                    "covers": sorted({one.effect.name for one in each.draft.covers}),
                }
                for each in report.tried
            ],
            "written": list(report.written),
            "kept": list(report.kept),
            "uncovered": [
                {"effect": each.name, "on": str(each.on), "model": each.model._meta.label}
                for each in report.uncovered
            ],
            "left_out": [{"model": model._meta.label, "why": why} for model, why in report.left_out],
            "settings": report.settings or None,
            **({} if report.watching is None else {"watched": _watched_as_dict(report.watching)}),
        },
        indent=2,
    )
