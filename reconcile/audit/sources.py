"""The source of modules, parsed without importing them: what each imports, defines and assigns at its top."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

__all__ = ["FunctionNode", "Module", "Sources", "UnreadableSource", "functions_in"]

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class UnreadableSource:
    """A file that can't be parsed, and why: its syntax may be newer than the Python that reads it."""

    path: str
    why: str


@dataclass(kw_only=True, eq=False)
class Module:
    """One parsed file. name: as it is imported.

    imports: for each name what it stands for: a module, and the name in it, or None for the module itself. stars: the modules of which
    all names are imported.
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
    def assigned(self) -> dict[str, list[ast.expr]]:
        """The values that each name is given at the top."""
        found: dict[str, list[ast.expr]] = {}
        for node in _at_top(self.tree.body):
            value = getattr(node, "value", None)
            if isinstance(node, ast.Assign | ast.AnnAssign) and value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        found.setdefault(target.id, []).append(value)
        return found

    @cached_property
    def functions(self) -> dict[str, FunctionNode]:
        """All functions by their qualified name, methods and local ones too."""
        return {name: node for name, node, _ in functions_in(self.tree)}

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


def functions_in(
    tree: ast.AST, within: Sequence[str] = ()
) -> Iterator[tuple[str, FunctionNode, ast.ClassDef | None]]:
    """Each function with its qualified name, and the class in which it stands."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, FunctionNode):
            yield ".".join([*within, node.name]), node, tree if isinstance(tree, ast.ClassDef) else None
            yield from functions_in(node, [*within, node.name, "<locals>"])
        elif isinstance(node, ast.ClassDef):
            yield from functions_in(node, [*within, node.name])
        elif not isinstance(node, ast.expr):
            yield from _functions_below(node, within, tree)


def _functions_below(
    node: ast.AST, within: Sequence[str], around: ast.AST
) -> Iterator[tuple[str, FunctionNode, ast.ClassDef | None]]:
    """The functions of a block, such as an `if`, whose names are those of the block around it."""
    for name, function, owner in functions_in(node, within):
        yield name, function, owner or (around if isinstance(around, ast.ClassDef) else None)


def _at_top(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            for block in (node.body, node.orelse, *(each.body for each in getattr(node, "handlers", ()))):
                yield from _at_top(block)


class Sources:
    """Parses each file once. unreadable: the files that it could not parse."""

    def __init__(self) -> None:
        self.unreadable: dict[str, UnreadableSource] = {}
        self._by_path: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        """The module of that name; None where it has no Python source, or none that can be parsed."""
        path = _file_of(name)
        return None if path is None else self.of_file(path, name)

    def of_file(self, path: str, name: str = "") -> Module | None:
        """The module of the file; None where it can't be parsed, which is noted."""
        resolved = str(Path(path).resolve())
        if resolved not in self._by_path:
            self._by_path[resolved] = self._parse(resolved, name or module_name(resolved))
        return self._by_path[resolved]

    def _parse(self, path: str, name: str) -> Module | None:
        try:
            tree = ast.parse(Path(path).read_bytes(), filename=path)
        except (OSError, SyntaxError, ValueError, RecursionError) as error:
            self.unreadable[path] = UnreadableSource(path=path, why=f"{type(error).__name__}: {error}")
            return None
        module = Module(name=name, path=path, tree=tree)
        for node in ast.walk(tree):
            _note_import(module, node)
        return module


def _note_import(module: Module, node: ast.AST) -> None:
    if isinstance(node, ast.Import):
        for each in node.names:
            top = each.name.partition(".")[0]
            module.imports[each.asname or top] = (each.name if each.asname else top, None)
    elif isinstance(node, ast.ImportFrom):
        origin = _origin(module, node)
        for each in node.names:
            if each.name == "*":
                module.stars.append(origin)
            else:
                module.imports[each.asname or each.name] = (origin, each.name)


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.package.split(".")
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def module_name(path: str) -> str:
    """The name by which the file is imported: from the outermost folder that is a package."""
    file = Path(path)
    parts = [] if file.name == "__init__.py" else [file.stem]
    folder = file.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def _file_of(name: str) -> str | None:
    loaded: Any = sys.modules.get(name)
    if loaded is not None:
        path = getattr(loaded, "__file__", None)
        return path if path and path.endswith(".py") else None
    package, _, last = name.rpartition(".")
    for folder in _folders_of(package):
        for candidate in (folder / last / "__init__.py", folder / f"{last}.py"):
            if candidate.is_file():
                return str(candidate)
    return None


def _folders_of(package: str) -> list[Path]:
    """Where the modules of the package stand; for none, where those of no package do."""
    if not package:
        return [Path(each or ".") for each in sys.path]
    loaded: Any = sys.modules.get(package)
    if loaded is not None:
        return [Path(each) for each in getattr(loaded, "__path__", ())]
    parent, _, last = package.rpartition(".")
    return [folder / last for folder in _folders_of(parent) if (folder / last).is_dir()]
