"""What a test suite was seen to write past signals and methods, beside what the source says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.db import connections

from reconcile.audit.bypasses import Bypass, Judge
from reconcile.audit.calls import OF_ROWS, OF_SQL, Operation, Site, Write
from reconcile.audit.raw_sql import can_parse, writes_of
from reconcile.errors import UsageError

__all__ = ["SeenSite", "join_seen", "read_seen"]

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class SeenSite:
    """A call site that ran so many times, on one model; empty for a statement, whose text is `sql`."""

    path: str
    line: int
    function: str
    operation: str
    model: str
    sql: str
    times: int


def read_seen(path: Path) -> list[SeenSite]:
    """Read what `--reconcile-bypasses` has written. Raises UsageError if it can't be used."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise _unusable(
                path, f"version is {found['version']!r}, and this release reads version {VERSION}"
            )
        return [_site(each) for each in found["calls"]]
    except OSError as error:
        raise UsageError(
            f"{str(path)!r} can't be read: {error.strerror or error}. Write it with: pytest --reconcile-bypasses {path}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}") from error


def _unusable(path: Path, what: str) -> UsageError:
    return UsageError(f"{str(path)!r} is nothing that pytest --reconcile-bypasses wrote: {what}.")


def _site(row: Mapping[str, Any]) -> SeenSite:
    return SeenSite(
        path=str(Path(row["path"]).resolve()),
        line=int(row["line"]),
        function=str(row["function"]),
        operation=str(row["operation"]),
        model=row["model"] or "",
        sql=row["sql"] or "",
        times=int(row["times"]),
    )


def join_seen(
    judge: Judge, sites: Sequence[Site], seen: Sequence[SeenSite], files: Iterable[str]
) -> tuple[list[Bypass], list[Bypass]]:  # fmt: skip
    """What the calls skip, each with how often it ran, and then what ran and skips something although the source doesn't show it.

    A call of which the source doesn't tell the model has those that it was seen to write. files: those that were looked through; what ran
    elsewhere is not told of.
    """
    looked = {*files}
    ran = [each for each in seen if each.path in looked]
    listed = [each for site in sites for each in judge.judge_all([_filled(site, ran)])]
    listed = [
        replace(each, times=sum(one.times for one in ran if _is_at(one, each.site, each.model)))
        for each in listed
    ]
    others = [each for each in ran if not any(_is_at(each, site, None) for site in sites)]
    unlisted = judge.judge_all(_as_site(each, judge) for each in others)
    return listed, [each for each in unlisted if each.skips]


def _is_at(seen: SeenSite, site: Site, model: str | None) -> bool:
    first, last = site.lines
    return (
        seen.path == site.path
        and first <= seen.line <= last
        and (not seen.model or model in {None, seen.model})
    )


def _filled(site: Site, ran: Sequence[SeenSite]) -> Site:
    """The call with the models that it was seen to write, if the source doesn't tell them."""
    models = dict.fromkeys(each.model for each in ran if _is_at(each, site, None) and each.model)
    if site.writes or site.historical or not models or site.operation not in {*Operation}:
        return site
    return replace(
        site, writes=tuple(Write(operation=Operation(site.operation), model=each) for each in models)
    )


def _as_site(seen: SeenSite, judge: Judge) -> Site:
    return Site(
        path=seen.path,
        line=seen.line,
        module="",
        function=seen.function.replace(".<locals>", ""),
        operation=seen.operation,
        call=seen.operation,
        writes=tuple(_writes(seen, judge)),
        lines=(seen.line, seen.line),
    )


def _writes(seen: SeenSite, judge: Judge) -> Sequence[Write]:
    if seen.model:
        return [Write(operation=OF_ROWS[seen.operation], model=seen.model)]
    found = (writes_of(seen.sql, connections["default"].vendor) if can_parse() else None) or []
    models = ((each, judge.evaluator.registry.model_of_table(each.table)) for each in found)
    return [
        Write(operation=OF_SQL[each.verb], model=model._meta.label)
        for each, model in models
        if model is not None
    ]
