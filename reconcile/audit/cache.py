"""What earlier runs have found, by file and by effect, in a file of the working folder. It is used where all that it was made from is as it was.

A result keeps the functions, classes and names that were read for it, what names of modules held, the names of which was asked who calls or
defines them, and which modules there were (`trail`). What the running project is beside its files (`world`) is the same for all: if that has changed, nothing is used.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings

from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.kept import from_plain, to_plain
from reconcile.audit.resolver.parts import Parts
from reconcile.audit.resolver.project import NamesInFile
from reconcile.audit.resolver.types import NOTHING, Types, texts_of
from reconcile.audit.sources import UnreadableSource
from reconcile.audit.trail import ANSWERS, WITHIN_FILES, Asked, Thing
from reconcile.audit.world import digest, held_by, world_digest
from reconcile.core.whole_files import write_file

__all__ = ["FOLDER", "AuditCache", "open_cache"]

FOLDER = ".reconcile_cache"
"""Where the cache stands, in the working folder; nothing in it need be kept or committed."""

VERSION = 3


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
        self._has_asked_again = False
        self._doubtful: set[Thing] = set()
        self._same: set[Thing] = set()
        self._files: dict[str, str] = {}
        self._parts = Parts(self.project)
        self._unreadable: dict[str, str] = {}
        self._names: dict[str, NamesInFile] = {}
        # Who reads effects tells how.
        self.acts_of: Callable[[str], Any] = lambda _: None
        self.bare_of: Callable[[str], Types] = lambda _: NOTHING
        self._told: Mapping[Asked, Callable[[str], str]] = {
            Asked.FILE: lambda name: digest([self.project.text(name)]),
            Asked.HELD: held_by,
            **{each: partial(self._digest_of_answer, each) for each in ANSWERS},
            Asked.ACTS: lambda name: digest([json.dumps(self.acts_of(name))]),
            Asked.CALLED: lambda name: digest(self.project.files_calling(name)),
            Asked.DEFINED: lambda name: digest(self.project.definitions(name)),
            Asked.MENTIONED: lambda name: digest(self.project.files_naming(name)),
            Asked.MODULE: lambda name: str(self.project.sources.has_module(name)),
        }
        self._old: dict[str, dict[str, Any]] = {}
        self._new: dict[str, dict[str, tuple[Any, int]]] = {}
        self._read()
        evaluator.answer_of_before = self._answer_of_before
        self.project.names_of_before = self._names_of_before

    def _read(self) -> None:
        # A file that somebody else wrote, or cut short, is as good as none.
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self.path.read_bytes())
            if (found["version"], found["world"]) == (VERSION, self._world):
                self._then = {(Asked(asked), name): held for asked, name, held in found["things"]}
                self._things = [*self._then]
                self._files = dict(found["files"])
                self._unreadable = dict(found["unreadable"])
                self._names = {
                    path: NamesInFile(called, defined) for path, (called, defined) in found["names"].items()
                }
                self._old = {str(kind): dict(results) for kind, results in found["results"].items()}

    def _names_of_before(self, path: str) -> NamesInFile | None:
        """The names in the text of a file that is as it was."""
        is_same = path in self._names and self._files.get(path) == self._digest((Asked.FILE, path))
        return self._names[path] if is_same else None

    def once(self, kind: str, key: str, make: Callable[[], Any]) -> Any:
        """The result of the key as a plain value: that of an earlier run if it still holds, else what `make` gives."""
        if not self._has_asked_again:
            self._has_asked_again = True
            self._ask_again()
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

    # Answers that are found by evaluating.

    def _answer_of_before(self, thing: Thing) -> tuple[Types, int] | None:
        """What an earlier run has answered, if that is surely what would be answered now.

        Nothing is evaluated for this: it is asked in the midst of evaluating, where an answer may be cut short.
        """
        if not self._is_surely_as_it_was(thing):
            return None
        (_, plain), indices = self._old_answer(thing)
        types, _ = self.trail.apart(lambda: from_plain(self.evaluator, plain))
        if types is None:
            return None
        _, mask = self.trail.apart(lambda: self._note(self._things[each] for each in indices))
        return types, mask

    def _old_answer(self, thing: Thing) -> Any:
        return self._old.get(thing[0], {}).get(thing[1])

    def _old_answers(self) -> Iterator[tuple[Thing, Sequence[int]]]:
        for kind in ANSWERS:
            for name, (_, indices) in self._old.get(kind, {}).items():
                yield (kind, name), indices

    def _is_surely_as_it_was(self, thing: Thing) -> bool:
        """Whether neither the answer nor one that it was made from is doubtful."""
        reached, waiting = {thing}, [] if thing in self._same else [thing]
        while waiting:
            each = waiting.pop()
            held = self._old_answer(each)
            if held is None or each in self._doubtful:
                return False
            things = {self._things[one] for one in held[1]}
            new = {one for one in things if one[0] in ANSWERS} - reached - self._same
            reached |= new
            waiting += new
        self._same |= reached
        return True

    def _ask_again(self) -> None:
        """Ask again for the answers that were made from what has changed, and for those that were made from answers that are others now."""
        asking: dict[Thing, list[Thing]] = defaultdict(list)
        for thing, indices in self._old_answers():
            for each in indices:
                if self._things[each][0] in ANSWERS:
                    asking[self._things[each]].append(thing)
                elif not self._is_as_it_was(each):
                    self._doubtful.add(thing)
        waiting = sorted(self._doubtful)
        while waiting:
            thing = waiting.pop()
            if self._digest_of_evaluated(thing) == self._old_answer(thing)[0][0]:
                self._doubtful.discard(thing)
                self._same.add(thing)
                continue
            new = {*asking[thing]} - self._doubtful - self._same
            self._doubtful |= new
            waiting += sorted(new)

    def _digest_of_evaluated(self, thing: Thing) -> str:
        return digest(texts_of(self._evaluated(*thing)))

    def _evaluated(self, asked: Asked, name: str) -> Types:
        if asked is Asked.CALLEES:
            return self.evaluator.callees(*name.split("::"))
        if asked is Asked.BARE:
            return self.bare_of(name)
        if asked is Asked.CALLERS:
            return self.evaluator.callers_in(*name.split("::"))
        path, function, parameter = name.split("::")
        module = self.project.sources.parsed(path)
        scope = self.project.scope_named(module, function) if module is not None else None
        if scope is None or parameter not in scope.parameters:
            return NOTHING
        return self.evaluator.parameter(scope, parameter)

    def _digest_of_answer(self, asked: Asked, name: str) -> str:
        """Whatever it was made from may have changed, and the answer be what it was: then nothing that asked for it has to be made again."""
        thing = (asked, name)
        return (
            str(self._old_answer(thing)[0][0])
            if self._is_surely_as_it_was(thing)
            else self._digest_of_evaluated(thing)
        )

    def write(self) -> None:
        """Keep what was found beside what still holds. Whoever may not write goes without: it is only time that is lost."""
        if not self._new:
            return
        for (asked, name), (types, mask) in self.evaluator.answers.items():
            if not self._is_surely_as_it_was((asked, name)):
                plain = to_plain(self.evaluator, types)
                self._new.setdefault(asked, {})[name] = [digest(texts_of(types)), plain], mask
        places: dict[Thing, int] = {}
        results: dict[str, dict[str, Any]] = {}
        for kind, key, value, things in (*self._kept(), *self._made()):
            indices = [places.setdefault(each, len(places)) for each in things]
            results.setdefault(kind, {})[key] = [value, indices]
        held = {
            "version": VERSION, "world": self._world, "files": self._files_of(places), "things": [[*each, self._digest(each)] for each in places],
            "unreadable": {**self._unreadable, **{path: each.why for path, each in self.project.sources.unreadable.items()}},
            "names": {each: self.project.names(each) for each in self.project.files}, "results": results,
        }  # fmt: skip
        text = json.dumps(held, separators=(",", ":"))
        with suppress(OSError):
            self._replace(text)

    def _files_of(self, things: Iterable[Thing]) -> dict[str, str]:
        """The files of the project, and those in which the things stand, with their digests."""
        paths = {name.partition("::")[0] for asked, name in things if asked in WITHIN_FILES} | {
            *self.project.files
        }
        return {each: self._digest((Asked.FILE, each)) for each in sorted(paths)}

    def _kept(self) -> Iterable[tuple[str, str, Any, list[Thing]]]:
        for kind, results in self._old.items():
            for key, (value, indices) in results.items():
                if key not in self._new.get(kind, {}) and self._still_holds(kind, key, indices):
                    yield kind, key, value, [self._things[each] for each in indices]

    def _still_holds(self, kind: str, key: str, indices: Iterable[int]) -> bool:
        return (
            self._is_surely_as_it_was((Asked(kind), key))
            if kind in ANSWERS
            else all(map(self._is_as_it_was, indices))
        )

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
