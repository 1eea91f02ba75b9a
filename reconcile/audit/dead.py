"""Receivers in the source that nothing has connected, because nobody imports the module in which they stand."""

from __future__ import annotations

import ast
import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.apps import AppConfig, apps
from django.dispatch import Signal

from reconcile.audit.cache import AuditCache
from reconcile.audit.effects import SIGNALS, is_third_party
from reconcile.audit.places import place_of
from reconcile.audit.sources import FunctionNode, Module, Sources, functions_in, module_name, path_of
from reconcile.audit.walking import walk
from reconcile.core.declaration import Place
from reconcile.db.django_compat import connections_of

__all__ = ["DeadReceiver", "dead_receivers"]

SKIPPED = frozenset({"tests", "test", "migrations", "node_modules", "site-packages"})
"""Folders that hold no receivers of the running project."""


@dataclass(frozen=True, kw_only=True)
class DeadReceiver:
    """A function that is written as a receiver, and that no signal calls. ready: the line for `ready()` of its app, and in which file."""

    name: str
    place: Place
    ready: str
    config: str


def dead_receivers(sources: Sources, cache: AuditCache | None = None) -> Iterator[DeadReceiver]:
    """Look through the source of the project's own apps. Imports nothing."""
    connected = {(place.file, place.line) for place in _connected()}
    for config in apps.get_app_configs():
        if not is_third_party(config.path):
            for file in _files(config):
                yield from _dead_in(file, _written_in(file, sources, cache), config, connected)


def _connected() -> Iterator[Place]:
    """Where the receivers of all signals stand; the project's own signals are known to nobody but the garbage collector."""
    # isinstance() would wake lazy objects, which read settings that may be missing.
    kinds: set[type] = {Signal, *_subclasses(Signal)}
    for signal in [each for each in gc.get_objects() if type(each) in kinds]:
        for connection in connections_of(signal):
            place = place_of(connection.receiver) if connection.receiver is not None else None
            if place is not None:
                yield place


def _subclasses(cls: type) -> Iterator[type]:
    each: type
    for each in cls.__subclasses__():
        yield each
        yield from _subclasses(each)


def _files(config: AppConfig) -> Iterator[str]:
    own = f"{config.path}{os.sep}"
    others = {f"{each.path}{os.sep}" for each in apps.get_app_configs()}
    within = tuple(each for each in others if each.startswith(own) and each != own)
    for file in sorted(Path(config.path).rglob("*.py")):
        folders = file.relative_to(config.path).parts[:-1]
        if SKIPPED.isdisjoint(folders) and not str(file).startswith(within):
            yield str(file.resolve())


def _written_in(file: str, sources: Sources, cache: AuditCache | None) -> Sequence[tuple[str, Sequence[int]]]:
    """The functions of the file that are written as receivers, by qualified name, each with the lines at which it may be said to begin."""
    text = sources.read(file)
    if b"receiver" not in text and b".connect(" not in text:
        return ()

    def read() -> list[tuple[str, list[int]]]:
        module = sources.of_file(file)
        return [*_written_as_receivers(module)] if module is not None else []

    found: Sequence[tuple[str, Sequence[int]]] = (
        cache.once("receivers", file, read) if cache is not None else read()
    )
    return found


def _dead_in(
    file: str,
    written: Iterable[tuple[str, Sequence[int]]],
    config: AppConfig,
    connected: set[tuple[str, int]],
) -> Iterator[DeadReceiver]:
    for name, lines in written:
        if not any((file, line) in connected for line in lines):
            module = module_name(file)
            package, _, last = module.rpartition(".")
            yield DeadReceiver(
                name=f"{module}.{name}",
                place=Place(module=module, file=file, line=min(lines)),
                ready=f"from {package} import {last}" if package else f"import {last}",
                config=str(Path(config.path) / "apps.py"),
            )


def _written_as_receivers(module: Module) -> Iterator[tuple[str, list[int]]]:
    named = _named_as_receivers(module)
    for name, node in functions_in(module.tree):
        if "<locals>" not in name and (node.name in named or _is_decorated(module, node)):
            yield name, sorted({node.lineno, *(each.lineno for each in node.decorator_list)})


def _is_decorated(module: Module, node: FunctionNode) -> bool:
    """Whether one of its decorators is Django's `receiver`."""
    called = (each.func for each in node.decorator_list if isinstance(each, ast.Call))
    return any(_is_receiver(module, each) for each in called)


def _is_receiver(module: Module, node: ast.expr) -> bool:
    first, *others = path_of(node)
    origin, name = module.imports.get(first, ("", None))
    path = ".".join([origin, *([name] if name else []), *others])
    return path.startswith("django.dispatch") and path.endswith(".receiver")


def _named_as_receivers(module: Module) -> set[str]:
    """The functions of the module that a `signal.connect(function)` in it names."""
    found = set()
    for node in walk(module.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "connect"
            and node.args
        ):
            first = node.args[0]
            *_, signal = path_of(node.func.value)
            if isinstance(first, ast.Name) and first.id in module.defined and _is_signal(module, signal):
                found.add(first.id)
    return found


def _is_signal(module: Module, name: str) -> bool:
    """Whether the name is one of a signal, by where it comes from: `connect` is a word of sockets and databases, too."""
    origin, _ = module.imports.get(name, ("", None))
    return "signals" in origin.split(".") or name in {*SIGNALS}
