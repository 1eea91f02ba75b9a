"""Reads the function of an effect act by act, and the functions that it hands the record to; of others, that they are called."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import Model

from reconcile.audit.acts import Act, Acts, Does, as_plain, from_plain
from reconcile.audit.nulled import is_done_by_keys
from reconcile.audit.orm import READS, WRITES
from reconcile.audit.record import (
    DEEPEST,
    EVERYWHERE,
    Phase,
    Record,
    Run,
    State,
    both,
    is_abstract,
)
from reconcile.audit.resolver.attributes import TASK
from reconcile.audit.resolver.scopes import Frame, Position, Scope
from reconcile.audit.resolver.types import (
    Api,
    ClassType,
    External,
    FunctionType,
    Instance,
    Many,
    ModelType,
    Native,
    Object,
    Rows,
    Table,
    Tuple,
)
from reconcile.audit.syntax import (
    bound_by,
    captured,
    false_by_default,
    is_logging,
    is_opt_in,
    own_expressions,
    tail_of,
    values,
)

__all__ = ["Bare", "FunctionReader"]

PURE = (
    "builtins.", "django.utils.", "django.db.models.", "re.", "json.", "datetime.", "decimal.", "hashlib.", "uuid.", "math.", "string.", "itertools.",
    "functools.", "operator.", "collections.", "copy.", "random.", "secrets.", "time.", "typing.", "inspect.", "contextlib.",
)  # fmt: skip
"""Where functions stand that do nothing to anything."""

DOING = (
    "django.core.mail.",
    "requests.",
    "httpx.",
    "urllib.request.",
    "subprocess.",
    "smtplib.",
    "socket.",
    "boto3.",
)
"""Where functions stand that do something to the world, also where somebody looks at what they give back."""

SENDING = frozenset({
    "apply_async", "delay", "dispatch", "enqueue", "notify", "patch", "post", "publish", "push", "put", "send", "send_email", "send_mail", "send_message",
    "upload",
})  # fmt: skip
"""Methods of unknown objects that send something, by their names."""

VALIDATING = frozenset({"full_clean", "clean", "clean_fields", "validate_unique", "validate_constraints"})


@dataclass(frozen=True, kw_only=True)
class Bare:
    """What a function does that isn't handed the record, with those that it runs. names: all that they mention, columns of other records among them."""

    acts: tuple[Act, ...] = ()
    functions: frozenset[tuple[str, str]] = frozenset()
    names: frozenset[str] = frozenset()

    @property
    def as_text(self) -> str:
        """It as a text that is the same in each run."""
        plain = as_plain(Acts(acts=self.acts, functions=self.functions))
        return json.dumps({**plain, "names": sorted(self.names)})

    @classmethod
    def of_text(cls, text: str) -> Bare:
        """It from such a text."""
        plain = json.loads(text)
        acts = from_plain(plain)
        return cls(acts=acts.acts, functions=acts.functions, names=frozenset(plain["names"]))


class FunctionReader:
    """Reads the functions of one effect for records of one model."""

    def __init__(self, record: Record, bare: Callable[[Run], Bare]) -> None:
        self.evaluator = record.evaluator
        self.record = record
        self.functions: set[tuple[str, str]] = set()
        self.names: set[str] = set()
        self._bare_of = bare
        self._running: list[Scope] = []

    def read(self, run: Run, state: State = EVERYWHERE) -> list[Act]:
        """The acts of the function."""
        if run.scope in self._running or not run.scope.is_function:
            return []
        if run.depth > DEEPEST:
            return [self._act(Does.CALL, run.scope.name, state, reads=None)]
        self._running.append(run.scope)
        self.evaluator.read(run.scope)
        self.names |= run.scope.texts | run.scope.mentions
        self.functions.add((run.scope.module.path, run.scope.name))
        if run.depth == 0:
            run.false |= false_by_default(run.scope)
        try:
            acts, _ = self._block(run.scope.function.body, run, state)
        finally:
            self._running.pop()
        return acts

    def _block(self, body: Sequence[ast.stmt], run: Run, state: State) -> tuple[list[Act], State]:
        """The acts of the statements, and what is known after them; never, if they don't end."""
        acts: list[Act] = []
        for place, node in enumerate(body):
            if state.phase is Phase.NEVER:
                break
            before = state.empty
            found, state = self._statement(node, run, state)
            acts += found
            if state.empty - before:
                # What follows an early return is a branch like any other.
                rest, state = self._block(body[place + 1 :], run, state)
                return acts + _only_filling(rest, state.empty - before), state
        return acts, state

    def _statement(self, node: ast.stmt, run: Run, state: State) -> tuple[list[Act], State]:
        match node:
            case ast.If():
                return self._if(node, run, state)
            case ast.Raise():
                return [self._act(Does.VALIDATE, "raise", state)], replace(state, phase=Phase.NEVER)
            case ast.Return() | ast.Continue() | ast.Break():
                value = getattr(node, "value", None)
                return self._calls(node, run, state, is_value=False) if value is not None else [], replace(
                    state, phase=Phase.NEVER
                )
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                return self._assign(node, run, state), state
            case (
                ast.FunctionDef()
                | ast.AsyncFunctionDef()
                | ast.ClassDef()
                | ast.Import()
                | ast.ImportFrom()
                | ast.Global()
                | ast.Nonlocal()
                | ast.Pass()
            ):
                return [], state
            case ast.Expr() | ast.Assert() | ast.Delete():
                return self._calls(node, run, state, is_value=False), state
        return self._nested(node, run, state)

    def _nested(self, node: Any, run: Run, state: State) -> tuple[list[Act], State]:
        """The acts of a statement that holds others: a loop, `with`, `try`, `match`."""
        inside = self._inside(node, run, state)
        acts = self._calls(node, run, state, is_value=True)
        for target, value in bound_by(node):
            acts += self._assigned(target, value, node, run, state)
        after = state
        for name in ("body", "orelse", "finalbody"):
            found, ended = self._block(getattr(node, name, []), run, inside)
            acts += found
            if name == "body" and isinstance(node, ast.With | ast.AsyncWith) and not _may_suppress(node):
                after = ended
        for arm in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            acts += self._block(arm.body, run, inside)[0]
        return acts, after

    def _inside(self, node: Any, run: Run, state: State) -> State:
        """What is known within a statement that holds others: it depends on what the statement walks through, tests or matches."""
        inside = state
        for name in ("iter", "test", "subject"):
            asked = getattr(node, name, None)
            if asked is not None:
                is_record = self.record.is_record(asked, run)
                reads = None if is_record else self.record.reads(asked, run)
                asks = State(undecided=self.record.asks_model(asked, run))
                inside = inside.narrowed(asks, reads)
        for name in captured(node):
            run.reads[name] = both(run.reads.get(name, frozenset()), inside.reads)
        return inside

    def _if(self, node: ast.If, run: Run, state: State) -> tuple[list[Act], State]:
        reads = self.record.reads(node.test, run)
        yes, no = self.record.test(node.test, run)
        inside, other = state.narrowed(yes, reads), state.narrowed(no, reads)
        acts = self._calls(node, run, state, is_value=True)
        one, after = self._block(node.body, run, inside)
        one = _only_filling(one, yes.empty)
        two, otherwise = self._block(node.orelse, run, other)
        two = _only_filling(two, no.empty)
        acts += one + two
        if after.phase is Phase.NEVER and otherwise.phase is not Phase.NEVER:
            return acts, otherwise
        if otherwise.phase is Phase.NEVER and after.phase is not Phase.NEVER:
            return acts, after
        return acts, replace(state, phase=after.phase | otherwise.phase)

    # Acts.

    def _act(self, does: Does, name: str, state: State, **facts: Any) -> Act:
        facts.setdefault("reads", state.reads)
        return Act(
            does=does,
            name=name,
            phase=state.phase,
            empty=state.empty,
            undecided=state.undecided,
            changed=state.changed,
            **facts,
        )

    def _assign(self, node: Any, run: Run, state: State) -> list[Act]:
        acts = self._calls(node, run, state, is_value=True)
        if node.value is None:
            return acts
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            acts += self._assigned(target, node.value, node, run, state)
        return acts

    def _assigned(
        self, target: ast.expr, value: ast.expr, node: ast.AST, run: Run, state: State
    ) -> Iterator[Act]:
        """The columns of the record among the targets that are set; what the names among them hold is noted."""
        match target:
            case ast.Name(id=name):
                self._local(name, value, run)
            case (
                ast.Attribute(value=base, attr=attr)
                | ast.Subscript(
                    value=ast.Attribute(value=base, attr="__dict__"),
                    slice=ast.Constant(value=str() as attr),
                )
            ) if self.record.is_record(base, run):
                yield self._set(attr, value, node, run, state)
            case ast.Starred(value=inner):
                yield from self._assigned(inner, value, node, run, state)
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                for each, one in zip(targets, values(value, targets), strict=True):
                    yield from self._assigned(each, one, node, run, state)

    def _local(self, name: str, value: ast.expr, run: Run) -> None:
        """Note what a name holds; with what it may have held before, as a branch may not run."""
        if self.record.is_record(value, run):
            if name in run.reads or (isinstance(value, ast.Name) and value.id in run.loose):
                run.loose.add(name)
            run.aliases.add(name)
            return
        if name in run.aliases:
            run.loose.add(name)
        if is_opt_in(value):
            run.false.add(name)
        else:
            run.false.discard(name)
        # Which of several values it holds depends on the way.
        run.stashes[name] = EVERYWHERE if name in run.reads else self.record.stash(value, run)
        yes, _ = self.record.test(value, run)
        before = Phase.BOTH if name in run.scope.parameters else Phase.NEVER
        run.phases[name] = run.phases.get(name, before) | yes.phase
        run.reads[name] = both(run.reads.get(name, frozenset()), self.record.reads(value, run))

    def _set(self, attr: str, value: ast.expr, node: ast.AST, run: Run, state: State) -> Act:
        column = self.record.columns.get(attr, attr)
        reads = both(state.reads, self.record.reads(value, run))
        if isinstance(node, ast.AugAssign) and reads is not None:
            reads |= {column}
        if (
            column in state.empty
            and reads is not None
            and column not in (self.record.reads(value, run) or ())
        ):
            reads -= {column}
        constant = isinstance(value, ast.Constant) and (value.value is None or value.value in (False, ""))
        return self._act(Does.ASSIGN, column, state, reads=reads, sets_empty=constant)

    def _calls(self, node: ast.AST, run: Run, state: State, *, is_value: bool) -> list[Act]:
        """The acts of the calls in a statement's own expressions. is_value: what they give back is used, so that an unknown one may only read."""
        acts: list[Act] = []
        for expression in own_expressions(node):
            for each in self.evaluator.project.parts(expression):
                if isinstance(each, ast.NamedExpr):
                    self._local(each.target.id, each.value, run)
                elif isinstance(each, ast.Call):
                    outermost = each is expression or (
                        isinstance(expression, ast.Await) and each is expression.value
                    )
                    acts += self._called(each, node, run, state, is_value=is_value or not outermost)
        return acts

    def _called(
        self, each: ast.Call, statement: ast.AST, run: Run, state: State, *, is_value: bool
    ) -> list[Act]:
        position = run.scope.positions.get(id(statement))
        func = each.func
        match each:
            case ast.Call(func=ast.Name(id="setattr"), args=[base, ast.Constant(value=column), value]) if (
                self.record.is_record(base, run)
            ):
                reads = both(state.reads, self.record.reads(value, run))
                column = self.record.columns.get(str(column), str(column))
                return [self._act(Does.ASSIGN, column, state, reads=reads)]
        if (
            isinstance(func, ast.Attribute)
            and isinstance(func.value, ast.Call)
            and getattr(func.value.func, "id", "") == "super"
        ):
            return self._super(func, each, run, state, position)
        if is_logging(func):
            return []
        return self._known(each, run, state, position, is_value=is_value)

    def _known(
        self, each: ast.Call, run: Run, state: State, position: Position | None, *, is_value: bool
    ) -> list[Act]:
        frame = Frame(run.scope, position, run.given)
        known = self.evaluator.of(each.func, frame)
        if not known:
            return (
                []
                if is_value and tail_of(each.func).rpartition(".")[2] not in SENDING
                else [self._outside(each, run, state, resolved=False)]
            )
        return [act for one in known for act in self._of(one, each, run, state, frame, is_value=is_value)]

    def _of(
        self,
        one: Any,
        each: ast.Call,
        run: Run,
        state: State,
        frame: Frame,
        *,
        is_value: bool,
    ) -> list[Act]:
        match one:
            case FunctionType(scope=scope, bound=bound):
                return self._follow(scope, bound, each, run, state, frame)
            case Api(name=name, of=Rows(model=model)):
                return (
                    []
                    if name in READS
                    else [self._outside(each, run, state, does=Does.WRITE, model=model._meta.label)]
                )
            case Api(name=name, of=Instance(model=model)):
                return self._of_record(name, model, each, run, state)
            case Api(name=name, of=FunctionType(scope=scope)) if name in TASK:
                return self._task(scope, each, run, state)
            case External(path=path) if path.endswith(".on_commit"):
                return self._on_commit(each, run, state)
            case External(path=path) if path.startswith(DOING):
                return [self._outside(each, run, state)]
            case External(path=path) | Api(name=path, of=External()) if _is_of_orm(one, path):
                own = bool(each.args) and self.record.is_record(each.args[0], run)
                return [] if own else [self._outside(each, run, state)]
            case External() if is_value:
                return []
            case External(path=path) if path.startswith(PURE):
                return []
            case Api(of=Native() | Many() | Table() | Tuple()) | ModelType() | ClassType():
                return []
            case Api(of=Object()) if is_value:
                return []
        return [self._outside(each, run, state)]

    def _of_record(self, name: str, model: type[Model], each: ast.Call, run: Run, state: State) -> list[Act]:
        if name in VALIDATING:
            return [self._act(Does.VALIDATE, name, state)]
        base = each.func.value if isinstance(each.func, ast.Attribute) else None
        own = (
            base is not None and self.record.is_record(base, run) and getattr(base, "id", "") not in run.loose
        )
        if name in WRITES and not own:
            return [self._outside(each, run, state, does=Does.WRITE, model=model._meta.label)]
        return []

    def _outside(
        self,
        each: ast.Call,
        run: Run,
        state: State,
        mentioned: frozenset[str] = frozenset(),
        **facts: Any,
    ) -> Act:
        does = facts.pop("does", Does.CALL)
        facts["by_keys"] = is_done_by_keys(self.record, each, run)
        facts["on_record"] = isinstance(each.func, ast.Attribute) and self.record.is_record(
            each.func.value, run
        )
        reads = both(both(state.reads, self.record.reads(each, run)), mentioned | self._named_in(run.scope))
        return self._act(does, tail_of(each.func), state, reads=reads, **facts)

    def _named_in(self, scope: Scope) -> frozenset[str]:
        """The columns that the function names in texts, as in `Sum("items__price")`: it may ask the database for them."""
        return self.record.columns_among(scope.texts)

    def _follow(
        self,
        scope: Scope,
        bound: Any,
        each: ast.Call,
        run: Run,
        state: State,
        frame: Frame,
    ) -> list[Act]:
        """A function of the project: what it does itself if it is handed the record, else that it is called."""
        given = self.evaluator.arguments(scope, bound, each, frame)
        aliases = self.record.aliases_in(scope, bound, each, run)
        if is_abstract(scope):
            return [self._outside(each, run, state, resolved=False)]
        handed = _handed(scope, bound, each)
        phases = {name: self.record.phase_of(value, run) for name, value in handed}
        inner = Run(
            scope=scope,
            given=given,
            aliases=aliases,
            phases={name: phase for name, phase in phases.items() if phase is not Phase.BOTH},
            reads={
                name: self.record.reads(value, run)
                for name, value in handed
                if aliases and name not in aliases
            },
            depth=run.depth + 1,
        )
        target = f"{scope.module.name}.{scope.name}"
        if not aliases:
            return self._bare(inner, target, each, run, state)
        return [
            replace(one, target=one.target or (target if one.is_outside else ""))
            for one in self.read(inner, state)
        ]

    def _task(self, scope: Scope, each: ast.Call, run: Run, state: State) -> list[Act]:
        """A task that is sent: that it is sent is something done, whatever it does."""
        target = f"{scope.module.name}.{scope.name}"
        inner = Run(scope=scope, given=(), aliases=set(), depth=run.depth + 1)
        acts = self._bare(inner, target, each, run, state) or [self._outside(each, run, state, target=target)]
        return [replace(one, calls=frozenset({target})) for one in acts]

    def _bare(self, inner: Run, target: str, each: ast.Call, run: Run, state: State) -> list[Act]:
        """The call of a function that isn't handed the record; none if it does nothing to anything."""
        bare = self._bare_of(inner)
        self.functions |= bare.functions
        self.names |= bare.names
        if not bare.acts:
            return []
        mentioned = self.record.columns_among(bare.names)
        writes = frozenset(pair for one in bare.acts for pair in one.written)
        calls = frozenset(name for one in bare.acts for name in one.called)
        return [self._outside(each, run, state, mentioned, target=target, writes=writes, calls=calls)]

    def _super(
        self, func: ast.Attribute, each: ast.Call, run: Run, state: State, position: Position | None
    ) -> list[Act]:
        frame = Frame(run.scope, position, run.given)
        known = self.evaluator.of(func, frame)
        acts = [act for one in known for act in self._inherited(one, each, run, state, frame)]
        if func.attr in {"save", "asave", "save_base"} and run.scope.first_parameter in run.aliases:
            self.record.is_saved = True
        return acts

    def _inherited(self, one: Any, each: ast.Call, run: Run, state: State, frame: Frame) -> list[Act]:
        """What a method does that is called by `super()`: of the record it goes on with it, of other rows it writes these."""
        is_own = run.scope.first_parameter in run.aliases
        match one:
            case FunctionType(scope=scope, bound=bound):
                given = self.evaluator.arguments(scope, bound, each, frame)
                aliases = self.record.aliases_in(scope, bound, each, run)
                aliases |= {scope.first_parameter} if is_own else set()
                inner = Run(scope=scope, given=given, aliases=aliases, depth=run.depth + 1)
                if aliases:
                    return self.read(inner, state)
                return self._bare(inner, f"{scope.module.name}.{scope.name}", each, run, state)
            case Api(name=name, of=Rows(model=model) | Instance(model=model)) if (
                name in WRITES and not is_own
            ):
                return [self._outside(each, run, state, does=Does.WRITE, model=model._meta.label)]
        return []

    def _on_commit(self, each: ast.Call, run: Run, state: State) -> list[Act]:
        """What is done after COMMIT is done, too."""
        for argument in each.args[:1]:
            match argument:
                case ast.Lambda(body=ast.Call() as body):
                    return self._called(body, body, run, state, is_value=False)
                case ast.Call(args=[function, *others]):
                    made = ast.copy_location(
                        ast.Call(func=function, args=others, keywords=argument.keywords), argument
                    )
                    return self._called(made, made, run, state, is_value=False)
                case ast.Name():
                    made = ast.copy_location(ast.Call(func=argument, args=[], keywords=[]), argument)
                    return self._called(made, made, run, state, is_value=False)
        return [self._outside(each, run, state)]


def _handed(scope: Scope, bound: Any, each: ast.Call) -> list[tuple[str, ast.expr]]:
    """The parameters of a function with what the call hands to them."""
    names = [*scope.parameters][1 if bound is not None else 0 :]
    return [*zip(names, each.args, strict=False), *((str(one.arg), one.value) for one in each.keywords)]


def _is_of_orm(one: Any, path: str) -> bool:
    """Whether it is a method of Django's that writes rows, called on its class: `models.Model.save(row)`."""
    inside = one.path if isinstance(one, External) else one.of.path
    return inside.startswith("django.db.models.") and path.rpartition(".")[2] in WRITES


def _may_suppress(node: ast.With | ast.AsyncWith) -> bool:
    """Whether what follows is reached though the block ends early: `with suppress(…)`."""
    return any(
        isinstance(each.context_expr, ast.Call) and "suppress" in tail_of(each.context_expr.func)
        for each in node.items
    )


def _only_filling(acts: Sequence[Act], empty: frozenset[str]) -> list[Act]:
    """The acts of a branch for empty columns; what doesn't fill them is about records that have them empty, and no filling in."""
    idle = empty - {each.name for each in acts if each.does is Does.ASSIGN}
    return [replace(each, empty=each.empty - idle) for each in acts]
