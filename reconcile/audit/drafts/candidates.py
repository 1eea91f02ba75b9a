"""What may be true of a model's records, by its schema alone: counts, sums, the latest, copies, slugs. Asks no database."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

from django.db.models import (
    BooleanField,
    CharField,
    Count,
    DateField,
    DecimalField,
    Expression,
    F,
    Field,
    FloatField,
    ForeignKey,
    IntegerField,
    Max,
    Model,
    OuterRef,
    Q,
    Subquery,
    Sum,
    TextField,
)
from django.utils.text import slugify

from reconcile.db.django_compat import is_generic_relation, private_fields, reverse_relations

__all__ = [
    "Candidate",
    "Child",
    "children_of",
    "columns_of",
    "generic_keys",
    "only_some",
    "plural_of",
    "value_candidates",
    "words_of",
]

NESTED = frozenset({"lft", "rght", "tree_id", "level", "depth", "path", "numchild"})
"""Columns that packages for nested sets keep themselves."""

TEXTS = (CharField, TextField)
NUMBERS = (IntegerField, DecimalField, FloatField)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A value that a column may always have. must: the code that says so. told: the same for people. imports: the lines that the code needs.

    expected: the expression of Django's to compare with; made, instead, a Python function of the columns `reads`. named: the column's name says it.
    empty_is_zero: a sum of nothing is 0. alike: words that the names of both columns have. aggregate: the child, the function and the child's column, of
    an aggregate that could be one of some of its rows. many: the rows from which it is computed, of which a record may have several. source: of a copy, what it is a
    copy of. unless_null: it is about those records alone in which this key isn't NULL.
    """

    model: type[Model]
    column: str
    must: str
    told: str
    imports: frozenset[str]
    expected: Any = None
    made: Callable[[Any], Any] | None = None
    reads: tuple[str, ...] = ()
    child: type[Model] | None = None
    named: bool = False
    simple: int = 0
    empty_is_zero: bool = False
    alike: int = 0
    aggregate: tuple[Child, Any, str] | None = None
    many: Child | None = None
    source: str = ""
    unless_null: str = ""


@dataclass(frozen=True, kw_only=True)
class Child:
    """Records that refer to the model's by a foreign key. query: by which name lookups know them. single: there is one at most."""

    model: type[Model]
    key: str
    query: str
    single: bool
    words: frozenset[str] = field(default=frozenset())


def words_of(name: str) -> frozenset[str]:
    """The words of a name, each in the singular as far as an `s` goes: `items_count` has item and count."""
    return frozenset(
        map(_singular, re.findall(r"[a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()))
    )


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return word if word.endswith("ss") else word.removesuffix("s")


def plural_of(model: type[Model]) -> str:
    """What several records are called; where nobody has said it, better English than an `s` at the end of any word."""
    one, many = str(model._meta.verbose_name), str(model._meta.verbose_name_plural)
    if many != f"{one}s":
        return many
    if one.endswith(("s", "x", "z", "ch", "sh")):
        return f"{one}es"
    return f"{one[:-1]}ies" if re.search(r"[^aeiou]y$", one) else many


def columns_of(model: type[Model]) -> list[Field[Any, Any]]:
    """The columns that a rule could be about: no keys, and none that a package for trees keeps itself."""
    nested = any(each.__module__.partition(".")[0] in {"mptt", "treebeard"} for each in model.__mro__)
    return [
        each for each in model._meta.concrete_fields
        if not each.primary_key and not each.is_relation and not (nested and each.name in NESTED)
    ]  # fmt: skip


def children_of(model: type[Model]) -> list[Child]:
    """The records that refer to the model's, by each foreign key that a lookup can follow back."""
    found = []
    for relation in reverse_relations(model):
        child = relation.related_model
        if relation.one_to_many or relation.one_to_one:
            is_own = (
                isinstance(child, type)
                and issubclass(child, Model)
                and not child._meta.proxy
                and not relation.hidden
            )
            if is_own and not issubclass(child, model):
                words = words_of(relation.name) | words_of(child.__name__)
                found.append(
                    Child(
                        model=child,
                        key=relation.field.name,
                        query=relation.name,
                        single=bool(relation.one_to_one),
                        words=words,
                    )
                )
    return found


def value_candidates(model: type[Model]) -> Iterator[Candidate]:
    """All that may be true of the model's own columns."""
    for column in columns_of(model):
        if column.choices or isinstance(column, BooleanField):
            continue
        yield from _copies(model, column)
        if isinstance(column, TEXTS):
            yield from _slugs(model, column)
        for child in (each for each in children_of(model) if not each.single):
            yield from _aggregates(model, column, child)
    for key in (each for each in model._meta.concrete_fields if isinstance(each, ForeignKey)):
        yield from _latest(model, key)


COUNTING = frozenset({"count", "num", "number", "total", "n", "amount", "quantity"})
SUMMING = frozenset({"total", "amount", "sum", "subtotal"})
NEWEST = frozenset({"last", "latest", "newest"})


def _aggregates(model: type[Model], column: Field[Any, Any], child: Child) -> Iterator[Candidate]:
    words = words_of(column.name)
    if isinstance(column, IntegerField):
        named = bool(words & child.words) and bool(words & COUNTING)
        yield _aggregate(model, column, child, Count, "", named=named)
    if isinstance(column, NUMBERS):
        for each in _numbers_of(child.model):
            named = bool(words & words_of(each.name)) or "total" in words
            yield _aggregate(model, column, child, Sum, each.name, named=named)
    if isinstance(column, DecimalField | FloatField):
        yield from _products(model, column, child)
    if isinstance(column, DateField):
        for each in (one for one in columns_of(child.model) if type(one) is type(column)):
            yield _aggregate(model, column, child, Max, each.name, named=bool(words & (NEWEST | child.words)))


def _numbers_of(model: type[Model]) -> list[Field[Any, Any]]:
    return [each for each in columns_of(model) if isinstance(each, NUMBERS)]


def _products(model: type[Model], column: Field[Any, Any], child: Child) -> Iterator[Candidate]:
    for one, other in permutations(_numbers_of(child.model), 2):
        if isinstance(one, DecimalField | FloatField) and isinstance(other, IntegerField):
            first, second = f"{child.query}__{one.name}", f"{child.query}__{other.name}"
            yield _of_many(
                model, column, child, Sum(F(first) * F(second), output_field=column.clone()), f'Sum(F("{first}") * F("{second}"))',
                f"Sum({child.query}.{one.name} * {child.query}.{other.name})", named=bool(words_of(column.name) & SUMMING), simple=2,
            )  # fmt: skip


def _aggregate(
    model: type[Model], column: Field[Any, Any], child: Child, function: Any, of: str, *, named: bool, only: tuple[str, Any] | None = None
) -> Candidate:  # fmt: skip
    """The candidate of one aggregate of the child's column `of`, or of the child itself; of those rows alone that have a value in a column, if `only` says so."""
    path = f"{child.query}__{of}" if of else child.query
    name, condition, told = function.__name__, "", ""
    if only is not None:
        key, value = f"{child.query}__{only[0]}", only[1]
        condition = f", filter=Q({key}={repr(value).replace(chr(39), chr(34))})"
        told = f" with {only[0]} {value}"
    expected = function(path, filter=Q(**{f"{child.query}__{only[0]}": only[1]}) if only else None)
    found = _of_many(
        model, column, child, expected, f'{name}("{path}"{condition})', f"{name}({child.query}{f'.{of}' if of else ''}{told})",
        named=named, simple=int(function is Sum) + (1 if only else 0),
    )  # fmt: skip
    return replace(found, alike=len(words_of(column.name) & words_of(of)), aggregate=(child, function, of))


def only_some(candidate: Candidate) -> Iterator[Candidate]:
    """The same aggregate of those rows alone that have one truth, or one choice, in a column of theirs."""
    if candidate.aggregate is None:
        return
    child, function, of = candidate.aggregate
    column: Any = candidate.model._meta.get_field(candidate.column)
    for each in columns_of(child.model):
        for value in _kinds_of(each):
            yield _aggregate(
                candidate.model, column, child, function, of, named=candidate.named, only=(each.name, value)
            )


def _kinds_of(column: Field[Any, Any]) -> list[Any]:
    if isinstance(column, BooleanField):
        return [True, False]
    pairs = [
        pair
        for value, label in column.choices or ()
        for pair in (label if isinstance(label, list | tuple) else [(value, label)])
    ]
    kinds = [value for value, _ in pairs]
    return kinds if len(kinds) <= MOST_KINDS else []


MOST_KINDS = 8
"""Choices of a column by which rows are told apart."""


def _of_many(
    model: type[Model], column: Field[Any, Any], child: Child, expected: Expression, code: str, told: str, *, named: bool, simple: int
) -> Candidate:  # fmt: skip
    names = ", ".join(sorted({*re.findall(r"\b(Count|Sum|Max|F|Q)\(", code)}))
    return Candidate(
        model=model, column=column.name, must=f"HaveValues({column.name}={code})", told=f"{column.name} = {told}", expected=expected, child=child.model,
        imports=frozenset({f"from django.db.models import {names}", "from reconcile import HaveValues, Rule"}), named=named, simple=simple,
        empty_is_zero=not column.null and not isinstance(column, DateField), many=child,
    )  # fmt: skip


def _copies(model: type[Model], column: Field[Any, Any]) -> Iterator[Candidate]:
    """Columns that are named after one of a record that the model refers to."""
    for key in (each for each in model._meta.concrete_fields if isinstance(each, ForeignKey)):
        target = key.related_model
        if not isinstance(target, type) or not issubclass(target, Model):
            continue
        for other in columns_of(target):
            if _are_alike(column, other) and column.name in {f"{key.name}_{other.name}", other.name}:
                yield _copy(model, column, key, other)


def _are_alike(one: Field[Any, Any], other: Field[Any, Any]) -> bool:
    """Whether a column can hold what the other does: both are texts, or of one kind of number or date."""
    return type(one) is type(other) or all(isinstance(each, TEXTS) for each in (one, other))


def _copy(
    model: type[Model], column: Field[Any, Any], key: ForeignKey[Any, Any], other: Field[Any, Any]
) -> Candidate:
    # What a record without the key has is nothing that a copy could say: it may be all that is left of what is gone.
    path, source = f"{key.name}__{other.name}", f"{key.name}.{other.name}"
    return Candidate(
        model=model, column=column.name, must=f'HaveValues({column.name}=F("{path}"))', told=f"{column.name} = {source}", expected=F(path), source=source,
        imports=frozenset({"from django.db.models import F", "from reconcile import HaveValues, Rule"}), named=column.name == f"{key.name}_{other.name}",
        unless_null=key.name if key.null else "",
    )  # fmt: skip


def _slugs(model: type[Model], column: Field[Any, Any]) -> Iterator[Candidate]:
    if "slug" not in words_of(column.name):
        return
    for other in columns_of(model):
        if isinstance(other, TEXTS) and other.name != column.name and "slug" not in words_of(other.name):
            yield Candidate(
                model=model, column=column.name, must=f'HaveValues({column.name}=FromPython(slugify, reads=["{other.name}"]))',
                told=f"{column.name} = slugify({other.name})", made=slugify, reads=(other.name,), named=True,
                imports=frozenset({"from django.utils.text import slugify", "from reconcile import FromPython, HaveValues, Rule"}),
            )  # fmt: skip


def _latest(model: type[Model], key: ForeignKey[Any, Any]) -> Iterator[Candidate]:
    """A key that points at the newest of the records that refer back."""
    for child in (each for each in children_of(model) if each.model is key.related_model and not each.single):
        dates = [each.name for each in columns_of(child.model) if isinstance(each, DateField)]
        for order in (*dates, None):
            by = [f"-{order}", "-pk"] if order else ["-pk"]
            newest = child.model._base_manager.filter(**{child.key: OuterRef("pk")}).order_by(*by)
            shown = ", ".join(f'"{each}"' for each in by)
            yield Candidate(
                model=model, column=key.name, must=f'HaveValues({key.name}=Latest("{child.query}", by=[{shown}]))',
                told=f"{key.name} = the latest of {child.query} by {order or 'key'}", expected=Subquery(newest.values("pk")[:1]), child=child.model,
                imports=frozenset({"from reconcile import HaveValues, Latest, Rule"}), simple=0 if order else 1, many=child,
                named=bool(words_of(key.name) & {"last", "latest", "newest", "current"}),
            )  # fmt: skip


def generic_keys(model: type[Model]) -> list[str]:
    """The generic foreign keys of the model, by name."""
    return [
        each.name
        for each in private_fields(model)
        if hasattr(each, "ct_field") and not is_generic_relation(each)
    ]
