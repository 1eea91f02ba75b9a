"""What a test suite was seen to write past signals and methods, beside what the source says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from django.db import connections

from reconcile.audit.bypasses import Bypass, Judge
from reconcile.audit.calls import OF_ROWS, OF_SQL, Operation, Site, Write
from reconcile.audit.raw_sql import can_parse, writes_of
from reconcile.audit.recorded import SeenCall
from reconcile.audit.resolver.relations import Registry

__all__ = ["join_seen"]


def join_seen(
    judge: Judge, sites: Sequence[Site], seen: Mapping[SeenCall, int], files: Iterable[str]
) -> tuple[list[Bypass], list[Bypass]]:  # fmt: skip
    """What the calls skip, each with how often it ran, and then what ran and skips something although the source doesn't show it.

    A call of which the source doesn't tell the model has those that it was seen to write. files: those that were looked through; what ran
    elsewhere is not told of.
    """
    looked = {*files}
    ran = [each for each in seen if each.path in looked]
    listed = [
        each for site in sites for each in judge.judge_all([_filled(site, ran, judge.evaluator.registry)])
    ]
    listed = [
        replace(each, times=sum(seen[one] for one in ran if _is_at(one, each.site, each.model)))
        for each in listed
    ]
    others = [each for each in ran if not any(_is_at(each, site, None) for site in sites)]
    unlisted = judge.judge_all(_as_site(each, judge) for each in others)
    return listed, [each for each in unlisted if each.skips]


def _is_at(seen: SeenCall, site: Site, model: str | None) -> bool:
    first, last = site.lines
    return (
        seen.path == site.path
        and first <= seen.line <= last
        and (not seen.model or model in {None, seen.model})
    )


def _filled(site: Site, ran: Sequence[SeenCall], registry: Registry) -> Site:
    """The call with the models that it was seen to write, if the source doesn't tell them."""
    models = dict.fromkeys(
        each.model for each in ran if _is_at(each, site, None) and registry.model(each.model)
    )
    if site.writes or site.historical or not models or site.operation not in {*Operation}:
        return site
    return replace(
        site, writes=tuple(Write(operation=Operation(site.operation), model=each) for each in models)
    )


def _as_site(seen: SeenCall, judge: Judge) -> Site:
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


def _writes(seen: SeenCall, judge: Judge) -> Sequence[Write]:
    if seen.model and judge.evaluator.registry.model(seen.model) is None:
        # A recording is older than the name of its model.
        return []
    if seen.model:
        return [Write(operation=OF_ROWS[seen.operation], model=seen.model)]
    found = (writes_of(seen.sql, connections["default"].vendor) if can_parse() else None) or []
    models = ((each, judge.evaluator.registry.model_of_table(each.table)) for each in found)
    return [
        Write(operation=OF_SQL[each.verb], model=model._meta.label)
        for each, model in models
        if model is not None
    ]
