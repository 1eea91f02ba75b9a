"""What earlier runs have found, by file and by effect, in a file of the working folder. It is used where all that it was made from is as it was.

A result keeps the functions, classes and names that were read for it, what names of modules held, the names of which was asked who calls or
defines them, and which modules there were (`trail`). What the running project is beside its files (`world`) is the same for all: if that has changed, nothing is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings

from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.parts import Parts
from reconcile.audit.resolver.types import NOTHING, Types, texts_of
from reconcile.audit.sources import UnreadableSource
from reconcile.audit.trail import WITHIN_FILES, Asked, Thing
from reconcile.audit.world import digest, held_by, world_digest
from reconcile.core.whole_files import write_file

__all__ = ["FOLDER", "AuditCache", "open_cache"]

FOLDER = ".reconcile_cache"
"""Where the cache stands, in the working folder; nothing in it need be kept or committed."""

VERSION = 1


class AuditCache:
    """Gives and takes results as plain values. A run that reads other texts than those of the files has none."""

    def __init__(self, path: Path, evaluator: Evaluator) -> None:
        self.path = path
        self.evaluator = evaluator
        self.project = evaluator.project
        self.trail = self.project.trail
        self._world = world_digest()
        self._digests: dict[Thing, str] = {}
        self._things: list[Thing] = []
        self._then: dict[Thing, str] = {}
        self._holds: dict[int, bool] = {}
        self._asking: set[str] = set()
        self._files: dict[str, str] = {}
        self._parts = Parts(self.project)
        self._unreadable: dict[str, str] = {}
        # Who reads effects tells how.
        self.acts_of: Callable[[str], Any] = lambda _: None
        self._told: Mapping[Asked, Callable[[str], str]] = {
            Asked.FILE: lambda name: digest([self.project.text(name)]),
            Asked.HELD: held_by,
            Asked.PARAMETER: self._digest_of_parameter,
            Asked.ACTS: lambda name: digest([json.dumps(self.acts_of(name))]),
            Asked.CALLED: lambda name: digest(self.project.files_calling(name)),
            Asked.DEFINED: lambda name: digest(self.project.definitions(name)),
            Asked.MENTIONED: lambda name: digest(self.project.files_naming(name)),
            Asked.MODULE: lambda name: str(self.project.sources.has_module(name)),
        }
        self._old: dict[str, dict[str, Any]] = {}
        self._new: dict[str, dict[str, tuple[Any, int]]] = {}
        self._read()

    def _read(self) -> None:
        # A file that somebody else wrote, or cut short, is as good as none.
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self.path.read_bytes())
            if (found["version"], found["world"]) == (VERSION, self._world):
                self._then = {(Asked(asked), name): held for asked, name, held in found["things"]}
                self._things = [*self._then]
                self._files = dict(found["files"])
                self._unreadable = dict(found["unreadable"])
                self._old = {str(kind): dict(results) for kind, results in found["results"].items()}

    def once(self, kind: str, key: str, make: Callable[[], Any]) -> Any:
        """The result of the key as a plain value: that of an earlier run if it still holds, else what `make` gives."""
        held = self._old.get(kind, {}).get(key)
        if held is not None and all(map(self._is_as_it_was, held[1])):
            self._note(self._things[each] for each in held[1])
            return held[0]
        found, mask = self.trail.made(make)
        self._new.setdefault(kind, {})[key] = found, mask
        return found

    def _note(self, things: Iterable[Thing]) -> None:
        """Note what a result was made from. What could not be read then can't be read now, and is told again."""
        for asked, name in things:
            self.trail.note(asked, name)
            if asked is Asked.FILE and name in self._unreadable:
                found = UnreadableSource(path=name, why=self._unreadable[name])
                self.project.sources.unreadable.setdefault(name, found)

    def _is_as_it_was(self, place: int) -> bool:
        if place not in self._holds:
            thing = self._things[place]
            self._holds[place] = self._digest(thing) == self._then[thing]
        return self._holds[place]

    def _digest(self, thing: Thing) -> str:
        if thing not in self._digests:
            self._digests[thing] = self._digest_of(*thing)
        return self._digests[thing]

    def _digest_of(self, asked: Asked, name: str) -> str:
        if asked not in WITHIN_FILES:
            return self._told[asked](name)
        path, then = name.partition("::")[0], self._then.get((asked, name))
        if then is not None and self._files.get(path) == self._digest((Asked.FILE, path)):
            # The file is as it was: so is all in it, which needn't be parsed.
            return then
        return digest(self._parts.at(asked, name))

    def _digest_of_parameter(self, name: str) -> str:
        """The callers may have changed, and the parameter be what it was: then nothing that asked for it has to be made again."""
        digest_then, indices = self._old.get("parameter", {}).get(name, ("", ()))
        if name in self._asking:
            return "it depends on itself"
        self._asking.add(name)
        try:
            if (
                name not in self.evaluator.parameters
                and digest_then
                and all(map(self._is_as_it_was, indices))
            ):
                return str(digest_then)
            return digest(texts_of(self._parameter(*name.split("::"))))
        finally:
            self._asking.discard(name)

    def _parameter(self, path: str, function: str, name: str) -> Types:
        module = self.project.sources.parsed(path)
        scope = self.project.scope_named(module, function) if module is not None else None
        return (
            self.evaluator.parameter(scope, name)
            if scope is not None and name in scope.parameters
            else NOTHING
        )

    def write(self) -> None:
        """Keep what was found beside what still holds. Whoever may not write goes without: it is only time that is lost."""
        if not self._new:
            return
        parameters = self.evaluator.parameters.items()
        self._new["parameter"] = {name: (digest(texts_of(types)), mask) for name, (types, mask) in parameters}
        places: dict[Thing, int] = {}
        results: dict[str, dict[str, Any]] = {}
        for kind, key, value, things in (*self._kept(), *self._made()):
            indices = [places.setdefault(each, len(places)) for each in things]
            results.setdefault(kind, {})[key] = [value, indices]
        held = {
            "version": VERSION, "world": self._world, "files": self._files_of(places), "things": [[*each, self._digest(each)] for each in places],
            "unreadable": {**self._unreadable, **{path: each.why for path, each in self.project.sources.unreadable.items()}},
            "results": results,
        }  # fmt: skip
        text = json.dumps(held, separators=(",", ":"))
        with suppress(OSError):
            self._replace(text)

    def _files_of(self, things: Iterable[Thing]) -> dict[str, str]:
        """The files in which the things stand, with their digests."""
        paths = {name.partition("::")[0] for asked, name in things if asked in WITHIN_FILES}
        return {each: self._digest((Asked.FILE, each)) for each in sorted(paths)}

    def _kept(self) -> Iterable[tuple[str, str, Any, list[Thing]]]:
        for kind, results in self._old.items():
            for key, (value, indices) in results.items():
                if key not in self._new.get(kind, {}) and all(map(self._is_as_it_was, indices)):
                    yield kind, key, value, [self._things[each] for each in indices]

    def _made(self) -> Iterable[tuple[str, str, Any, list[Thing]]]:
        for kind, results in self._new.items():
            for key, (value, mask) in results.items():
                yield kind, key, value, self.trail.things(mask)

    def _replace(self, text: str) -> None:
        folder = self.path.parent
        if not folder.exists():
            folder.mkdir()
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        write_file(self.path, lambda target: target.write(text))


def open_cache(evaluator: Evaluator) -> AuditCache:
    """The cache of these settings in the working folder."""
    return AuditCache(
        Path(FOLDER) / f"audit-{os.environ.get('DJANGO_SETTINGS_MODULE') or settings.SETTINGS_MODULE}.json",
        evaluator,
    )
