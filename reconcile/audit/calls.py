"""The calls in a project's source that write rows past signals and methods, and the model that each is about."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Any

from django.db import connections
from django.db.models import Model

from reconcile.audit.orm import CHANGES, MAKES, SAVES, SYNC
from reconcile.audit.raw_sql import TableWrite, Verb, can_parse, is_writing, writes_of
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.project import CallUse, called_name
from reconcile.audit.resolver.scopes import How
from reconcile.audit.resolver.types import (
    Api,
    External,
    Historical,
    Instance,
    Kind,
    Native,
    Rows,
    Types,
)
from reconcile.audit.sources import Module
from reconcile.audit.sql_texts import HOLE, SqlTexts
from reconcile.audit.texts import Texts

__all__ = ["Operation", "Site", "Write", "exemptions_in", "find_sites", "may_hold_sites"]


class Operation(StrEnum):
    """How rows are written."""

    BULK_CREATE = "bulk_create"
    BULK_UPDATE = "bulk_update"
    UPDATE = "update"
    DELETE = "delete"
    RAW_DELETE = "_raw_delete"
    KEY = "related update"
    THROUGH_INSERT = "through insert"
    THROUGH_DELETE = "through delete"
    SAVE_PAST = "save past the override"
    LOAD = "load"
    PROXY = "proxy save"
    SQL_INSERT = "INSERT"
    SQL_UPDATE = "UPDATE"
    SQL_DELETE = "DELETE"


OF_ROWS = {
    "bulk_create": Operation.BULK_CREATE, "abulk_create": Operation.BULK_CREATE,
    "bulk_update": Operation.BULK_UPDATE, "abulk_update": Operation.BULK_UPDATE,
    "update": Operation.UPDATE, "aupdate": Operation.UPDATE,
    "delete": Operation.DELETE, "adelete": Operation.DELETE, "_raw_delete": Operation.RAW_DELETE,
}  # fmt: skip
RUNNING = frozenset({"execute", "executemany"})
OF_SQL = {
    Verb.INSERT: Operation.SQL_INSERT,
    Verb.UPDATE: Operation.SQL_UPDATE,
    Verb.DELETE: Operation.SQL_DELETE,
}

_STRONG = re.compile(
    rb"\.a?(bulk_create|bulk_update|update|delete|_raw_delete|execute|executemany|save_base)\s*\(|deserialize|Model\.a?save\(|loaddata"
)
_EXEMPT = re.compile(r"#\s*reconcile:\s*exempt\b[\s:,-]*(.*)")
_MOST_CALL = 60


@dataclass(frozen=True, kw_only=True)
class Write:
    """What a call writes. model: `app.Model`, by which effects are looked up. columns: those that an update names, None if they can't be told.

    passed: the arguments that each constructor of what is created has, None if they can't be told.
    """

    operation: Operation
    model: str
    by_name: bool = False
    columns: tuple[str, ...] | None = None
    passed: tuple[str, ...] | None = None
    overridden: str = ""


@dataclass(frozen=True, kw_only=True)
class Site:
    """One call in the source. function: the qualified name of the function in which it stands. line: of the name that is called.

    writes: one for each model that it may write; none where nothing is known. candidates: of how many models it may be, then.
    historical: it is about a model as a migration has it. exempt: the reason of a comment `# reconcile: exempt REASON` on one of its
    lines; None without a comment, empty if it gives none. lines: its first and last.
    """

    path: str
    line: int
    module: str
    function: str
    operation: str
    call: str
    writes: tuple[Write, ...] = ()
    candidates: int = 0
    historical: bool = False
    why: str = ""
    exempt: str | None = None
    lines: tuple[int, int] = (0, 0)


def exemptions_in(text: bytes) -> dict[int, str]:
    """The reasons of the comments `# reconcile: exempt REASON`, by line; empty where there is none."""
    if b"reconcile:" not in text:
        return {}
    found = ((number, _EXEMPT.search(comment)) for number, comment in _comments(text))
    return {number: match[1].strip() for number, match in found if match}


def _comments(text: bytes) -> Iterator[tuple[int, str]]:
    """The comments by line; what looks like one in a text is none. Of a file that can't be parsed, those before the fault."""
    with suppress(SyntaxError, tokenize.TokenError):
        for each in tokenize.tokenize(BytesIO(text).readline):
            if each.type == tokenize.COMMENT:
                yield each.start[0], each.string


def may_hold_sites(text: bytes, relations: re.Pattern[bytes] | None) -> bool:
    """Whether a file's text has a word of a call that is looked for. relations: names of relations whose changes skip something."""
    return bool(_STRONG.search(text)) or (relations is not None and bool(relations.search(text)))


def find_sites(evaluator: Evaluator, module: Module) -> Iterator[Site]:
    """The calls of one module, in the order of their lines."""
    reader = _Reader(evaluator, module)
    calls = evaluator.project.calls(module)
    uses = [use for name, rule in reader.rules.items() for use in calls.get(name, ()) if rule is not None]
    for use in sorted(uses, key=lambda each: (each.node.lineno, each.node.col_offset)):
        yield from reader.read(use)


class _Reader:
    """Reads the calls of one module."""

    def __init__(self, evaluator: Evaluator, module: Module) -> None:
        self.evaluator = evaluator
        self.module = module
        self.texts = Texts(evaluator)
        self.sql = SqlTexts(evaluator, self.texts)
        self.exempt = exemptions_in(evaluator.project.text(module.path))
        self.rules: dict[str, Callable[[CallUse], Iterator[Site]]] = {
            **dict.fromkeys(OF_ROWS, self._of_rows),
            **dict.fromkeys(CHANGES, self._related),
            **dict.fromkeys(MAKES, self._making),
            **dict.fromkeys(SAVES - MAKES, self._saving),
            **dict.fromkeys(RUNNING, self._running),
            "call_command": self._command,
        }

    def read(self, use: CallUse) -> Iterator[Site]:
        """What the call writes, if it is one that writes rows."""
        yield from self.rules[called_name(use.node)](use)

    def _site(self, use: CallUse, operation: str, **facts: Any) -> Site:
        scope = use.scope
        while scope.parent is not None and not scope.is_function:
            scope = scope.parent
        func = use.node.func
        return Site(
            path=self.module.path,
            line=getattr(func, "end_lineno", use.node.lineno) or use.node.lineno,
            module=self.module.name,
            function=scope.name,
            operation=operation,
            call=_shown(use.node),
            exempt=self._exempt(use.node),
            lines=(use.node.lineno, use.node.end_lineno or use.node.lineno),
            **facts,
        )

    def _exempt(self, node: ast.Call) -> str | None:
        return next(
            (
                self.exempt[line]
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
                if line in self.exempt
            ),
            None,
        )

    def _receiver(self, use: CallUse) -> Types | None:
        func = use.node.func
        return (
            self.evaluator.of(func.value, self.evaluator.frame(use))
            if isinstance(func, ast.Attribute)
            else None
        )

    # Rows.

    def _of_rows(self, use: CallUse) -> Iterator[Site]:
        name, node = called_name(use.node), use.node
        operation = OF_ROWS[name]
        receiver = self._receiver(use)
        if receiver is None:
            return
        unbound = [each for each in receiver if isinstance(each, External) and _is_rows_class(each.path)]
        if unbound and node.args:
            receiver = self.evaluator.of(node.args[0], self.evaluator.frame(use))
        elif not _has_its_shape(operation, node):
            return
        labels = {each.label for each in receiver if isinstance(each, Historical)}
        if labels:
            models = filter(None, (self.evaluator.registry.model(each) for each in sorted(labels)))
            writes = tuple(Write(operation=operation, model=each._meta.label) for each in models)
            yield self._site(use, operation, historical=True, writes=writes)
            return
        rows = [each for each in receiver if isinstance(each, Rows)]
        if rows:
            yield self._site(
                use,
                operation,
                writes=tuple(
                    write for each in _one_each(rows) for write in self._writes(use, operation, each)
                ),
            )
        elif not receiver or all(isinstance(each, Native) and each.what == "NoneType" for each in receiver):
            yield from self._unresolved(use, operation)

    def _writes(self, use: CallUse, operation: Operation, rows: Rows) -> Iterator[Write]:
        """What the call writes: one for each set of columns that it may name."""
        passed = self._passed(use, rows.model) if operation is Operation.BULK_CREATE else None
        overridden = self._overridden(called_name(use.node), rows)
        for columns in self._columns(use, operation, rows.model):
            yield Write(
                operation=operation,
                model=rows.model._meta.label,
                by_name=rows.by_name,
                columns=columns,
                passed=passed,
                overridden=overridden,
            )

    def _overridden(self, name: str, rows: Rows) -> str:
        """Where the project has a method of its own in place of Django's; a name that is only given another function's refuses most often."""
        for live in (rows.manager, rows.queryset):
            found = self.evaluator.class_of_live(live).find(name) if live is not None else None
            if found is not None and found.bindings[name][-1].how is How.FUNCTION:
                return f"{found.module.path}:{getattr(found.bindings[name][-1].node, 'lineno', 1)}"
        return ""

    def _unresolved(self, use: CallUse, operation: Operation) -> Iterator[Site]:
        """A call whose receiver nobody can tell, unless its arguments do."""
        if operation in {Operation.BULK_CREATE, Operation.BULK_UPDATE} and use.node.args:
            models = {each.model for each in self._records(use, use.node.args[0])}
            if len(models) == 1:
                rows = self.evaluator.registry.default_rows(models.pop())
                yield self._site(use, operation, writes=tuple(self._writes(use, operation, rows)))
                return
        candidates = self._candidates(use, operation)
        if candidates:
            yield self._site(use, operation, candidates=candidates)

    def _candidates(self, use: CallUse, operation: Operation) -> int:
        """How many models an unresolved call may be about; none if it can't be about any."""
        models = [each for each in self.evaluator.registry.models if not each._meta.proxy]
        if operation is not Operation.UPDATE or _has_rows_in_its_text(use.node):
            return len(models)
        named = {each.arg for each in use.node.keywords if each.arg is not None}
        return sum(named <= self.evaluator.registry.columns(each).keys() for each in models)

    def _records(self, use: CallUse, node: ast.expr) -> list[Instance]:
        types = self.evaluator.of(node, self.evaluator.frame(use))
        return [each for each in self.evaluator.elements(types) if isinstance(each, Instance)]

    def _passed(self, use: CallUse, model: type[Model]) -> tuple[str, ...] | None:
        given = [*use.node.args[:1], *(each.value for each in use.node.keywords if each.arg == "objs")]
        types = self.evaluator.of(given[0], self.evaluator.frame(use)) if given else frozenset()
        elements = self.evaluator.elements(types)
        made = [each for each in elements if isinstance(each, Instance) and issubclass(each.model, model)]
        if not made or len(made) != len(elements) or any(each.passed is None for each in made):
            return None
        together = frozenset.intersection(*(each.passed for each in made if each.passed is not None))
        return self._fields(model, together)

    def _columns(
        self, use: CallUse, operation: Operation, model: type[Model]
    ) -> Sequence[tuple[str, ...] | None]:
        """The columns that an update names, a set for each way; None if they can't be told, or there are none to name."""
        if operation is Operation.UPDATE:
            ways = self._keywords(use)
        elif operation is Operation.BULK_UPDATE:
            given = [*use.node.args[1:2], *(each.value for each in use.node.keywords if each.arg == "fields")]
            named = self.texts.among(given[0], use.scope) if given else None
            ways = [named] if named else None
        else:
            return [None]
        return [self._fields(model, each) for each in ways] if ways is not None else [None]

    def _fields(self, model: type[Model], names: Iterable[str]) -> tuple[str, ...]:
        """The names of fields, `customer` for `customer_id`; what is no field stays as it is."""
        columns = self.evaluator.registry.columns(model)
        return tuple(sorted({columns.get(each, each) for each in names}))

    def _keywords(self, use: CallUse) -> list[frozenset[str]] | None:
        """The columns that `update()` names, those of a dictionary too: a set for each way."""
        ways = [frozenset(each.arg for each in use.node.keywords if each.arg is not None)]
        for each in use.node.keywords:
            if each.arg is None:
                keys = self.texts.keys_of(each.value, use.scope)
                if keys is None:
                    return None
                ways = [one | other for one in ways for other in keys]
        return ways

    # Related managers.

    def _related(self, use: CallUse) -> Iterator[Site]:
        receiver = self._receiver(use) or frozenset()
        name = called_name(use.node)
        name = SYNC.get(name, name)
        writes = [
            write for each in receiver if isinstance(each, Rows) and each.relation is not None
            for write in self._related_writes(use, name, each)
        ]  # fmt: skip
        if writes:
            yield self._site(use, name, writes=tuple(dict.fromkeys(writes)))
        elif (
            not receiver
            and isinstance(use.node.func, ast.Attribute)
            and isinstance(use.node.func.value, ast.Attribute)
        ):
            candidates = self.evaluator.registry.many_by_name(use.node.func.value.attr)
            if candidates:
                yield self._site(use, name, candidates=candidates)

    def _related_writes(self, use: CallUse, name: str, rows: Rows) -> Iterator[Write]:
        relation: Any = rows.relation
        if relation.kind is Kind.MANY_TO_MANY:
            if relation.through is not None:
                through = relation.through._meta.label
                if name in {"add", "set"}:
                    yield Write(operation=Operation.THROUGH_INSERT, model=through, by_name=rows.by_name)
                if name in {"remove", "clear", "set"}:
                    yield Write(operation=Operation.THROUGH_DELETE, model=through, by_name=rows.by_name)
        elif relation.kind is Kind.GENERIC and name != "add":
            yield Write(operation=Operation.DELETE, model=rows.model._meta.label, by_name=rows.by_name)
        elif not _is_false(use.node, "bulk"):
            columns = (relation.column,) if relation.column else None
            yield Write(
                operation=Operation.KEY, model=rows.model._meta.label, by_name=rows.by_name, columns=columns
            )

    def _making(self, use: CallUse) -> Iterator[Site]:
        """`group.members.create(…)`: the row between the two is made past its own `save()`."""
        for each in self._receiver(use) or ():
            if (
                isinstance(each, Rows)
                and each.relation is not None
                and each.relation.kind is Kind.MANY_TO_MANY
            ):
                yield from self._related_named(use, each)
            elif isinstance(each, Rows) and each.model._meta.proxy:
                yield self._site(
                    use,
                    called_name(use.node),
                    writes=(Write(operation=Operation.PROXY, model=each.model._meta.label),),
                )

    def _related_named(self, use: CallUse, rows: Rows) -> Iterator[Site]:
        writes = tuple(self._related_writes(use, "add", rows))
        if writes:
            yield self._site(use, called_name(use.node), writes=writes)

    # Saves.

    def _saving(self, use: CallUse) -> Iterator[Site]:
        node, receiver = use.node, self._receiver(use)
        for each in receiver or ():
            match each:
                case (
                    External(path="django.db.models.base.Model")
                    | Api(of=External(path="django.db.models.base.Model"))
                ) if node.args:
                    yield from self._past(use, self.evaluator.of(node.args[0], self.evaluator.frame(use)))
                case Native(what="DeserializedObject"):
                    yield self._site(
                        use,
                        Operation.LOAD,
                        candidates=len(self.evaluator.registry.models),
                        why="what is loaded stands in the data",
                    )
                case Instance(model=model) if called_name(node) == "save_base":
                    operation = Operation.LOAD if _is_true(node, "raw") else Operation.SAVE_PAST
                    yield self._site(
                        use, operation, writes=(Write(operation=operation, model=model._meta.label),)
                    )
                case Instance(model=model) if model._meta.proxy:
                    yield self._site(
                        use,
                        Operation.PROXY,
                        writes=(Write(operation=Operation.PROXY, model=model._meta.label),),
                    )

    def _past(self, use: CallUse, types: Types) -> Iterator[Site]:
        writes = tuple(
            Write(operation=Operation.SAVE_PAST, model=each.model._meta.label)
            for each in types
            if isinstance(each, Instance)
        )
        if writes:
            yield self._site(use, Operation.SAVE_PAST, writes=tuple(dict.fromkeys(writes)))

    def _command(self, use: CallUse) -> Iterator[Site]:
        if use.node.args and self.sql.text(use, use.node.args[0]) == "loaddata":
            yield self._site(
                use,
                Operation.LOAD,
                candidates=len(self.evaluator.registry.models),
                why="what is loaded stands in the fixture",
            )

    # SQL.

    def _running(self, use: CallUse) -> Iterator[Site]:
        given = [
            *use.node.args[:1],
            *(each.value for each in use.node.keywords if each.arg in {"sql", "query"}),
        ]
        ways = [way for node in given[:1] for way in self.sql.ways(use, node)]
        writing = [(sql, is_whole) for sql, is_whole in ways if is_writing(sql)]
        count = len(self.evaluator.registry.models)
        if writing and not can_parse():
            why = "sqlglot is not installed: pip install 'django-reconcile[audit]'"
            yield self._site(use, "SQL", candidates=count, why=why)
            return
        read = [(writes_of(sql, connections["default"].vendor), is_whole) for sql, is_whole in writing]
        writes = [
            write for found, is_whole in read for write in self._sql_writes(found or (), is_whole=is_whole)
        ]
        if writes:
            yield self._site(use, writes[0].operation, writes=tuple(dict.fromkeys(writes)))
        elif why := _why_unknown(use.node, given, ways, read):
            yield self._site(use, "SQL", candidates=count, why=why)

    def _sql_writes(self, found: Sequence[TableWrite], *, is_whole: bool) -> Iterator[Write]:
        """What a statement writes. Where a part of it is put in at run time, so may be the names of columns."""
        for each in found:
            model = self.evaluator.registry.model_of_table(each.table)
            if model is not None:
                by_column = {str(one.column).lower(): one.name for one in model._meta.concrete_fields}
                names = {by_column.get(one.lower(), one) for one in each.columns}
                columns = self._fields(model, names) if is_whole and names else None
                yield Write(operation=OF_SQL[each.verb], model=model._meta.label, columns=columns)


def _why_unknown(
    node: ast.Call, given: Sequence[ast.expr], ways: Sequence[tuple[str, bool]], read: Sequence[tuple[Sequence[TableWrite] | None, bool]]
) -> str:  # fmt: skip
    """Why it can't be told what a call writes that executes a statement; empty if it writes nothing that a model has."""
    if any(found is None for found, _ in read):
        return "its statement can't be parsed"
    if any(each.table.startswith(HOLE) for found, is_whole in read for each in found or () if not is_whole):
        return "its table is put together at run time"
    is_cursor = isinstance(node.func, ast.Attribute) and "cursor" in ast.unparse(node.func.value).lower()
    if is_cursor and given and not any(text.strip() for text, _ in ways):
        return "its statement is put together at run time"
    return ""


def _one_each(rows: Sequence[Rows]) -> list[Rows]:
    """One of the rows of each model."""
    return [*{each.model: each for each in sorted(rows, key=lambda each: each.model._meta.label)}.values()]


def _has_its_shape(operation: Operation, node: ast.Call) -> bool:
    """Whether a call has the arguments that the method of a queryset takes: `update` and `delete` take none by position."""
    if operation is Operation.UPDATE:
        return not node.args and bool(node.keywords)
    if operation is Operation.DELETE:
        return not node.args and not node.keywords
    return True


def _is_rows_class(path: str) -> bool:
    return path.startswith("django.db.models.") and path.endswith(("QuerySet", "Manager"))


def _has_rows_in_its_text(node: ast.Call) -> bool:
    text = ast.unparse(node.func)
    return any(
        word in text for word in (".objects", ".filter(", ".all(", ".exclude(", "get_queryset", "_manager")
    )


def _is_false(node: ast.Call, name: str) -> bool:
    return any(
        each.arg == name and isinstance(each.value, ast.Constant) and each.value.value is False
        for each in node.keywords
    )


def _is_true(node: ast.Call, name: str) -> bool:
    return any(
        each.arg == name and isinstance(each.value, ast.Constant) and each.value.value is True
        for each in node.keywords
    )


def _shown(node: ast.Call) -> str:
    """The call as a person would name it: without its arguments."""
    text = re.sub(r"\s+", " ", ast.unparse(_without_arguments(node)))
    return text if len(text) <= _MOST_CALL else f"…{text[-_MOST_CALL + 1 :]}"


def _without_arguments(node: Any) -> Any:
    if isinstance(node, ast.Call):
        held: list[ast.expr] = [ast.Constant(value=...)] if node.args or node.keywords else []
        return ast.Call(func=_without_arguments(node.func), args=held, keywords=[])
    if isinstance(node, ast.Attribute):
        return ast.Attribute(value=_without_arguments(node.value), attr=node.attr, ctx=node.ctx)
    return node
