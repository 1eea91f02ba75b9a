"""The source of modules, parsed without importing them: what each imports, and the functions in it."""

from __future__ import annotations

import ast
import gc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from reconcile.audit.trail import Asked, Trail
from reconcile.audit.walking import blocks

__all__ = [
    "FunctionNode",
    "Module",
    "Sources",
    "UnreadableSource",
    "arguments_of",
    "functions_in",
    "imported_by",
    "module_name",
    "path_of",
    "without_collecting",
]

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class UnreadableSource:
    """A file that can't be parsed, and why: its syntax may be newer than the Python that reads it."""

    path: str
    why: str


@dataclass(kw_only=True, eq=False)
class Module:
    """One parsed file. name: as it is imported.

    imports: for each name that an import anywhere in it gives what it stands for: a module, and the name in it, or None for the module
    itself; the last, where several give the same. stars: the modules of which it imports all names.
    """

    name: str
    path: str
    tree: ast.Module
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)

    @property
    def package(self) -> str:
        """What relative imports begin at."""
        return self.name if Path(self.path).name == "__init__.py" else self.name.rpartition(".")[0]

    @cached_property
    def defined(self) -> dict[str, FunctionNode | ast.ClassDef]:
        """Functions and classes at the top, also below an `if` or `try`."""
        return {
            node.name: node
            for node in _at_top(self.tree.body)
            if isinstance(node, FunctionNode | ast.ClassDef)
        }

    @cached_property
    def functions(self) -> dict[str, FunctionNode]:
        """All functions by their qualified name, methods and local ones too."""
        return dict(functions_in(self.tree))

    def function_at(self, line: int) -> FunctionNode | None:
        """The function that begins at the line, with its first decorator or its `def`."""
        return self._by_line.get(line)

    @cached_property
    def _by_line(self) -> dict[int, FunctionNode]:
        found = {}
        for node in self.functions.values():
            found[node.lineno] = node
            found[min([node.lineno, *(each.lineno for each in node.decorator_list)])] = node
        return found


def functions_in(tree: ast.AST, within: Sequence[str] = ()) -> Iterator[tuple[str, FunctionNode]]:
    """Each function with its qualified name; a block such as an `if` gives none of its own."""
    for node in blocks(tree):
        if isinstance(node, FunctionNode):
            yield ".".join([*within, node.name]), node
            yield from functions_in(node, [*within, node.name, "<locals>"])
        elif isinstance(node, ast.ClassDef):
            yield from functions_in(node, [*within, node.name])
        else:
            yield from functions_in(node, within)


def path_of(node: ast.expr) -> list[str]:
    """`services.sum_items` in its parts; the first is empty where it begins with no name."""
    if isinstance(node, ast.Attribute):
        return [*path_of(node.value), node.attr]
    return [node.id if isinstance(node, ast.Name) else ""]


def arguments_of(node: FunctionNode) -> set[str]:
    """The names of the arguments, without those that take the rest."""
    return {each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}


def _at_top(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            for block in (node.body, node.orelse, *(each.body for each in getattr(node, "handlers", ()))):
                yield from _at_top(block)


@contextmanager
def without_collecting() -> Iterator[None]:
    """Without the garbage collector, which would walk through millions of nodes again and again that are all in use.

    What is left of them afterwards is taken for old, so that a process that ends soon doesn't walk through them even once.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


class Sources:
    """Parses each file once. unreadable: the files that it could not parse. named: files by the names of their modules, which nothing has imported.

    texts: what stands in place of what is in some files; None for one that is to be taken for missing.
    """

    def __init__(self, texts: Mapping[str, bytes | None] | None = None) -> None:
        self.texts = texts or {}
        self.unreadable: dict[str, UnreadableSource] = {}
        self.named: dict[str, str] = {}
        self.trail = Trail()
        self._texts: dict[str, bytes] = {}
        self._listed: dict[str, frozenset[str]] = {}
        self._by_path: dict[str, Module | None] = {}
        self._by_name: dict[str, str | None] = {}

    def read(self, path: str) -> bytes:
        """The bytes of the file, as they were when it was first asked for. Raises OSError."""
        if path in self.texts:
            text = self.texts[path]
            if text is None:
                raise FileNotFoundError(path)
            return text
        if path not in self._texts:
            self._texts[path] = Path(path).read_bytes()
        return self._texts[path]

    def of_file(self, path: str) -> Module | None:
        """The module of the file, all of which is read; None where it can't be parsed, which is noted."""
        module = self.parsed(path)
        if module is not None:
            self.trail.note(Asked.FILE, module.path)
        return module

    def parsed(self, path: str) -> Module | None:
        """The module of the file, as `of_file`. Whoever asks notes what he reads of it."""
        if path not in self._by_path:
            resolved = str(Path(path).resolve())
            if resolved not in self._by_path:
                self._by_path[resolved] = self._parse(resolved, module_name(resolved))
            self._by_path[path] = self._by_path[resolved]
        module = self._by_path[path]
        if module is None:
            self.trail.note(Asked.FILE, path)
        return module

    def _parse(self, path: str, name: str) -> Module | None:
        try:
            tree = ast.parse(self.read(path), filename=path)
        except (OSError, SyntaxError, ValueError, RecursionError) as error:
            self.unreadable[path] = UnreadableSource(path=path, why=f"{type(error).__name__}: {error}")
            return None
        module = Module(name=name, path=path, tree=tree)
        _note_imports(module, tree)
        return module

    def has_module(self, name: str) -> bool:
        """Whether there is a file for the module, which is not read."""
        self.trail.note(Asked.MODULE, name)
        return self.file_of(name) is not None

    def of_module(self, name: str) -> Module | None:
        """The module of the name, where it stands in a file that can be found without importing anything. Whoever asks notes what he reads of it."""
        self.trail.note(Asked.MODULE, name)
        path = self.file_of(name)
        return self.parsed(path) if path else None

    def file_of(self, name: str) -> str | None:
        """The file of the module, where it can be found without importing anything."""
        if name not in self._by_name:
            self._by_name[name] = self._find(name)
        return self._by_name[name]

    def _find(self, name: str) -> str | None:
        live = sys.modules.get(name)
        file = getattr(live, "__file__", None) or self.named.get(name)
        if file is not None:
            return file if file.endswith(".py") else None
        top = name.partition(".")[0]
        entries = [each for each in sys.path if not self._names_in(each).isdisjoint((top, f"{top}.py"))]
        places = [Path(each or ".", *name.split(".")) for each in entries]
        candidates = (file for each in places for file in (each.with_suffix(".py"), each / "__init__.py"))
        return next((str(each) for each in candidates if each.is_file()), None)

    def _names_in(self, entry: str) -> frozenset[str]:
        """What stands in a folder of `sys.path`; nothing in what is none."""
        if entry not in self._listed:
            with suppress(OSError):
                self._listed[entry] = frozenset(each.name for each in Path(entry or ".").iterdir())
        return self._listed.setdefault(entry, frozenset())


def _note_imports(module: Module, parent: ast.AST) -> None:
    """Note the imports of a block and of those in it; expressions hold none."""
    for node in blocks(parent):
        _note_import(module, node)
        _note_imports(module, node)


def _note_import(module: Module, node: ast.AST) -> None:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        imported = imported_by(module, node)
        module.imports.update(imported)
        module.stars += [origin for name, (origin, _) in imported.items() if name == "*"]


def imported_by(module: Module, node: ast.Import | ast.ImportFrom) -> dict[str, tuple[str, str | None]]:
    """The names that one import gives, each with what it stands for, as `Module.imports`."""
    if isinstance(node, ast.ImportFrom):
        origin = _origin(module, node)
        return {each.asname or each.name: (origin, each.name) for each in node.names}
    tops = ((each, each.name.partition(".")[0]) for each in node.names)
    return {each.asname or top: (each.name if each.asname else top, None) for each, top in tops}


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.package.split(".")
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def module_name(path: str) -> str:
    """The name by which the file is imported: as it has been, else from the folder of `sys.path` in which it stands, else from its outermost package."""
    found = _loaded().get(path)
    if found:
        return found
    file = Path(path)
    parts = [] if file.name == "__init__.py" else [file.stem]
    for entry in _entries(tuple(sys.path)):
        if path.startswith(entry):
            names = [*Path(path[len(entry) :]).parts[:-1], *parts]
            if all(each.isidentifier() for each in names):
                return ".".join(names)
    folder = file.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


@cache
def _entries(places: tuple[str, ...]) -> list[str]:
    """The folders of `sys.path`, the longest first, each with a separator at its end."""
    return sorted({f"{Path(each or '.').resolve()}{os.sep}" for each in places}, key=len, reverse=True)


@cache
def _loaded() -> dict[str, str]:
    """The names of the modules that are imported, by their files. A module may be imported later: its name is found another way, then."""
    files = ((getattr(each, "__file__", None), name) for name, each in [*sys.modules.items()])
    return {str(file): name for file, name in files if isinstance(file, str) and name != "__main__"}
