"""What an expression stands for where it stands: its names followed to where they got their values, through functions, classes and modules."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import ModuleType as PythonModule
from typing import Any

from django.db.models import Model, QuerySet

from reconcile.audit.effects import is_third_party
from reconcile.audit.memo import Memo
from reconcile.audit.resolver import attributes, library
from reconcile.audit.resolver.annotations import annotation as read_annotation
from reconcile.audit.resolver.classes import Assigned, ClassInfo, line_of, live_class, read_live_class
from reconcile.audit.resolver.live import FOREIGN, live_value
from reconcile.audit.resolver.parameters import find_callees, infer_parameter
from reconcile.audit.resolver.project import CallUse, Project
from reconcile.audit.resolver.relations import MOST_MODELS, Registry, is_rows_class
from reconcile.audit.resolver.scopes import Binding, Frame, How, Position, Scope, names_in, parameters_of
from reconcile.audit.resolver.types import (
    NOTHING,
    Api,
    ClassType,
    External,
    FunctionType,
    Historical,
    Instance,
    Many,
    ModelType,
    ModuleType,
    Native,
    Object,
    Rows,
    Super,
    Table,
    Tuple,
    Types,
    native,
    things_in,
    union,
)
from reconcile.audit.trail import Asked, Thing

__all__ = ["Evaluator"]

DEEPEST = 40
"""Expressions within each other that are followed; of deeper ones nothing is known."""


class Evaluator:
    """Evaluates expressions. Remembers each; whoever changes a file or the registry makes a new one."""

    def __init__(self, project: Project, registry: Registry) -> None:
        self.project = project
        self.registry = registry
        self._memo = Memo[Types](NOTHING, project.trail)
        self._trail = project.trail
        self.answers: dict[Thing, tuple[Types, int]] = {}
        # Whoever keeps what earlier runs have found tells it.
        self.answer_of_before: Callable[[Thing], tuple[Types, int] | None] = lambda _: None
        self._asked: dict[tuple[ast.AST, Scope], tuple[frozenset[str], frozenset[str]]] = {}
        self._classes: dict[Any, ClassInfo] = {}
        self._class_masks: dict[Any, int] = {}
        self._rules: dict[type, Callable[[Any, Frame], Types]] = {
            ast.Name: lambda node, frame: self.name(node.id, frame),
            ast.Attribute: lambda node, frame: attributes.of_node(self, node, frame),
            ast.Call: self._call,
            ast.Constant: lambda node, _: frozenset({Native(what=type(node.value).__name__, text=node.value if isinstance(node.value, str) else None)}),
            ast.JoinedStr: lambda *_: native("str"),
            ast.Compare: lambda *_: native("bool"),
            ast.Tuple: lambda node, frame: frozenset({Tuple(items=tuple(self.of(each, frame) for each in node.elts))}),
            ast.List: self._list,
            ast.Set: self._list,
            ast.Dict: self._dict,
            ast.ListComp: self._comprehension,
            ast.SetComp: self._comprehension,
            ast.GeneratorExp: self._comprehension,
            ast.DictComp: self._dict_comprehension,
            ast.IfExp: lambda node, frame: self.of(node.body, frame) | self.of(node.orelse, frame),
            ast.BoolOp: lambda node, frame: union(self.of(each, frame) for each in node.values),
            ast.BinOp: self._binary,
            ast.UnaryOp: lambda node, frame: native("bool") if isinstance(node.op, ast.Not) else self.of(node.operand, frame),
            ast.Await: lambda node, frame: self.of(node.value, frame),
            ast.NamedExpr: lambda node, frame: self.of(node.value, frame),
            ast.Starred: lambda node, frame: self.elements(self.of(node.value, frame)),
            ast.Subscript: self._subscript,
            ast.Yield: lambda *_: NOTHING,
        }  # fmt: skip

    def of(self, node: ast.AST | None, frame: Frame) -> Types:
        """What the expression may stand for; nothing, if that can't be told."""
        rule = self._rules.get(type(node))
        if rule is None:
            return NOTHING
        if node is not None and (frame.given or frame.inner):
            frame = self._heard(node, frame)
        key = (node, frame.scope, frame.at.order if frame.at else None, frame.given, frame.inner)

        def evaluate() -> Types:
            self.read(frame.scope)
            return rule(node, frame)

        return self.once(key, evaluate)

    def _heard(self, node: ast.AST, frame: Frame) -> Frame:
        """The frame with what the expression asks for alone, so that it is the same for whatever else the function is handed."""
        scope, at, given, inner = frame
        key = (node, scope)
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = _asked_of(node, scope)
        names, parameters = asked
        return Frame(
            scope,
            at,
            tuple([each for each in given if each[0] in parameters]),
            tuple([each for each in inner if each[0] in names]) if inner else inner,
        )

    def read(self, scope: Scope) -> None:
        """Note that what the function says is read, or what the class has."""
        if scope.thing is not None:
            self._trail.note(*scope.thing)

    def function(self, scope: Scope, bound: Any = None) -> Types:
        """The function. bound: what its first argument is, if it is a method that was looked up."""
        self.read(scope)
        return frozenset({FunctionType(scope=scope, bound=bound)})

    def once(self, key: Any, evaluate: Callable[[], Types]) -> Types:
        """The value of the key, evaluated once; nothing where its own evaluation asks for it, or too many ask for each other."""
        if self._memo.depth >= DEEPEST and key not in self._memo:
            return self._memo.refuse()
        return self._memo.once(key, key, evaluate)

    def frame(self, use: CallUse) -> Frame:
        """The frame of a call, with the names of the comprehensions and lambdas around it."""
        frame = Frame(use.scope, use.position)
        for each in use.around:
            if isinstance(each, ast.Lambda):
                frame = frame._replace(
                    inner=(*frame.inner, *((name.arg, NOTHING) for name in parameters_of(each)))
                )
            else:
                frame = self.within(each.generators, frame)  # type: ignore[attr-defined]
        return frame

    def is_unique(self, scope: Scope) -> bool:
        """Whether no other function or method of the project has the name."""
        return len(self.project.definitions(scope.function.name)) == 1

    # Names.

    def name(self, name: str, frame: Frame) -> Types:
        """What the name stands for there."""
        for key, types in reversed(frame.inner):
            if key == name:
                held: Types = types
                return held
        scope: Scope | None = frame.scope
        at, current = frame.at, True
        while scope is not None:
            if scope.parent is None:
                break
            self.read(scope)
            has = name in scope.bindings or name in scope.parameters or _takes_rest(scope, name)
            if has and (current or scope.is_function):
                return self._local(name, Frame(scope, at, frame.given if current else ()))
            scope, at, current = scope.parent, None, False
        module = frame.scope.module
        known = self.global_of(module.name, name, frame.at if frame.scope.parent is None else None)
        return known or (
            frozenset({External(path=f"builtins.{name}")}) if hasattr(builtins, name) else NOTHING
        )

    def _local(self, name: str, frame: Frame) -> Types:
        scope = frame.scope
        found = union(self.bound(each, frame) for each in scope.visible(name, frame.at))
        if name in scope.parameters and not scope.surely(name, frame.at):
            found |= self._parameter(name, frame)
        if _takes_rest(scope, name):
            return found | (
                native("rest")
                if scope.function.args.kwarg is None
                else frozenset({Table(keys=native("str"), values=NOTHING)})
            )
        return found

    def _parameter(self, name: str, frame: Frame) -> Types:
        for given, types in frame.given:
            if given == name and types:
                return types
        return self.parameter(frame.scope, name)

    def parameter(self, scope: Scope, name: str) -> Types:
        """What the parameter is, whoever calls the function."""
        types = self.answer(
            (Asked.PARAMETER, f"{scope.module.path}::{scope.name}::{name}"),
            lambda: self.once(("parameter", scope, name), lambda: infer_parameter(self, scope, name)),
        )
        for each in things_in(types):
            self._trail.note(*each)
        return types

    def callees(self, path: str, name: str) -> Types:
        """Which functions the calls of the name in the file call: pairs of a call's number and `file::function`, of an empty text if nothing is known of it."""
        return self.answer((Asked.CALLEES, f"{path}::{name}"), lambda: find_callees(self, path, name))

    def callers(self, name: str) -> Iterator[tuple[str, str]]:
        """The functions in which the calls of the name stand, in all files: by file and qualified name, of an empty one for those outside of any."""
        for path in self.project.files_calling(name):
            yield from ((path, each) for each in sorted(self.callers_in(path, name)))

    def callers_in(self, path: str, name: str) -> Types:
        """The names of the functions of the file in which the calls of the name stand."""
        return self.answer(
            (Asked.CALLERS, f"{path}::{name}"),
            lambda: frozenset(each.scope.name for each in self.project.calls_in_file(path, name)),
        )

    def answer(self, thing: Thing, make: Callable[[], Types], memo: Memo[Any] | None = None) -> Types:
        """The answer to what is asked. Whoever asks depends on it alone, and not on all that it was made from; unless it was cut short.

        memo: where that is noted, if it isn't the evaluator's own.
        """
        known = self.answers.get(thing) or self.answer_of_before(thing)
        if known is None:
            (found, is_whole), mask = self._trail.apart(lambda: (memo or self._memo).whole(make))
            if not is_whole:
                self._trail.add(mask)
                return found
            known = found, mask
        self.answers[thing] = known
        self._trail.note(*thing)
        return known[0]

    def bound(self, binding: Binding, frame: Frame) -> Types:
        """What one binding makes of its name."""
        scope, at = frame.scope, binding.position
        inside = Frame(scope, at, frame.given)
        match binding.how:
            case How.FUNCTION:
                return self.function(scope.by_node[id(binding.node)])
            case How.CLASS:
                return self.class_type(self.class_of(scope.by_node[id(binding.node)]))
            case How.IMPORT:
                return self.imported(*binding.origin)
            case How.NARROWED:
                return self.instances(self.of(binding.node, inside))
            case How.ANNOTATED:
                node: Any = binding.node
                return self.annotation(node.annotation, inside) or self.of(node.value, inside)
        types = self.of(binding.node, inside)
        match binding.how:
            case How.ELEMENT:
                types = self.elements(types)
            case How.ENTERED:
                types = self.elements(types) or types
            case How.ADDED:
                return frozenset({Many(of=types)})
            case How.EXTENDED:
                return frozenset({Many(of=self.elements(types))}) if types else NOTHING
            case How.STORED:
                return frozenset({Table(keys=NOTHING, values=types)})
        for place in binding.unpack:
            types = self.item(types, place)
        return types

    def instances(self, types: Types) -> Types:
        """Instances of the classes."""
        found: set[Any] = set()
        for each in types:
            match each:
                case ModelType(model=model):
                    found |= {Instance(model=one) for one in self.few(self.registry.concrete(model))}
                case ClassType(info=info):
                    found |= self.object_of(info)
                case Tuple(items=items):
                    found |= {one for item in items for one in self.instances(item)}
                case External(path=path):
                    found.add(Native(what=path))
        return frozenset(found)

    def few(self, models: Sequence[type[Model]]) -> Sequence[type[Model]]:
        """The models, unless there are too many to say something of each."""
        return models if len(models) <= MOST_MODELS else ()

    # Modules.

    def global_of(self, module_name: str, name: str, at: Position | None = None) -> Types:
        """What a module's name stands for."""
        key = ("global", module_name, name, at.order if at else None)
        return self.once(key, lambda: self._global(module_name, name, at))

    def _global(self, module_name: str, name: str, at: Position | None) -> Types:
        self._trail.note(Asked.HELD, f"{module_name}:{name}")
        live = vars(sys.modules[module_name]).get(name) if module_name in sys.modules else None
        if module_name.partition(".")[0] in FOREIGN:
            return self._foreign(module_name, name, live)
        if isinstance(live, type) and self._is_of_package(module_name):
            return self.live(live, f"{module_name}.{name}")
        module = self.project.sources.of_module(module_name)
        scope = self.project.scope(module) if module else None
        if module is not None:
            self._trail.note(Asked.NAMED, f"{module.path}::{name}")
        if scope is not None and name in scope.bindings:
            return self._module_binding(scope, name, live, at)
        if live is not None:
            return self.live(live, f"{module_name}.{name}")
        if module is not None:
            if name in module.imports:
                return self.imported(*module.imports[name])
            found = next((found for each in module.stars if (found := self.global_of(each, name))), NOTHING)
            if found:
                return found
        is_module = self.project.sources.has_module(f"{module_name}.{name}")
        return frozenset({ModuleType(name=f"{module_name}.{name}")}) if is_module else NOTHING

    def _is_of_package(self, module_name: str) -> bool:
        """Whether the module is an installed package's, whose classes needn't be read to know what they are."""
        file = self.project.sources.file_of(module_name)
        return file is not None and is_third_party(file)

    def _module_binding(self, scope: Scope, name: str, live: Any, at: Position | None) -> Types:
        *_, last = scope.bindings[name]
        if last.how in {How.FUNCTION, How.CLASS}:
            return self.bound(last, Frame(scope))
        is_import = last.how is How.IMPORT
        says = isinstance(live, type) if is_import else live is not None
        found = self.live(live, f"{scope.module.name}.{name}") if says else NOTHING
        visible = [last] if is_import else scope.visible(name, at)
        return found or union(self.bound(each, Frame(scope)) for each in visible)

    def imported(self, origin: str, name: str | None) -> Types:
        """What an import gives a name: a module, or what a module has."""
        if name is None:
            return frozenset({ModuleType(name=origin)})
        return self.global_of(origin, name)

    def _foreign(self, module_name: str, name: str, live: Any) -> Types:
        if isinstance(live, PythonModule) or f"{module_name}.{name}" in sys.modules:
            return frozenset(
                {
                    ModuleType(
                        name=f"{module_name}.{name}" if not isinstance(live, PythonModule) else live.__name__
                    )
                }
            )
        found = self.live(live, f"{module_name}.{name}") if live is not None else NOTHING
        return found or frozenset({External(path=f"{module_name}.{name}")})

    def live(self, value: Any, path: str) -> Types:
        """What an object of the running project is."""
        return live_value(self, value, path)

    # Classes.

    def class_type(self, info: ClassInfo) -> Types:
        """The class: a model, or any other."""
        if info.live is not None and issubclass(info.live, Model) and info.live is not Model:
            return frozenset({ModelType(model=info.live)})
        if info.path.partition(".")[0] in FOREIGN:
            return frozenset({External(path=info.path)})
        return frozenset({ClassType(info=info)})

    def class_of(self, scope: Scope) -> ClassInfo:
        """The class of a body in the source."""
        return self._class(scope, lambda: self._read_class(scope))

    def _class(self, key: Any, read: Callable[[], ClassInfo]) -> ClassInfo:
        if key not in self._classes:
            self._classes[key], self._class_masks[key] = self._trail.made(read)
        self._trail.add(self._class_masks.get(key, 0))
        return self._classes[key]

    def assigned(self, info: ClassInfo, name: str) -> Iterator[Assigned]:
        """What the methods of the class and of those that it inherits from assign to `self.name`."""
        for each in info.mro:
            found = each.attributes_named(name)
            if each.text is None and each.scope is not None:
                self._trail.note(Asked.PART, f"{each.scope.module.path}::{each.scope.name}")
            yield from found

    def _read_class(self, scope: Scope) -> ClassInfo:
        self.read(scope)
        self._trail.note(Asked.HELD, f"{scope.module.name}:{scope.name.partition('.')[0]}")
        live = live_class(scope)
        if live is not None:
            return self.class_of_live(live)
        # A class that inherits from what is named like itself finds itself.
        path = f"{scope.module.name}.{scope.name}"
        info = self._classes[scope] = ClassInfo(path=path, body=lambda: scope, live=None)
        info.mro = line_of(self, info, scope)
        return info

    def class_of_live(self, live: type) -> ClassInfo:
        """The class of the running project, with its body where the source is read."""
        return self._class(live, lambda: read_live_class(self, live))

    def object_of(self, info: ClassInfo) -> Types:
        """An instance of the class: of few models where a model's, rows where a queryset's, else an object."""
        if info.live is not None and is_rows_class(info.live):
            models = self.few(self.registry.used_by(info.live))
            return frozenset(self._rows_in(info, each) for each in models)
        if info.live is not None and info.live is not Model:
            models = self.registry.concrete(info.live)
            if models or issubclass(info.live, Model):
                return frozenset(Instance(model=each) for each in self.few(models))
        return frozenset({Object(info=info)})

    def _rows_in(self, info: ClassInfo, model: type[Model]) -> Rows:
        rows = self.registry.default_rows(model)
        live: Any = info.live
        if live is None:
            return rows.narrowed
        return (
            replace(rows, manager=None, queryset=live)
            if issubclass(live, QuerySet)
            else replace(rows, manager=live)
        )

    def attribute(self, types: Types, name: str) -> Types:
        """What the attribute of any of them is."""
        return attributes.attribute(self, types, name)

    def annotation(self, node: ast.expr | None, frame: Frame) -> Types:
        """What an annotation says that a name holds."""
        return read_annotation(self, node, frame)

    # Calls.

    def _call(self, node: ast.Call, frame: Frame) -> Types:
        if isinstance(node.func, ast.Name) and node.func.id == "super":
            return self._super(frame)
        return union(self._called(each, node, frame) for each in self.of(node.func, frame))

    def _super(self, frame: Frame) -> Types:
        scope: Scope | None = frame.scope
        while scope is not None and scope.owner is None:
            scope = scope.parent
        if scope is None or not scope.first_parameter or scope.owner is None:
            return NOTHING
        owner = scope.owner
        of = self.name(scope.first_parameter, Frame(scope, None, frame.given))
        return frozenset(Super(of=each, after=owner) for each in of)

    def _called(self, each: Any, node: ast.Call, frame: Frame) -> Types:
        match each:
            case ModelType(model=model):
                return frozenset({Instance(model=model, passed=_passed(node))})
            case ClassType(info=info):
                return self._new_rows(info, node, frame) if _holds_rows(info) else self.object_of(info)
            case FunctionType(scope=scope, bound=bound):
                found = self.returned(scope, self.arguments(scope, bound, node, frame))
                # A method of rows of which nothing is known most often gives rows.
                return found or (frozenset({bound.narrowed}) if isinstance(bound, Rows) else NOTHING)
            case External(path=path):
                return library.called(self, path, node, frame)
            case Api(name=name, of=of):
                return library.method(self, name, of, node, frame)
            case Historical():
                return frozenset({self._historical(each, node, frame)})
        return NOTHING

    def _historical(self, each: Historical, node: ast.Call, frame: Frame) -> Historical:
        """What a call on a migration's registry or on one of its models gives: the model of a label, or what belongs to the same one."""
        texts = [
            one.text
            for argument in node.args[:2]
            for one in self.of(argument, frame)
            if isinstance(one, Native) and one.text
        ]
        is_lookup = isinstance(node.func, ast.Attribute) and node.func.attr == "get_model"
        return Historical(label=".".join(texts)) if is_lookup else each

    def _new_rows(self, info: ClassInfo, node: ast.Call, frame: Frame) -> Types:
        """`OrderQuerySet(self.model)`: the rows of the model that it is given."""
        found = frozenset(self._rows_in(info, each) for each in self.models_given(node, frame))
        return found or self.object_of(info)

    def models_given(self, node: ast.Call, frame: Frame) -> list[type[Model]]:
        """The models that the constructor of a queryset is given."""
        given = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "model")]
        models = union(self.of(each, frame) for each in given)
        return [each.model for each in models if isinstance(each, ModelType)]

    def arguments(
        self, scope: Scope, bound: Any, node: ast.Call, frame: Frame
    ) -> tuple[tuple[str, Types], ...]:
        """The parameters of the function with what the call gives them."""
        names = list(scope.parameters)
        given: dict[str, Types] = {}
        if bound is not None and names:
            given[names.pop(0)] = frozenset({bound})
        for name, argument in zip(names, node.args, strict=False):
            if isinstance(argument, ast.Starred):
                break
            given[name] = self.of(argument, frame)
        for keyword in node.keywords:
            if keyword.arg in names:
                given[keyword.arg] = self.of(keyword.value, frame)
        return tuple((name, types) for name, types in given.items() if types)

    def returned(self, scope: Scope, given: tuple[tuple[str, Types], ...] = ()) -> Types:
        """What the function returns when it is called so; what a generator yields."""
        key = ("returned", scope, given)
        return self.once(key, lambda: self._returned(scope, given))

    def _returned(self, scope: Scope, given: tuple[tuple[str, Types], ...]) -> Types:
        self.read(scope)
        annotated = NOTHING
        if scope.function.returns is not None:
            annotated = self.annotation(scope.function.returns, Frame(scope.parent or scope))
        found: set[Any] = set()
        for node in scope.statements:
            if isinstance(node, ast.Return) and node.value is not None:
                found |= self.of(node.value, Frame(scope, scope.positions[id(node)], given))
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield | ast.YieldFrom):
                inner = self.of(node.value.value, Frame(scope, scope.positions[id(node)], given))
                found.add(Many(of=inner if isinstance(node.value, ast.Yield) else self.elements(inner)))
        known = frozenset(each for each in found if each != Native(what="NoneType"))
        return _more_telling(known, annotated) or frozenset(found)

    # Collections.

    def elements(self, types: Types) -> Types:
        """What one gets by walking through any of them."""
        return union(self._elements_of(each) for each in types)

    def _elements_of(self, each: Any) -> Types:
        match each:
            case Rows():
                return frozenset({each.element})
            case Many(of=of):
                return of
            case Tuple(items=items):
                return union(items)
            case Table(keys=keys):
                return keys
            case Historical():
                return frozenset({each})
            case Native(what="str" | "bytes"):
                return native("str")
        return NOTHING

    def item(self, types: Types, place: int) -> Types:
        """What stands at the place of any of them."""
        found = (
            each.items[place] if isinstance(each, Tuple) and -len(each.items) <= place < len(each.items) else self._elements_of(each)
            for each in types
        )  # fmt: skip
        return union(found)

    def _list(self, node: Any, frame: Frame) -> Types:
        return frozenset({Many(of=union(self.of(each, frame) for each in node.elts))})

    def _dict(self, node: ast.Dict, frame: Frame) -> Types:
        keys = union(self.of(each, frame) for each in node.keys if each is not None)
        return frozenset(
            {Table(keys=_without_texts(keys), values=union(self.of(each, frame) for each in node.values))}
        )

    def _comprehension(self, node: Any, frame: Frame) -> Types:
        return frozenset({Many(of=self.of(node.elt, self.within(node.generators, frame)))})

    def _dict_comprehension(self, node: ast.DictComp, frame: Frame) -> Types:
        inside = self.within(node.generators, frame)
        return frozenset({Table(keys=self.of(node.key, inside), values=self.of(node.value, inside))})

    def within(self, generators: Sequence[ast.comprehension], frame: Frame) -> Frame:
        """The frame inside a comprehension, which knows the names that it walks through."""
        for each in generators:
            types = self.elements(self.of(each.iter, frame))
            frame = frame._replace(inner=(*frame.inner, *self._unpacked(each.target, types)))
        return frame

    def _unpacked(self, target: ast.expr, types: Types) -> Iterator[tuple[str, Types]]:
        if isinstance(target, ast.Name):
            yield target.id, types
        elif isinstance(target, ast.Tuple | ast.List):
            for place, each in enumerate(target.elts):
                yield from self._unpacked(each, self.item(types, place))

    def _binary(self, node: ast.BinOp, frame: Frame) -> Types:
        found = self.of(node.left, frame) | self.of(node.right, frame)
        telling = frozenset(each for each in found if isinstance(each, Rows | Many | Table))
        return telling or frozenset(each for each in found if isinstance(each, Native | Tuple))

    def _subscript(self, node: ast.Subscript, frame: Frame) -> Types:
        types = self.of(node.value, frame)
        if isinstance(node.slice, ast.Slice):
            return types
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int):
            place = node.slice.value
            return union(
                each.values if isinstance(each, Table) else self.item(frozenset({each}), place)
                for each in types
            )
        return union(each.values if isinstance(each, Table) else self._elements_of(each) for each in types)


def _asked_of(node: ast.AST, scope: Scope) -> tuple[frozenset[str], frozenset[str]]:
    """The names in an expression, and the parameters of its function on which these depend."""
    names = names_in(node)
    return names, frozenset[str]().union(*map(scope.behind, names))


def _more_telling(found: Types, annotated: Types) -> Types:
    """What a function's body says, unless its annotation says more."""
    vague = not found or all(isinstance(each, Api | External) for each in found)
    return annotated or found if vague else found


def _holds_rows(info: ClassInfo) -> bool:
    """Whether it is a class of managers or querysets, imported or not."""
    if info.live is not None:
        return is_rows_class(info.live)
    return any(each.live is not None and is_rows_class(each.live) for each in info.mro)


def _passed(node: ast.Call) -> frozenset[str] | None:
    """The arguments that a constructor is given; None if they can't be told."""
    if node.args or any(each.arg is None for each in node.keywords):
        return None
    empty = {None, False, ""}
    return frozenset(
        str(each.arg) for each in node.keywords
        if not (isinstance(each.value, ast.Constant) and each.value.value in empty)
    )  # fmt: skip


def _without_texts(types: Types) -> Types:
    return frozenset(replace(each, text=None) if isinstance(each, Native) else each for each in types)


def _takes_rest(scope: Scope, name: str) -> bool:
    if not scope.is_function:
        return False
    rest = (scope.function.args.vararg, scope.function.args.kwarg)
    return any(each is not None and each.arg == name for each in rest)
