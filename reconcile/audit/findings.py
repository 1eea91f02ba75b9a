"""What each file's calls skip, looked up in what earlier runs have found, or found anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from reconcile.audit.bypasses import Judge, Level, Weighed
from reconcile.audit.cache import AuditCache
from reconcile.audit.calls import Operation, Site, Write, find_sites, may_hold_sites
from reconcile.audit.effects import Effect
from reconcile.audit.sources import UnreadableSource

__all__ = ["sites_of"]


def sites_of(
    judge: Judge, path: str, words: re.Pattern[bytes] | None, cache: AuditCache | None
) -> Sequence[Site]:
    """The calls of a file, in the order of their lines; the judge knows what each skips. words: of which it needs one to be read at all."""
    project = judge.evaluator.project
    if not may_hold_sites(project.text(path), words):
        return ()
    if cache is None:
        return _found_in(judge, path)
    plain = cache.once("calls", path, lambda: [_as_plain(judge, each) for each in _found_in(judge, path)])
    return [_from_plain(judge, each) for each in plain]


def _found_in(judge: Judge, path: str) -> Sequence[Site]:
    sources = judge.evaluator.project.sources
    module = sources.of_file(path)
    try:
        found = [*find_sites(judge.evaluator, module)] if module is not None else []
        for site, write in ((each, write) for each in found for write in each.writes):
            judge.weigh(site, write)
    except RecursionError:
        sources.unreadable[path] = UnreadableSource(path=path, why="its expressions are nested too deeply")
        return []
    return found


def _as_plain(judge: Judge, site: Site) -> dict[str, Any]:
    weighed = [[_weighed_as_plain(each) for each in judge.weigh(site, write)] for write in site.writes]
    return {**asdict(site), "weighed": weighed}


def _weighed_as_plain(each: Weighed) -> list[str]:
    effect, level, reason = each
    return [effect.key, level, reason]


def _from_plain(judge: Judge, plain: Mapping[str, Any]) -> Site:
    writes = tuple(map(_write_of, plain["writes"]))
    given = {name: value for name, value in plain.items() if name != "weighed"}
    site = Site(
        **{
            **given,
            "writes": writes,
            "lines": tuple(plain["lines"]),
            "operation": _operation(plain["operation"]),
        }
    )
    for write, weighed in zip(writes, plain["weighed"], strict=True):
        effects = {each.key: each for each in judge.effects_of(write)}
        judge.know(site, write, [*_weighed_of(effects, weighed)])
    return site


def _weighed_of(effects: Mapping[str, Effect], plain: Sequence[Sequence[str]]) -> Iterator[Weighed]:
    for key, level, reason in plain:
        yield effects[key], Level(level), reason


def _write_of(plain: Mapping[str, Any]) -> Write:
    lists = {name: tuple(plain[name]) if plain[name] is not None else None for name in ("columns", "passed")}
    return Write(**{**plain, **lists, "operation": Operation(plain["operation"])})


def _operation(name: str) -> str:
    return Operation(name) if name in {*Operation} else name
