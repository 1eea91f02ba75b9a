"""Shows for rules that a bulk write and `ensure` leave what saves and their signals leave: on records of each rule's factory, of fixtures, or on existing rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

from reconcile.audit.called import noting_calls
from reconcile.audit.chosen import choose_rows
from reconcile.audit.listing import code_of
from reconcile.audit.muting import save_muted
from reconcile.audit.parity.comparing import Parity
from reconcile.audit.parity.records import (
    Linked,
    Made,
    counted,
    from_factory,
    from_fixtures,
    in_any_order,
    save_each,
    write_in_bulk,
)
from reconcile.audit.parity.running import compare_paths, read_ignored, read_volatile
from reconcile.audit.parity.schema import Schema
from reconcile.db.columns import concrete_model
from reconcile.errors import ReconcileError, with_type
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.registry import rules_if_any
from reconcile.rules.rule import Rule
from reconcile.runs.ensuring import ensure

__all__ = ["Comparison", "ParityOptions", "Suite", "compare_functions", "compare_rules"]

Path_ = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class ParityOptions:
    """How paths are compared. volatile, ignored: columns of which only the shape is compared, and tables that are not, by their names.

    is_copy: the database holds existing rows, which are used, and the world is shut while project code runs.
    """

    using: str = "default"
    fixtures: Sequence[Path] = ()
    volatile: Sequence[str] = ()
    ignored: Sequence[str] = ()
    is_copy: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two paths on the same records. names: of the paths. rules: those whose records they are. records: how many, by model. origin: where they come from.

    parity: None if a path failed, for the reason in `error`. refused: rules that `ensure` left out, each with the reason. ran, idle: functions that these rules
    cover, by whether the first path called them.
    """

    names: tuple[str, str]
    rules: Sequence[str] = ()
    records: Mapping[str, int] = field(default_factory=dict)
    origin: str = ""
    parity: Parity | None = None
    error: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    ran: Sequence[str] = ()
    idle: Sequence[str] = ()

    @property
    def status(self) -> str:
        """`same`, `different`, `unsteady`: a path doesn't do the same twice, `empty`: neither did anything, or `error`."""
        if self.parity is None:
            return "error"
        if any(self.parity.unsteady.values()):
            return "unsteady"
        if self.parity.is_empty:
            return "empty"
        return "same" if self.parity.is_same else "different"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Several comparisons. without_records: rules that cover something, and of which there is no record to show it on."""

    comparisons: Sequence[Comparison]
    without_records: Sequence[str] = ()

    @property
    def status(self) -> str:
        """The gravest of all; `empty`, if nothing was compared."""
        found = {each.status for each in self.comparisons}
        grave = ("error", "different", "unsteady", "empty", "same")
        return next((each for each in grave if each in found), "empty")

    @property
    def ran(self) -> list[str]:
        """The covered functions that a first path called."""
        return sorted({name for each in self.comparisons for name in each.ran})

    @property
    def idle(self) -> list[str]:
        """The covered functions of the compared rules that none called."""
        return sorted({name for each in self.comparisons for name in each.idle} - {*self.ran})


NAMES = ("saves with signals", "a bulk write with ensure")


def compare_functions(one: Path_, two: Path_, names: tuple[str, str], options: ParityOptions) -> Suite:
    """Compare what two functions leave behind. Raises UsageError for options that name nothing."""
    _read_names(options)
    return Suite(comparisons=[_compared(one, two, options, Comparison(names=names))])


def compare_rules(rules: Mapping[str, Rule], options: ParityOptions) -> Suite:
    """Compare saves with a bulk write and `ensure`, on the records of each rule; those that share a factory or a model at once.

    Raises UsageError for options that name nothing.
    """
    _read_names(options)
    comparisons, without = [], []
    for origin, its in _by_origin(rules, options).items():
        if origin is None:
            without += [name for name, rule in its.items() if rule.covers]
        else:
            comparisons.append(_compare(origin, its, options))
    return Suite(comparisons=comparisons, without_records=sorted(without))


def _read_names(options: ParityOptions) -> None:
    """Raise UsageError for options that name no column or table, before anything is run."""
    schema = Schema(options.using)
    read_volatile(options.volatile, schema)
    read_ignored(options.ignored, schema)


# Where the records come from.


@dataclass(frozen=True)
class _Origin:
    """name: in words. make: the records to write. existing: they are in the database, and are saved again. order: what lets them be written in theirs."""

    name: str
    make: Callable[[], Made] = field(compare=False)
    existing: bool = False
    order: Callable[[str], AbstractContextManager[Any]] = field(
        default=lambda _: nullcontext(), compare=False
    )


def _by_origin(
    rules: Mapping[str, Rule], options: ParityOptions
) -> Mapping[_Origin | None, Mapping[str, Rule]]:
    found: dict[_Origin | None, dict[str, Rule]] = defaultdict(dict)
    for name, rule in rules.items():
        found[_origin_of(rule, options)][name] = rule
    return found


def _origin_of(rule: Rule, options: ParityOptions) -> _Origin | None:
    if rule.factory:
        factory = rule.factory
        name = factory if isinstance(factory, str) else f"{factory.__module__}:{factory.__qualname__}"
        return _Origin(f"factory {name}", partial(from_factory, factory))
    if options.fixtures:
        return _Origin(
            f"fixtures {', '.join(map(str, options.fixtures))}",
            partial(_from_fixtures, options),
            order=in_any_order,
        )
    if options.is_copy:
        model = rule.model
        return _Origin(
            f"existing rows of {model._meta.label}, saved again",
            lambda: choose_rows(model, options.using).rows,
            existing=True,
        )
    return None


def _from_fixtures(options: ParityOptions) -> Made:
    """The objects of the fixtures, without those of models whose rows rules make: both paths make these."""
    rules = [each for each in rules_if_any().values() if not isinstance(each, InvalidRule)]
    models = {concrete_model(model) for each in rules for model in each.must.inserted_models()}
    return [
        each
        for each in from_fixtures(options.fixtures, options.using)
        if isinstance(each, Linked)
        or not (concrete_model(type(each)) in models or each._meta.app_label == "reconcile")
    ]


# One comparison.


def _compare(origin: _Origin, rules: Mapping[str, Rule], options: ParityOptions) -> Comparison:
    covered = {code: name for rule in rules.values() for code, name in _covered(rule)}
    ran: set[CodeType] = set()
    seen: dict[str, Any] = {}

    def one() -> None:
        made = seen["made"] = origin.make()
        with noting_calls(covered, ran.add), origin.order(options.using):
            save_each(made, options.using)

    def two() -> None:
        made = origin.make()
        with origin.order(options.using):
            written = (
                _saved_again(made, options.using) if origin.existing else write_in_bulk(made, options.using)
            )
        if written:
            ensured = ensure(written, new=not origin.existing, using=options.using)
            seen["refused"] = ensured.refused

    found = _compared(one, two, options, Comparison(names=NAMES, rules=sorted(rules), origin=origin.name))
    names = {name: code in ran for code, name in covered.items()}
    return replace(
        found,
        records=counted(seen.get("made", ())),
        refused=seen.get("refused", {}),
        ran=sorted(name for name, has_run in names.items() if has_run),
        idle=sorted(name for name, has_run in names.items() if not has_run),
    )


def _covered(rule: Rule) -> Iterator[tuple[CodeType, str]]:
    for function in rule.covers:
        code = code_of(function)
        if code is not None:
            yield code, f"{function.__module__}.{function.__qualname__}"


def _saved_again(made: Made, using: str) -> list[Any]:
    for each in made:
        save_muted(each, using=using)  # type: ignore[arg-type]
    return [*made]


def _compared(one: Path_, two: Path_, options: ParityOptions, known: Comparison) -> Comparison:
    try:
        parity = compare_paths(
            one,
            two,
            using=options.using,
            volatile=options.volatile,
            ignored=options.ignored,
            is_shut=options.is_copy,
        )
    except ReconcileError as error:
        return replace(known, error=str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the project's code
        return replace(known, error=with_type(error))
    return replace(known, parity=parity)
