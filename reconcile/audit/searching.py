"""The search for bypasses through a project's files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reconcile.audit.bypasses import Bypass, Judge
from reconcile.audit.cache import open_cache
from reconcile.audit.calls import exemptions_in
from reconcile.audit.coverage import wrong_names
from reconcile.audit.effects import inherited_but_deaf
from reconcile.audit.files import is_migration, is_test, python_files, roots
from reconcile.audit.findings import sites_of
from reconcile.audit.reading import EffectReader
from reconcile.audit.recorded import SeenCall
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.project import Project
from reconcile.audit.resolver.relations import Registry
from reconcile.audit.seen import join_seen
from reconcile.audit.sources import Sources, UnreadableSource, module_name, without_collecting
from reconcile.core.declaration import shown_path
from reconcile.errors import UsageError
from reconcile.rules.rule import Rule

__all__ = ["BypassAudit", "Search", "search_bypasses"]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is looked through. paths: files and folders, all of the project's own if there are none. tests, migrations: look through these, too.

    seen: what tests were seen to run, to be told beside it. use_cache: use what earlier runs in this folder have found, and keep what this one finds.
    """

    paths: Sequence[Path] = ()
    tests: bool = False
    migrations: bool = False
    seen: Mapping[SeenCall, int] | None = None
    use_cache: bool = False


@dataclass(frozen=True, kw_only=True)
class BypassAudit:
    """What was found. files: how many were looked through. faults: comments and settings that exempt nothing, or without a reason.

    left_out: files of tests and migrations that were not looked through. modules: the names of the project's, each with whether it was looked through. is_whole: no path was named. unlisted: what was seen to run and skips something, although the
    source doesn't show it.
    """

    bypasses: Sequence[Bypass]
    unreadable: Sequence[UnreadableSource]
    faults: Sequence[str]
    files: int
    left_out: int
    modules: Mapping[str, bool] = field(default_factory=dict)
    is_whole: bool = True
    unlisted: Sequence[Bypass] = ()

    def looked_through(self, function: str) -> bool:
        """Whether the module in which the function stands was looked through; one that is there no more was, if all were."""
        parts = function.split(".")
        names = (".".join(parts[:number]) for number in range(len(parts), 0, -1))
        return next((self.modules[each] for each in names if each in self.modules), self.is_whole)


def search_bypasses(
    rules: Mapping[str, Rule], exempt: Mapping[str, str], search: Search = Search(), texts: Mapping[str, bytes | None] | None = None
) -> BypassAudit:  # fmt: skip
    """Find the calls that skip effects. Costs no statement. texts: what stands in place of files, which no cache is used for.

    Raises UsageError for a path that isn't there.
    """
    with without_collecting():
        return _search(rules, exempt, search, texts)


def _search(
    rules: Mapping[str, Rule],
    exempt: Mapping[str, str],
    search: Search,
    texts: Mapping[str, bytes | None] | None,
) -> BypassAudit:
    everything = [*python_files(roots())]
    wanted = [*_named_by(search.paths)] if search.paths else everything
    files = dict.fromkeys(each for each in wanted if search.paths or _is_looked_at(each, search))
    own = (each for each in everything if not is_test(each) and not is_migration(each))
    sources = Sources(texts)
    project = Project(sources, dict.fromkeys([*own, *files]))
    evaluator = Evaluator(project, Registry())
    cache = open_cache(evaluator) if search.use_cache and texts is None else None
    reader = EffectReader(evaluator, cache)
    words = _pattern(reader)
    judge = Judge(reader=reader, rules=rules, exempt=exempt)
    sites = [site for path in files for site in sites_of(judge, path, words, cache)]
    bypasses, unlisted = (
        (judge.judge_all(sites), []) if search.seen is None else join_seen(judge, sites, search.seen, files)
    )
    if cache is not None:
        cache.write()
    names = {each.name for model in evaluator.registry.models for each in reader.effects_of(model)}
    return BypassAudit(
        bypasses=bypasses,
        unlisted=unlisted,
        unreadable=[each for path, each in sources.unreadable.items() if path in files],
        faults=[*_faults(project, files, bypasses), *wrong_names(rules, exempt, names)],
        files=len(files),
        modules={module_name(each): each in files for each in (*everything, *files)},
        is_whole=not search.paths,
        left_out=len(wanted) - len(files),
    )


def _pattern(reader: EffectReader) -> re.Pattern[bytes] | None:
    """The words of changes to relations that skip something, and of saves if a proxy's skip something."""
    registry = reader.evaluator.registry
    names = {
        name for model in registry.models for name, relation in registry.relations_of(model).items()
        if reader.effects_of(relation.target if relation.column or relation.through is None else relation.through)
    }  # fmt: skip
    ways = (
        [
            rf"\.({'|'.join(sorted(map(re.escape, names)))})\.a?(add|set|remove|clear|create|get_or_create|update_or_create)\s*\("
        ]
        if names
        else []
    )
    if any(inherited_but_deaf(each) for each in registry.models if each._meta.proxy):
        ways.append(r"\.a?(save|create|get_or_create|update_or_create)\s*\(")
    return re.compile("|".join(ways).encode()) if ways else None


def _faults(project: Project, files: Iterable[str], bypasses: Iterable[Bypass]) -> Iterator[str]:
    """Comments that exempt nothing, or give no reason: none may outlive what it was for."""
    sites = [each.site for each in bypasses]
    for path in files:
        for line, reason in exemptions_in(project.text(path)).items():
            where = f"{shown_path(path)}:{line}"
            if not reason:
                yield f"{where}: '# reconcile: exempt' needs a reason after it."
            elif not any(each.path == path and each.lines[0] <= line <= each.lines[1] for each in sites):
                yield f"{where}: '# reconcile: exempt' stands on a line that skips nothing. Take it out."


def _existing(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise UsageError(f"There is no file or folder {str(path)!r}.")
        yield path.resolve()


def _named_by(paths: Iterable[Path]) -> Iterable[str]:
    """The files themselves, each once, that several paths and links may lead to."""
    return dict.fromkeys(str(Path(each).resolve()) for each in python_files(_existing(paths)))


def _is_looked_at(path: str, search: Search) -> bool:
    return (search.tests or not is_test(path)) and (search.migrations or not is_migration(path))
