"""Importing rule files: the rules that each holds, where each stands, and what keeps a file from being imported.

A file whose import fails is run once more, statement by statement, so that all its faults are told together; what
fails only for want of a name that a failed statement would have bound is not told. Nothing of such a file stays in
`sys.modules`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
import sys
import tokenize
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any

import django
from django.conf import settings
from django.core.exceptions import FieldError

from reconcile import kinds as effects, remedies
from reconcile.core.declaration import Place, resolution_fault
from reconcile.errors import Fault, nearest
from reconcile.rules.rule import Rule
from reconcile.rules.settle import Settle

__all__ = ["FileState", "RuleFile", "file_state", "is_missing", "module_names", "rule_files", "rules_of"]

_LIBRARIES = (
    Path(__file__).resolve().parents[1],
    *(Path(str(each.__file__)).resolve().parent for each in (django, importlib)),
)
"""A fault lies in the project's own files, and not in those that they call."""
_LANGUAGE: Mapping[str, type[Any]] = {
    each.__name__: each
    for each in (
        Rule,
        Settle,
        *(getattr(home, name) for home in (effects, remedies) for name in home.__all__),
    )
    if isinstance(each, type)
}
_MISFIT = re.compile(r"(\w+)\.__init__\(\) (.+)", re.DOTALL)
"""What Python says of a call whose arguments don't fit the class."""
_UNKNOWN = re.compile(r"got an unexpected keyword argument '(\w+)'")
_LACKING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)")
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class RuleFile:
    """A module of rules, in the package of this name.

    module: None if it isn't there or isn't Python; if it has faults, what the statements have made that can be run. lines: the line on
    which each of its names is assigned, in the module's own code. faults: what keeps it from being imported. lost: the names that
    a failed statement would have bound to a rule, and its fault. hides: whether a failed statement may have made rules without such a name.
    """

    name: str
    package: str
    module: ModuleType | None
    lines: Mapping[str, int] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    lost: Mapping[str, Fault] = field(default_factory=dict)
    hides: bool = False

    @property
    def has_unknown_rules(self) -> bool:
        """Whether there may be rules in it of which not even the names are known."""
        known = self.lost or any(isinstance(vars(self.module).get(name), Rule) for name in self.lines)
        return bool(self.faults) and (self.hides or not known)

    def place(self, variable: str) -> Place:
        """Where the rule of this name stands; line 1 where no statement of the file assigns the name."""
        file = str(self.module.__file__ or self.name) if self.module else self.name
        return Place(module=self.name, file=file, line=self.lines.get(variable, 1))

    def rule_name(self, variable: str = "") -> str:
        """The name of the rule that the variable holds: `orders.invoice`; without one, that of the module."""
        inside = self.name.removeprefix(self.package).lstrip(".")
        return ".".join(filter(None, (inside, variable))) or self.package


def rule_files(package: str) -> Iterator[RuleFile]:
    """The package and its modules, in the order of their names."""
    yield from _files_from(package, package)


def _files_from(name: str, package: str) -> Iterator[RuleFile]:
    file = _rule_file(name, package)
    yield file
    if file.module is None or file.faults:
        return  # It can't be imported whole, and no module of it can without it.
    for info in pkgutil.iter_modules(getattr(file.module, "__path__", ()), f"{name}."):
        yield from _files_from(info.name, package)
    for folder in _folders_of_rules(file.module):
        message = f"{folder} has rules and no __init__.py, so they are not found."
        fault = Fault("reconcile.E002", message, "Add an empty __init__.py.")
        yield RuleFile(f"{name}.{folder.name}", package, None, faults=(fault,), hides=True)


def _folders_of_rules(module: ModuleType) -> Iterator[Path]:
    """The folders of a package that are none themselves, and have a module that makes a rule."""
    for path in filter(Path.is_dir, map(Path, getattr(module, "__path__", ()))):
        for folder in sorted(filter(Path.is_dir, path.iterdir())):
            modules = () if (folder / "__init__.py").exists() else folder.glob("*.py")
            if any(b"Rule(" in each.read_bytes() for each in modules):
                yield folder


def is_missing(package: str) -> bool:
    """Whether there is no package or module of this name."""
    try:
        return importlib.util.find_spec(package) is None
    except ModuleNotFoundError:
        return True
    except Exception:  # noqa: BLE001 - its parent is there, and raises; the import tells how
        return False


def module_names(package: ModuleType) -> Sequence[str]:
    """The names of all modules below the package, and below those of its packages that are imported, sorted. Imports nothing."""
    names = []
    for info in pkgutil.iter_modules(getattr(package, "__path__", ()), f"{package.__name__}."):
        names.append(info.name)
        if info.ispkg and info.name in sys.modules:
            names += module_names(sys.modules[info.name])
    return names


FileState = tuple[int, int] | None


def file_state(name: str) -> FileState:
    """When the module's file was written last, in nanoseconds, and its size in bytes; None if there is no file."""
    try:
        spec = importlib.util.find_spec(name)
        state = Path(str(spec and spec.origin)).stat()
    except (ImportError, OSError, ValueError, AttributeError):
        return None
    return state.st_mtime_ns, state.st_size


def _rule_file(name: str, package: str) -> RuleFile:
    try:
        module = importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not settings.configured:
            raise
        run, failures = _run_statements(name)
        faults = tuple(dict.fromkeys(each.fault for each in failures)) or (_fault(name, error),)
        lost = {rule: each.fault for each in failures for rule in each.rules}
        hides = not failures or hasattr(run, "__path__") or any(each.hides for each in failures)
        return RuleFile(name, package, run, _lines(run) if run else {}, faults, lost, hides)
    return RuleFile(name, package, module, _lines(module))


def rules_of(files: Sequence[RuleFile]) -> Iterator[tuple[RuleFile, Rule]]:
    """Each rule once, under its name, with its file: `orders.invoice` for `invoice` in `rules/orders.py`.

    A rule that several modules hold is that one's which assigns it; the others have imported it.
    """
    held = [
        (file, name, rule)
        for file in files
        if file.module
        for name, rule in vars(file.module).items()
        if isinstance(name, str)
    ]
    rules = [(file, name, rule) for file, name, rule in held if isinstance(rule, Rule)]
    homes: dict[int, RuleFile] = {}
    for file, _, rule in sorted(rules, key=lambda each: each[1] not in each[0].lines):
        homes.setdefault(id(rule), file)
    for file, variable, rule in rules:
        if homes[id(rule)] is file:
            name = rule.name if isinstance(rule.name, str) else ""
            yield file, replace(rule, name=name or file.rule_name(variable), declared_at=file.place(variable))


def _lines(module: ModuleType) -> dict[str, int]:
    """The line on which each name is assigned at the module's level, the last where there are several."""
    try:
        with tokenize.open(str(module.__file__)) as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError):
        return {}
    names = [node for node in _own_nodes(tree) if isinstance(node, ast.Name) and _is_stored(node)]
    return {node.id: node.lineno for node in sorted(names, key=lambda node: node.lineno)}


def _is_stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes at the module's level: not those inside of its functions and classes."""
    yield node
    if not isinstance(node, _SCOPES):
        for child in ast.iter_child_nodes(node):
            yield from _own_nodes(child)


def _names_bound_by(statement: ast.stmt) -> Iterator[str]:
    """The names that the statement binds in the module; `*` for all names of another."""
    for node in _own_nodes(statement):
        if isinstance(node, ast.Name) and _is_stored(node):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, _SCOPES):
            yield node.name


@dataclass(frozen=True)
class _Failure:
    """A statement that failed: its fault, the names that it would have bound to rules, and whether it may have made others."""

    fault: Fault
    rules: Sequence[str] = ()
    hides: bool = False

    @classmethod
    def of(cls, statement: ast.stmt, fault: Fault) -> _Failure:
        """`paid = Rule(…)` names its rule; anything else, an import too, may have brought some."""
        if isinstance(statement, ast.Assign | ast.AnnAssign) and _is_rule(statement.value):
            return cls(fault, list(_names_bound_by(statement)))
        return cls(fault, hides=True)


def _is_rule(value: ast.expr | None) -> bool:
    called = value.func if isinstance(value, ast.Call) else None
    return getattr(called, "attr", getattr(called, "id", None)) == Rule.__name__


def _run_statements(name: str) -> tuple[ModuleType | None, Sequence[_Failure]]:
    """The module, made by those of its statements that can be run, and the failures of the others.

    None if it isn't there or isn't Python.
    """
    try:
        spec = importlib.util.find_spec(name)
        tree = ast.parse(Path(str(spec and spec.origin)).read_bytes())
    except Exception:  # noqa: BLE001 - the import itself has failed; its own error is told
        return None, ()
    if spec is None:
        return None, ()
    module = importlib.util.module_from_spec(spec)
    with _registered_module(module):
        return module, list(_failures(tree, module))


@contextmanager
def _registered_module(module: ModuleType) -> Iterator[None]:
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        sys.modules.pop(module.__name__, None)


def _failures(tree: ast.Module, module: ModuleType) -> Iterator[_Failure]:
    """Run the statements one by one. What fails for want of a name that a failed one would have bound has that one's fault."""
    future = [each for each in tree.body if isinstance(each, ast.ImportFrom) and each.module == "__future__"]
    lost: dict[str, Fault] = {}
    for statement in tree.body:
        alone = ast.Module([*future, statement], [])
        try:
            code = compile(alone, str(module.__file__), "exec", dont_inherit=True)
            exec(code, vars(module))  # noqa: S102 - it is what importing the project's own file does
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            fault = _cause(error, lost) or _fault(module.__name__, error)
            yield _Failure.of(statement, fault)
            lost |= dict.fromkeys(_names_bound_by(statement), fault)


def _cause(error: BaseException, lost: Mapping[str, Fault]) -> Fault | None:
    """The fault of the statement that would have bound the name which is missing."""
    return lost.get(str(error.name), lost.get("*")) if isinstance(error, NameError) else None


def _fault(name: str, error: BaseException) -> Fault:
    where = _where(name, error)
    at = f" ({where})" if where else ""
    misfit = _MISFIT.match(str(error)) if isinstance(error, TypeError) else None
    if misfit and misfit[1] in _LANGUAGE:
        return _option_fault(_LANGUAGE[misfit[1]], misfit[2], at)
    if isinstance(error, FieldError):
        return replace(resolution_fault(error, f"Rule module {name!r}{at}"), id="reconcile.E002")
    what = (error.msg if isinstance(error, SyntaxError) else str(error)).rstrip(".")
    message = f"Rule module {name!r} can't be imported: {type(error).__name__}: {what}{at}."
    return Fault("reconcile.E002", message, "Mend the module, or take it out of settings.RECONCILE['RULES'].")


def _option_fault(kind: type[Any], message: str, at: str) -> Fault:
    """What Python says of the arguments given to a class of the rule language, with the nearest option."""
    options = [each.name for each in signature(kind).parameters.values() if each.kind in _NAMED]
    takes = f"{kind.__name__} takes {', '.join(options) or 'no options'}."
    if unknown := _UNKNOWN.search(message):
        hint = nearest(unknown[1], options).strip() or takes
        return Fault("reconcile.E010", f"{kind.__name__} has no option {unknown[1]!r}{at}.", hint)
    if lacking := _LACKING.search(message):
        return Fault("reconcile.E010", f"{kind.__name__} lacks {lacking[1]}{at}.", takes)
    return Fault("reconcile.E010", f"{kind.__name__} {message}{at}.", takes)


_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def _where(name: str, error: BaseException) -> Place | None:
    """The line of the project's own files that raised the error, as near to it as can be."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return Place(module=name, file=error.filename, line=error.lineno)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_file() and not any(file.resolve().is_relative_to(each) for each in _LIBRARIES):
            return Place(module=name, file=frame.filename, line=frame.lineno or 1)
    return None
