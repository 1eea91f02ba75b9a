"""What `init` has drafted, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Model
from rich.console import Group, RenderableType
from rich.text import Text

from reconcile.audit.drafts.trying import Tried
from reconcile.audit.effects import Effect
from reconcile.reports.facts import plural
from reconcile.reports.findings import plain
from reconcile.reports.text import table

__all__ = ["DraftReport", "as_json", "as_text"]

VERSION = 1
"""The version of the JSON."""


@dataclass(frozen=True, kw_only=True)
class DraftReport:
    """written: files that were made. kept: files that were there already, with the drafts that would have stood in them. uncovered: the project's effects
    that no draft covers. settings: the line that the settings lack, empty if they have it. left_out: models
    that could not be read.
    """

    tried: Sequence[Tried]
    written: Sequence[str]
    kept: dict[str, str]
    uncovered: Sequence[Effect]
    settings: str
    left_out: Sequence[tuple[type[Model], str]] = ()


def as_text(report: DraftReport) -> RenderableType:
    """A table of the drafts with their drift, then what no draft covers, what was written, and what comes next."""
    parts: list[RenderableType] = [""]
    if report.tried:
        rows = table("Rule", "Holds", "Drift", "Says", numbers=["Holds", "Drift"])
        for each in report.tried:
            drifted = f"{each.check.tally.total:,}"
            rows.add_row(plain(each.rule), f"{100 * each.draft.share:.1f} %", drifted, plain(each.draft.must))
        parts += [rows, ""]
    for effect in report.uncovered:
        parts.append(
            Text.assemble(
                ("no draft covers  ", "yellow"),
                f"{plain(effect.name)}, {effect.on} of {effect.model._meta.label}",
            )
        )
    for model, why in report.left_out:
        parts.append(Text.assemble(("left out  ", "red"), f"{model._meta.label}: {plain(why)}"))
    for path, text in report.kept.items():
        parts += [
            "",
            Text(f"{plain(path)} is there already and was not touched. Its drafts:", style="yellow"),
            "",
            Text(plain(text)),
        ]
    return Group(*parts, *_next(report))


def _next(report: DraftReport) -> list[RenderableType]:
    found: list[RenderableType] = [Text(f"{plain(each)} written.", style="green") for each in report.written]
    if report.settings:
        found.append(Text(f"Add to the settings: {report.settings}"))
    if not report.tried:
        found.append(
            Text(
                "Nothing was drafted: no table has enough records, or nothing in them follows from anything else."
            )
        )
    else:
        drifting = sum(bool(each.check.tally.total) for each in report.tried)
        found.append(
            Text(
                f"{plural(len(report.tried), 'draft')}, {drifting:,} with drift. Read them, then: reconcile check"
            )
        )
    return found


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
        },
        indent=2,
    )
