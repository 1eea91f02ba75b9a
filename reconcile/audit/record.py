"""What the expressions of an effect's function say of the record: which columns they read, and in which phase they hold."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Flag, auto

from django.db.models import Model

from reconcile.audit.memo import Memo
from reconcile.audit.resolver.evaluator import Evaluator
from reconcile.audit.resolver.scopes import Frame, Scope
from reconcile.audit.resolver.types import (
    Api,
    ClassType,
    FunctionType,
    Instance,
    ModelType,
    Rows,
    Tuple,
    Types,
)
from reconcile.audit.walking import walk
from reconcile.db.django_compat import has_default

__all__ = [
    "DEEPEST",
    "EVERYWHERE",
    "NEVER",
    "NoRecord",
    "Phase",
    "Record",
    "Run",
    "Stash",
    "State",
    "both",
    "is_abstract",
]

DEEPEST = 5
"""Calls within each other that are followed."""


class Phase(Flag):
    """Whether a record is being created or changed."""

    NEVER = 0
    CREATE = auto()
    UPDATE = auto()
    BOTH = CREATE | UPDATE


@dataclass(kw_only=True)
class Run:
    """A function as an effect runs it. given: what its parameters are. aliases: the names by which it knows the record. phases: what its names say
    of whether the record is new. reads: the columns on which its names depend. false: names that are false unless a caller asks for more. stashes: names that
    hold what another effect left on the record, with what is known where it did. loose: names that may be the record and may be something else.
    depth: how many calls lead to it.
    """

    scope: Scope
    given: tuple[tuple[str, Types], ...]
    aliases: set[str]
    phases: dict[str, Phase] = field(default_factory=dict)
    reads: dict[str, frozenset[str] | None] = field(default_factory=dict)
    false: set[str] = field(default_factory=set)
    stashes: dict[str, State] = field(default_factory=dict)
    loose: set[str] = field(default_factory=set)
    depth: int = 0


@dataclass(frozen=True, kw_only=True)
class State:
    """What is known where a statement runs: the phase, the columns on which it depends whether it does, and those that are empty there.

    undecided: it depends on the model whether it runs, in a way that can't be told from the source. changed: a record that is there has to have one of
    these columns changed; None if it needn't.
    """

    phase: Phase = Phase.BOTH
    reads: frozenset[str] | None = frozenset()
    empty: frozenset[str] = frozenset()
    undecided: bool = False
    changed: frozenset[str] | None = None

    def narrowed(self, by: State, reads: frozenset[str] | None) -> State:
        """What is known where both hold, by a condition that reads these columns."""
        return State(
            phase=self.phase & by.phase,
            reads=both(self.reads, reads),
            empty=self.empty | by.empty,
            undecided=self.undecided or by.undecided,
            changed=self.changed if by.changed is None else by.changed,
        )


EVERYWHERE = State()
"""Where nothing is known of the record."""

NEVER = State(phase=Phase.NEVER)
"""Where nothing runs."""


@dataclass(frozen=True, kw_only=True)
class Stash:
    """What an attribute that is no column says, by those who set it. reads: the columns on which it depends, None if nobody is seen to set it.

    where: what is known where it is set to anything. is_set: somebody is seen to set it.
    """

    reads: frozenset[str] | None = None
    where: State = EVERYWHERE
    is_set: bool = False


class Record:
    """The record that an effect is about, as its functions' expressions speak of it.

    is_saved: it has been saved where the function now is, so that it has a key and isn't being added, new or not.
    """

    is_saved = False
    has_made_key = False

    def __init__(self, evaluator: Evaluator, model: type[Model], stashed: Callable[[str], Stash]) -> None:
        self.evaluator = evaluator
        self.model = model
        self.stashed = stashed
        # Whoever asks the model for an attribute depends on where its classes stand.
        evaluator.class_of_live(model)
        self.columns = evaluator.registry.columns(model)
        self.keys = {
            "pk",
            *(
                name
                for each in model._meta.concrete_fields
                if each.primary_key
                for name in (each.name, each.attname)
            ),
        }
        # A key that is made in Python is there before the first save.
        key = model._meta.pk
        self.has_made_key = key is not None and has_default(key)
        self._within = Memo[frozenset[str] | None](frozenset(), evaluator.project.trail)

    def columns_among(self, names: Iterable[str]) -> frozenset[str]:
        """The columns that have one of the names, without the primary key."""
        return frozenset(
            self.columns[each] for each in names if each in self.columns and each not in self.keys
        )

    def test(self, test: ast.expr, run: Run) -> tuple[State, State]:
        """What a condition says where it holds, and where it doesn't."""
        match test:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yes, no = self.test(operand, run)
                empty = self.column(operand, run)
                return (replace(no, empty=no.empty | {empty}) if empty else no), yes
            case ast.BoolOp(op=op, values=values):
                return self._combined(op, [self.test(each, run) for each in _telling(op, values)])
            case ast.Call(func=ast.Name(id="bool"), args=[inner]) | ast.NamedExpr(value=inner):
                return self.test(inner, run)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._test_comparison(left, op, right, run) or self._test_value(test, run)
            case ast.Call():
                return self._test_call(test, run) or self._test_value(test, run)
        return self._test_value(test, run)

    def _test_comparison(
        self, left: ast.expr, op: ast.cmpop, right: ast.expr, run: Run
    ) -> tuple[State, State] | None:
        """What a comparison says; None if it is none of what is known."""
        is_negated = isinstance(op, ast.IsNot | ast.NotEq)
        if isinstance(right, ast.Constant) and right.value in (None, "") and isinstance(op, _EQUAL):
            yes, no = self._compared(left, run, is_none=right.value is None)
        elif self._is_class(left, run):
            return self._compared_class(op, right, run)
        elif changed := self._compared_with_before(left, right, run):
            yes, no = EVERYWHERE, State(changed=changed)
            is_negated = (
                not isinstance(op, ast.NotEq | ast.IsNot) if not isinstance(op, _EQUAL) else is_negated
            )
        elif alone := self._saved_alone(left, op, right):
            yes, no = alone
        else:
            return None
        return (no, yes) if is_negated else (yes, no)

    def _saved_alone(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> tuple[State, State] | None:
        """`update_fields <= {"state"}`: where it doesn't hold, another column has changed. `"state" in update_fields`: where it holds, this one has."""
        if isinstance(op, ast.LtE | ast.Eq) and _is_update_fields(left):
            named = {each.value for each in walk(right) if isinstance(each, ast.Constant)}
            others = {*self.columns.values()} - {self.columns.get(str(each), "") for each in named}
            return (EVERYWHERE, State(changed=frozenset(others))) if named else None
        if isinstance(op, ast.In) and _is_update_fields(right) and isinstance(left, ast.Constant):
            column = self.columns.get(str(left.value))
            return (State(changed=frozenset({column})), EVERYWHERE) if column else None
        return None

    def _test_call(self, test: ast.Call, run: Run) -> tuple[State, State] | None:
        """What a call as a condition says; None if it is none of what is known."""
        match test:
            case ast.Call(func=ast.Name(id="isinstance"), args=[value, classes]) if self.is_record(
                value, run
            ):
                return self._guard(classes, run)
            case ast.Call(func=ast.Name(id="issubclass"), args=[ast.Name(id="sender"), classes]):
                return self._guard(classes, run)
            case ast.Call(func=ast.Name(id="hasattr"), args=[base, ast.Constant(value=str() as name)]) if (
                self.is_record(base, run) or self._is_class(base, run)
            ):
                return _decided(is_true=hasattr(self.model, name))
            case ast.Call(
                func=ast.Attribute(attr="has_changed"), args=[ast.Constant(value=str() as name)]
            ) if name in self.columns:
                return State(changed=frozenset({self.columns[name]})), EVERYWHERE
        return None

    def _test_value(self, test: ast.expr, run: Run) -> tuple[State, State]:
        """What it says that any expression is true: of what another effect has left, of the phase."""
        if isinstance(test, ast.Name) and test.id in run.false:
            return NEVER, EVERYWHERE
        if isinstance(test, ast.Name) and test.id in _FORCED:
            return State(phase=_FORCED[test.id]), EVERYWHERE
        stashed = self.stash(test, run)
        if stashed is not EVERYWHERE:
            return stashed, EVERYWHERE
        if self._is_key(test, run) and (self.is_saved or self.has_made_key):
            return EVERYWHERE, NEVER
        if self.is_saved and self._asks_whether_added(test, run):
            return NEVER, EVERYWHERE
        phase = self.phase_of(test, run)
        undecided = self.asks_model(test, run)
        other = Phase.BOTH & ~phase if phase is not Phase.BOTH else Phase.BOTH
        return State(phase=phase, undecided=undecided), State(phase=other, undecided=undecided)

    def _compared_with_before(self, left: ast.expr, right: ast.expr, run: Run) -> frozenset[str]:
        """The columns of which one is compared with what it was: an attribute that is no column, or the same column of another object."""
        if isinstance(left, ast.Tuple) and isinstance(right, ast.Tuple) and len(left.elts) == len(right.elts):
            found = [
                self._compared_with_before(*pair, run) for pair in zip(left.elts, right.elts, strict=True)
            ]
            return frozenset().union(*found) if all(found) else frozenset()
        for one, other in ((left, right), (right, left)):
            columns = [self.column(each, run) for each in one.elts] if isinstance(one, ast.Tuple) else []
            if (
                columns
                and all(columns)
                and isinstance(other, ast.Attribute)
                and self.is_record(other.value, run)
                and self._is_noted(other.attr)
            ):
                return frozenset(columns)
            column = self.column(one, run)
            if column and isinstance(other, ast.Attribute):
                is_own = self.is_record(other.value, run)
                if (is_own and self._is_noted(other.attr)) or (
                    not is_own
                    and self.columns.get(other.attr) == column
                    and self._is_same_model(other.value, run)
                ):
                    return frozenset({column})
        return frozenset()

    def _is_noted(self, attr: str) -> bool:
        """Whether it is an attribute in which somebody notes what the record was: no column, and nothing that its class has."""
        return attr not in self.columns and not hasattr(self.model, attr) and self.stashed(attr).is_set

    def _is_same_model(self, node: ast.expr, run: Run) -> bool:
        """Whether it is a record of the same model, as one is that was read again, or nothing is known of it."""
        known = self.evaluator.of(node, Frame(run.scope, None, run.given))
        return all(isinstance(each, Instance) and issubclass(self.model, each.model) for each in known)

    def _is_class(self, node: ast.expr, run: Run) -> bool:
        """Whether it is the model: `sender`, `type(instance)`, `instance.__class__`."""
        match node:
            case ast.Name(id="sender"):
                return True
            case (
                ast.Call(func=ast.Name(id="type"), args=[base]) | ast.Attribute(value=base, attr="__class__")
            ):
                return self.is_record(base, run)
        return False

    def _compared_class(self, op: ast.cmpop, right: ast.expr, run: Run) -> tuple[State, State]:
        """`sender in (A, B)`, `sender is A`: known for the model, if the classes are."""
        classes = self._classes(self.evaluator.of(right, Frame(run.scope, None, run.given)))
        if not classes:
            return State(undecided=True), State(undecided=True)
        return _decided(is_true=(self.model in classes) is isinstance(op, ast.In | ast.Is | ast.Eq))

    def asks_model(self, node: ast.AST, run: Run) -> bool:
        """Whether the expression asks something of the model: of `sender` or `instance._meta`, or hands either to a function that may."""
        for each in self.evaluator.project.parts(node):
            match each:
                case ast.Name(id="sender") | ast.Attribute(attr="_meta" | "__class__"):
                    return True
                case ast.Call(func=func, args=arguments) if any(
                    self.is_record(one, run) for one in arguments
                ):
                    if getattr(func, "id", "") not in {"isinstance", "hasattr", "getattr", "bool", "str"}:
                        return True
        return False

    def _combined(self, op: ast.boolop, tests: Sequence[tuple[State, State]]) -> tuple[State, State]:
        """`and` holds where all hold; where it doesn't, nothing is known of one of several. `or` is the converse."""
        ways = [yes if isinstance(op, ast.And) else no for yes, no in tests]
        sure = EVERYWHERE
        for each in ways:
            sure = sure.narrowed(each, frozenset())
        others = [no if isinstance(op, ast.And) else yes for yes, no in tests]
        phase = Phase.NEVER
        for each in others:
            phase |= each.phase
        loose = State(
            phase=phase, undecided=any(each.undecided for each in others), changed=_changed_in_any(others)
        )
        return (sure, loose) if isinstance(op, ast.And) else (loose, sure)

    def _compared(self, left: ast.expr, run: Run, *, is_none: bool) -> tuple[State, State]:
        if self._is_key(left, run):
            if self.is_saved or self.has_made_key:
                return NEVER, EVERYWHERE
            return State(phase=Phase.CREATE), State(phase=Phase.UPDATE)
        stashed = self.stash(left, run)
        if stashed is not EVERYWHERE:
            return EVERYWHERE, stashed
        column = self.column(left, run)
        phase = self.phase_of(left, run) if is_none else Phase.BOTH
        if phase is not Phase.BOTH:
            return State(phase=Phase.BOTH & ~phase), State(phase=phase)
        return State(empty=frozenset({column}) if column else frozenset()), State()

    def _guard(self, classes: ast.expr, run: Run) -> tuple[State, State]:
        """`isinstance(instance, X)`: known for the model, if X is."""
        wanted = self._classes(self.evaluator.of(classes, Frame(run.scope, None, run.given)))
        if not wanted:
            return State(undecided=True), State(undecided=True)
        return _decided(is_true=issubclass(self.model, tuple(wanted)))

    def _classes(self, types: Types) -> list[type]:
        found: list[type] = []
        for each in types:
            match each:
                case ModelType(model=model):
                    found.append(model)
                case ClassType(info=info) if info.live is not None:
                    found.append(info.live)
                case Tuple(items=items):
                    found += [one for item in items for one in self._classes(item)]
        return found

    def phase_of(self, test: ast.expr, run: Run) -> Phase:
        """In which phase a simple condition holds."""
        match test:
            case ast.Name(id=name):
                return run.phases.get(name, Phase.BOTH)
            case (
                ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value="created"))
                | ast.Call(
                    func=ast.Attribute(value=ast.Name(id=name), attr="get" | "pop"),
                    args=[ast.Constant(value="created"), *_],
                )
            ) if run.depth == 0 and name == _rest_of(run.scope):
                return Phase.CREATE
        if self._asks_whether_added(test, run):
            return Phase.CREATE
        return Phase.UPDATE if self._is_key(test, run) else Phase.BOTH

    def _asks_whether_added(self, test: ast.expr, run: Run) -> bool:
        match test:
            case ast.Attribute(value=ast.Attribute(value=base, attr="_state"), attr="adding"):
                return self.is_record(base, run)
        return False

    # The record.

    def stash(self, node: ast.expr, run: Run) -> State:
        """What is known where the expression holds anything, if it is what another effect left on the record."""
        if isinstance(node, ast.Name):
            return run.stashes.get(node.id, EVERYWHERE)
        attr = self._attribute_in(node, run)
        is_known = attr in self.columns or attr in self.keys or not attr or hasattr(self.model, attr)
        return EVERYWHERE if is_known else self.stashed(attr).where

    def _attribute_in(self, node: ast.expr, run: Run) -> str:
        """The attribute of the record that the expression reads, in whatever way; empty if it is none."""
        match node:
            case (
                ast.Attribute(value=base, attr=attr)
                | ast.Subscript(
                    value=ast.Attribute(value=base, attr="__dict__"), slice=ast.Constant(value=str() as attr)
                )
                | ast.Call(
                    func=ast.Attribute(value=ast.Attribute(value=base, attr="__dict__"), attr="get" | "pop"),
                    args=[ast.Constant(value=str() as attr), *_],
                )
                | ast.Call(func=ast.Name(id="getattr"), args=[base, ast.Constant(value=str() as attr), *_])
            ) if self.is_record(base, run):
                return attr
        return ""

    def is_record(self, node: ast.expr, run: Run) -> bool:
        match node:
            case ast.Name(id=name):
                return name in run.aliases
            case ast.Subscript(slice=ast.Constant(value="instance")):
                return True
            case ast.Call(func=ast.Attribute(attr="get" | "pop"), args=[ast.Constant(value="instance"), *_]):
                return True
        return False

    def _is_key(self, node: ast.expr, run: Run) -> bool:
        return isinstance(node, ast.Attribute) and node.attr in self.keys and self.is_record(node.value, run)

    def column(self, node: ast.expr, run: Run) -> str:
        """The column of the record that the expression is; empty if it is none."""
        if isinstance(node, ast.Attribute) and self.is_record(node.value, run) and node.attr not in self.keys:
            return self.columns.get(node.attr, "")
        return ""

    def reads(self, node: ast.AST, run: Run) -> frozenset[str] | None:
        """The columns of the record that the expression depends on; None if that can't be told."""
        found: frozenset[str] | None = frozenset()
        for each in self.evaluator.project.parts(node):
            found = both(found, self._reads_of_node(each, run))
            if found is None:
                return None
        if run.aliases and any(self._is_written_out(each, run) for each in walk(node)):
            found = both(found, self._reads_of_member("__str__", run))
        return found

    def _is_written_out(self, node: ast.AST, run: Run) -> bool:
        """Whether a text is made of the record: `f"{self}"`, `"%s" % self`."""
        match node:
            case ast.FormattedValue(value=value):
                return self.is_record(value, run)
            case ast.BinOp(op=ast.Mod(), right=right):
                return any(
                    self.is_record(each, run)
                    for each in (right.elts if isinstance(right, ast.Tuple) else [right])
                )
        return False

    def _reads_of_node(self, node: ast.AST, run: Run) -> frozenset[str] | None:
        if isinstance(node, ast.Name):
            return run.reads.get(node.id, frozenset())
        attr = self._attribute_in(node, run) if isinstance(node, ast.expr) else ""
        if attr:
            return frozenset() if self._is_default(attr, node) else self._reads_of_attribute(attr, run)
        if isinstance(node, ast.Call):
            if any(self._holds_record(each, run) for each in _arguments(node)) and not self._is_followed(
                node, run
            ):
                return None
            if any(self.is_record(each, run) for each in _arguments(node)):
                return self._reads_of_call(node, run)
        return frozenset()

    def _is_followed(self, node: ast.Call, run: Run) -> bool:
        """Whether it is the project's functions that are called, whose reader notes what they mention."""
        known = self.evaluator.of(node.func, Frame(run.scope, None, run.given))
        return bool(known) and all(isinstance(each, FunctionType) for each in known)

    def _holds_record(self, node: ast.expr, run: Run) -> bool:
        """Whether it is a collection with the record in it, or all that the record holds: who is handed that may read anything."""
        match node:
            case ast.List(elts=inner) | ast.Tuple(elts=inner) | ast.Set(elts=inner) | ast.Dict(values=inner):
                return any(self.is_record(each, run) for each in inner)
            case ast.Attribute(value=base, attr="__dict__"):
                return self.is_record(base, run)
        return False

    def _is_default(self, attr: str, node: ast.AST) -> bool:
        """Whether it is `getattr(self, "name", False)` of what nobody is seen to set, so that it is the default."""
        match node:
            case ast.Call(func=ast.Name(id="getattr"), args=[_, _, ast.Constant()]):
                is_known = attr in self.columns or attr in self.keys or hasattr(self.model, attr)
                return not is_known and not self.stashed(attr).is_set
        return False

    def _reads_of_call(self, node: ast.Call, run: Run) -> frozenset[str] | None:
        """The columns that a function reads which is handed the whole record."""
        func = node.func
        if isinstance(func, ast.Name) and func.id in {"isinstance", "hasattr", "type", "id"}:
            return frozenset()
        if isinstance(func, ast.Attribute) and func.attr in _ROUTING:
            return frozenset()
        known = self.evaluator.of(func, Frame(run.scope, None, run.given))
        found: frozenset[str] | None = frozenset() if known else None
        for each in known:
            match each:
                case FunctionType(scope=scope) if is_abstract(scope):
                    return None
                case FunctionType(scope=scope, bound=bound):
                    found = both(
                        found, self._reads_within(scope, self.aliases_in(scope, bound, node, run), run)
                    )
                case Api(of=Rows()) | ModelType():
                    # A query or another record needs its key alone.
                    pass
                case _:
                    return None
        return found

    def aliases_in(self, scope: Scope, bound: object, node: ast.Call, run: Run) -> set[str]:
        """The parameters of the called function that are the record."""
        parameters = [*scope.parameters]
        found = set()
        if (
            bound is not None
            and isinstance(node.func, ast.Attribute)
            and self.is_record(node.func.value, run)
        ):
            found.add(scope.first_parameter)
        shift = 1 if bound is not None else 0
        for place, argument in enumerate(node.args):
            if self.is_record(argument, run) and place + shift < len(parameters):
                found.add(parameters[place + shift])
        return found | {str(each.arg) for each in node.keywords if self.is_record(each.value, run)}

    def _reads_within(self, scope: Scope, aliases: set[str], run: Run) -> frozenset[str] | None:
        """The columns that the function reads of what it knows by these names."""
        if run.depth >= DEEPEST or not scope.is_function:
            return frozenset()
        inner = Run(scope=scope, given=(), aliases=aliases, depth=run.depth + 1)
        body = ast.Module(body=list(scope.function.body), type_ignores=[])
        key = (scope, frozenset(aliases), inner.depth)
        return self._within.once(scope, key, lambda: self.reads(body, inner))

    def _reads_of_attribute(self, attr: str, run: Run) -> frozenset[str] | None:
        if attr in self.keys or attr in {"_state", "_meta", "__class__", "__dict__", "DoesNotExist"}:
            return frozenset()
        if attr in self.columns:
            return frozenset({self.columns[attr]})
        registry = self.evaluator.registry
        if registry.to_many(self.model, attr) is not None or registry.to_one(self.model, attr) is not None:
            return frozenset()
        if hasattr(Model, attr):
            return (
                frozenset()
                if self.evaluator.class_of_live(self.model).find(attr) is None
                else self._reads_of_member(attr, run)
            )
        return self._reads_of_member(attr, run)

    def _reads_of_member(self, attr: str, run: Run) -> frozenset[str] | None:
        """The columns that a property or method of the model reads."""
        info = self.evaluator.class_of_live(self.model)
        owner = info.find(attr)
        scope = (
            next((each for each in owner.children if each.name.endswith(f".{attr}")), None) if owner else None
        )
        if scope is not None and scope.is_function:
            return self._reads_within(scope, {scope.first_parameter}, run)
        return frozenset() if owner is not None else self.stashed(attr).reads


class NoRecord(Record):
    """The record of a function that isn't handed one: no name in it is the record."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.columns = {}
        self.keys = set()

    def is_record(self, node: ast.expr, run: Run) -> bool:  # noqa: ARG002
        return False

    def _is_class(self, node: ast.expr, run: Run) -> bool:  # noqa: ARG002
        return False


_FORCED = {"force_insert": Phase.CREATE, "force_update": Phase.UPDATE}
_EQUAL = ast.Is | ast.Eq | ast.IsNot | ast.NotEq

_ROUTING = frozenset({"db_for_read", "db_for_write", "allow_relation"})
"""What asks a router for a database, by the model of the record."""


def _rest_of(scope: Scope) -> str:
    """The name of the argument that takes the rest by name."""
    rest = scope.function.args.kwarg if scope.is_function else None
    return rest.arg if rest is not None else ""


def _is_update_fields(node: ast.expr) -> bool:
    """`update_fields`, `set(update_fields)`, `kwargs["update_fields"]`, `kwargs.get("update_fields")`."""
    match node:
        case ast.Name(id="update_fields") | ast.Subscript(slice=ast.Constant(value="update_fields")):
            return True
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value="update_fields"), *_]):
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset"), args=[inner]):
            return _is_update_fields(inner)
    return False


def _telling(op: ast.boolop, values: Sequence[ast.expr]) -> Sequence[ast.expr]:
    """The conditions, without those that only ask whether there are `update_fields` where another asks which."""
    if isinstance(op, ast.Or):
        return values
    idle = [each for each in values if _asks_for_any_fields(each)]
    asks = any(
        isinstance(each, ast.Compare) and any(map(_is_update_fields, (each.left, *each.comparators)))
        for each in values
        if each not in idle
    )
    return [each for each in values if each not in idle] if asks else values


def _asks_for_any_fields(node: ast.expr) -> bool:
    match node:
        case ast.Compare(left=left, ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]):
            return _is_update_fields(left)
    return _is_update_fields(node)


def _changed_in_any(states: Sequence[State]) -> frozenset[str] | None:
    """The columns of which one has to have changed where one of the states holds, for a record that is there."""
    found: frozenset[str] = frozenset()
    for each in states:
        if each.phase & Phase.UPDATE:
            if each.changed is None:
                return None
            found |= each.changed
    return found


def _arguments(node: ast.Call) -> Iterable[ast.expr]:
    return [*node.args, *(each.value for each in node.keywords)]


def is_abstract(scope: Scope) -> bool:
    """Whether the function only says that another one has to be written, so that nobody knows what runs."""
    *_, last = scope.function.body
    return isinstance(last, ast.Raise) and any(
        isinstance(each, ast.Name) and each.id == "NotImplementedError" for each in walk(last)
    )


def _decided(*, is_true: bool) -> tuple[State, State]:
    """What a condition says whose answer is known."""
    return (EVERYWHERE, NEVER) if is_true else (NEVER, EVERYWHERE)


def both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    """The columns of both; None if those of one can't be told."""
    return None if one is None or other is None else one | other
