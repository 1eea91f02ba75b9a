"""Receivers in the source that nothing has connected, because nobody imports the module in which they stand."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.apps import AppConfig, apps
from django.dispatch import Signal

from reconcile.audit.effects import SIGNALS, is_third_party
from reconcile.audit.places import place_of
from reconcile.audit.sources import FunctionNode, Module, Sources, functions_in, path_of
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


def dead_receivers(sources: Sources) -> Iterator[DeadReceiver]:
    """Look through the source of the project's own apps. Imports nothing."""
    connected = {(place.file, place.line) for place in _connected()}
    for config in apps.get_app_configs():
        if not is_third_party(config.path):
            for module in _modules(config, sources):
                yield from _dead_in(module, config, connected)


def _connected() -> Iterator[Place]:
    """Where the receivers of all signals stand; the project's own signals are known to nobody but the garbage collector."""
    # isinstance() would wake lazy objects, which read settings that may be missing.
    for signal in [each for each in gc.get_objects() if issubclass(type(each), Signal)]:
        for connection in connections_of(signal):
            place = place_of(connection.receiver) if connection.receiver is not None else None
            if place is not None:
                yield place


def _modules(config: AppConfig, sources: Sources) -> Iterator[Module]:
    others = {Path(each.path) for each in apps.get_app_configs()} - {Path(config.path)}
    for file in sorted(Path(config.path).rglob("*.py")):
        inside = file.relative_to(config.path).parts[:-1]
        if SKIPPED & {*inside} or any(
            file.is_relative_to(other) and other.is_relative_to(config.path) for other in others
        ):
            continue
        text = file.read_bytes()
        if b"receiver" in text or b".connect(" in text:
            module = sources.of_file(str(file))
            if module is not None:
                yield module


def _dead_in(module: Module, config: AppConfig, connected: set[tuple[str, int]]) -> Iterator[DeadReceiver]:
    written = _written_as_receivers(module)
    for name, node in functions_in(module.tree):
        lines = {node.lineno, *(each.lineno for each in node.decorator_list)}
        is_connected = any((module.path, line) in connected for line in lines)
        if (
            (node.name in written or _is_decorated(module, node))
            and not is_connected
            and "<locals>" not in name
        ):
            package, _, last = module.name.rpartition(".")
            yield DeadReceiver(
                name=f"{module.name}.{name}",
                place=Place(module=module.name, file=module.path, line=min(lines)),
                ready=f"from {package} import {last}" if package else f"import {last}",
                config=str(Path(config.path) / "apps.py"),
            )


def _is_decorated(module: Module, node: FunctionNode) -> bool:
    """Whether one of its decorators is Django's `receiver`."""
    called = (each.func for each in node.decorator_list if isinstance(each, ast.Call))
    return any(_is_receiver(module, each) for each in called)


def _is_receiver(module: Module, node: ast.expr) -> bool:
    first, *others = path_of(node)
    origin, name = module.imports.get(first, ("", None))
    path = ".".join([origin, *([name] if name else []), *others])
    return path.startswith("django.dispatch") and path.endswith(".receiver")


def _written_as_receivers(module: Module) -> set[str]:
    """The functions of the module that a `signal.connect(function)` in it names."""
    found = set()
    for node in ast.walk(module.tree):
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
