"""What the functions were that a rule covers when somebody looked at both: a fingerprint of each in a committed file, and what has changed since."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from reconcile.audit.effects import Effect, audited_models, is_third_party
from reconcile.audit.files import own_files
from reconcile.audit.listing import code_of
from reconcile.audit.places import name_of, place_of
from reconcile.audit.reading import EffectReader, scope_of
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.project import CallUse, Project, calls_in
from reconcile.audit.resolver.relations import Registry
from reconcile.audit.resolver.scopes import Scope
from reconcile.audit.resolver.types import Api, FunctionType
from reconcile.audit.sources import FunctionNode, Sources
from reconcile.baseline import new_document
from reconcile.errors import UsageError
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.rule import Rule

__all__ = ["Accepted", "Changed", "as_toml", "changes_since", "fingerprints", "read_accepted"]

VERSION = 1

_HEAD = """\
What each rule covers, as it was when somebody last compared the two: the functions that run, with a fingerprint of each.
`reconcile signals coverage` fails where one has changed; `reconcile signals coverage accept RULE` writes it anew."""

Accepted = Mapping[str, Mapping[str, str]]
"""By rule, the fingerprint of each function by its module and name."""


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A function that has changed since a rule that covers it was accepted. how: `changed`, `new` or `gone`."""

    rule: str
    function: str
    how: str

    def __str__(self) -> str:
        says = {
            "changed": "has changed",
            "new": "is run now, and was not,",
            "gone": "isn't run any more, and was,",
        }[self.how]
        return f"{self.function} {says} since {self.rule} was accepted. Compare the two, then: reconcile signals coverage accept {self.rule}"


def fingerprints(rules: Mapping[str, Rule]) -> dict[str, dict[str, str]]:
    """For each rule the functions that it covers, and those of the project that these run, each with a fingerprint of its source."""
    reader = EffectReader(Evaluator(Project(Sources(), own_files()), Registry()))
    effects = [each for model in audited_models() for each in reader.effects_of(model)]
    return {
        name: dict(sorted(_of_rule(reader, rule, effects)))
        for name, rule in rules.items()
        if not isinstance(rule, InvalidRule) and rule.covers
    }


def _of_rule(reader: EffectReader, rule: Rule, effects: Sequence[Effect]) -> Iterator[tuple[str, str]]:
    for function in rule.covers:
        connected = [each for each in effects if code_of(each.function) is code_of(function)]
        scopes = {scope for each in connected for scope in _scopes_of_effect(reader, each)}
        # A task listens to nothing.
        scopes |= _scopes_of_function(reader.evaluator, function) if not connected else set()
        yield from ((f"{each.module.name}.{each.name}", _fingerprint(each)) for each in scopes)
        if not scopes:
            yield name_of(function), ""


def _scopes_of_effect(reader: EffectReader, effect: Effect) -> Iterator[Scope]:
    """The function of the effect, and those of the project that it runs."""
    project = reader.evaluator.project
    scope = scope_of(reader.evaluator, effect)
    if scope is None:
        return
    yield scope
    for path, name in reader.acts_of(effect).functions:
        module = project.sources.of_file(path) if not is_third_party(path) else None
        found = project.scope_named(module, name) if module else None
        if found is not None:
            yield found


def _scopes_of_function(evaluator: Evaluator, function: Callable[..., Any]) -> set[Scope]:
    """The function, and those of the project that it calls, however deep."""
    place = place_of(function)
    module = evaluator.project.sources.of_file(place.file) if place else None
    scope = evaluator.project.scope_at(module, place.line) if module and place else None
    found, waiting = ({scope}, [scope]) if scope is not None else (set(), [])
    while waiting:
        called = {each for use in calls_in(waiting.pop()) for each in _called_by(evaluator, use)} - found
        found |= called
        waiting += called
    return found


def _called_by(evaluator: Evaluator, use: CallUse) -> Iterator[Scope]:
    for each in evaluator.of(use.node.func, evaluator.frame(use)):
        match each:
            case FunctionType(scope=scope) | Api(of=FunctionType(scope=scope)) if not is_third_party(
                scope.module.path
            ):
                yield scope


def _fingerprint(scope: Scope) -> str:
    """A hash of what the function does: comments, lines and its docstring don't count."""
    node = scope.node
    body = node.body
    if isinstance(node, FunctionNode) and ast.get_docstring(node) is not None:
        body = node.body[1:]
    around = [node.args, *node.decorator_list] if isinstance(node, FunctionNode) else []
    return sha256(repr([_plain(each) for each in (*around, *body)]).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """A node as plain values that are the same in each version of Python: what is empty is left out, since a version may add such a field."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, ast.AST):
        return repr(value)
    held = (
        (name, getattr(value, name, None))
        for name in value._fields
        if name not in {"ctx", "kind", "type_comment"}
    )
    return [
        type(value).__name__,
        *((name, _plain(each)) for name, each in held if each is not None and each != []),
    ]


def changes_since(accepted: Accepted, now: Accepted) -> list[Changed]:
    """What has changed of the rules that were accepted. A rule that nobody has accepted is not compared."""
    return [
        Changed(rule=rule, function=function, how=how)
        for rule, before in accepted.items()
        for function, how in _compared(before, now.get(rule, {}))
    ]


def _compared(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for function in sorted({*before, *now}):
        if function not in now:
            yield function, "gone"
        elif function not in before:
            yield function, "new"
        elif before[function] != now[function]:
            yield function, "changed"


def read_accepted(path: Path) -> dict[str, dict[str, str]]:
    """Read the file. Raises UsageError if it can't be used."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unusable(path, str(error)) from error
    rules: Any = found.get("rule", {})
    if (
        found.get("version") != VERSION
        or not isinstance(rules, dict)
        or not all(_is_texts(each) for each in rules.values())
    ):
        raise _unusable(path, f"it isn't of version {VERSION}, or has more than texts")
    return {str(name): dict(each) for name, each in rules.items()}


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def _unusable(path: Path, what: str) -> UsageError:
    return UsageError(
        f"{str(path)!r} can't be used: {what}. Mend it, or write it anew with: reconcile signals coverage accept RULE"
    )


def as_toml(accepted: Accepted) -> str:
    """The text of the file. Raises ImportError if tomlkit is not installed."""
    import tomlkit

    document = new_document(_HEAD, VERSION)
    tables = tomlkit.table(is_super_table=True)
    for name, functions in sorted(accepted.items()):
        table = tomlkit.table()
        for function, found in functions.items():
            table.add(function, found)
        tables.add(name, table)
    if accepted:
        document.add("rule", tables)
    return tomlkit.dumps(document)
