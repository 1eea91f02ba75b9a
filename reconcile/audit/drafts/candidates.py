"""What may be true of a model's records, by its schema alone: counts, sums, the latest, copies, slugs. Asks no database."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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
    empty_is_zero: a sum of nothing is 0.
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


def _aggregates(model: type[Model], column: Field[Any, Any], child: Child) -> Iterator[Candidate]:
    words = words_of(column.name)
    numbers = [each for each in columns_of(child.model) if isinstance(each, NUMBERS) and not each.choices]
    if isinstance(column, IntegerField):
        named = bool(words & child.words) and bool(
            words & {"count", "num", "number", "total", "n", "amount", "quantity"}
        )
        yield _aggregate(
            model,
            column,
            child,
            Count(child.query),
            f'Count("{child.query}")',
            f"Count({child.query})",
            named=named,
        )
    if isinstance(column, NUMBERS):
        for each in numbers:
            path = f"{child.query}__{each.name}"
            named = bool(words & words_of(each.name)) or "total" in words
            yield _aggregate(
                model,
                column,
                child,
                Sum(path),
                f'Sum("{path}")',
                f"Sum({child.query}.{each.name})",
                named=named,
                simple=1,
            )
    if isinstance(column, DecimalField | FloatField):
        yield from _products(model, column, child, numbers)
    if isinstance(column, DateField):
        for date in (one.name for one in columns_of(child.model) if type(one) is type(column)):
            path = f"{child.query}__{date}"
            named = bool(words & ({"last", "latest", "newest"} | child.words))
            yield _aggregate(
                model, column, child, Max(path), f'Max("{path}")', f"Max({child.query}.{date})", named=named
            )


def _products(
    model: type[Model], column: Field[Any, Any], child: Child, numbers: Sequence[Field[Any, Any]]
) -> Iterator[Candidate]:
    for one, other in permutations(numbers, 2):
        if isinstance(one, DecimalField | FloatField) and isinstance(other, IntegerField):
            first, second = f"{child.query}__{one.name}", f"{child.query}__{other.name}"
            named = bool(words_of(column.name) & {"total", "amount", "sum", "subtotal"})
            expected = Sum(F(first) * F(second), output_field=column.clone())
            told = f"Sum({child.query}.{one.name} * {child.query}.{other.name})"
            yield _aggregate(
                model,
                column,
                child,
                expected,
                f'Sum(F("{first}") * F("{second}"))',
                told,
                named=named,
                simple=2,
            )


def _aggregate(
    model: type[Model], column: Field[Any, Any], child: Child, expected: Expression, code: str, told: str, *, named: bool, simple: int = 0
) -> Candidate:  # fmt: skip
    names = ", ".join(sorted({*re.findall(r"\b(Count|Sum|Max|F)\(", code)}))
    return Candidate(
        model=model, column=column.name, must=f"HaveValues({column.name}={code})", told=f"{column.name} = {told}", expected=expected, child=child.model,
        imports=frozenset({f"from django.db.models import {names}", "from reconcile import HaveValues, Rule"}), named=named, simple=simple,
        empty_is_zero=not column.null and not isinstance(column, DateField),
    )  # fmt: skip


def _copies(model: type[Model], column: Field[Any, Any]) -> Iterator[Candidate]:
    """Columns that are named after one of a record that the model refers to."""
    for key in (each for each in model._meta.concrete_fields if isinstance(each, ForeignKey)):
        target = key.related_model
        if not isinstance(target, type) or not issubclass(target, Model):
            continue
        for other in columns_of(target):
            if type(other) is type(column) and column.name in {f"{key.name}_{other.name}", other.name}:
                yield _copy(model, column, key, other)


def _copy(
    model: type[Model], column: Field[Any, Any], key: ForeignKey[Any, Any], other: Field[Any, Any]
) -> Candidate:
    path = f"{key.name}__{other.name}"
    needs_text = key.null and not column.null and isinstance(column, TEXTS)
    code = f'Coalesce(F("{path}"), Value(""))' if needs_text else f'F("{path}")'
    imports = {"from django.db.models import F", "from reconcile import HaveValues, Rule"}
    if needs_text:
        imports |= {"from django.db.models import Value", "from django.db.models.functions import Coalesce"}
    return Candidate(
        model=model, column=column.name, must=f"HaveValues({column.name}={code})", told=f"{column.name} = {key.name}.{other.name}", expected=F(path),
        imports=frozenset(imports), named=column.name == f"{key.name}_{other.name}", empty_is_zero=needs_text,
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
                imports=frozenset({"from reconcile import HaveValues, Latest, Rule"}), simple=0 if order else 1,
                named=bool(words_of(key.name) & {"last", "latest", "newest", "current"}),
            )  # fmt: skip


def generic_keys(model: type[Model]) -> list[str]:
    """The generic foreign keys of the model, by name."""
    return [
        each.name
        for each in private_fields(model)
        if hasattr(each, "ct_field") and not is_generic_relation(each)
    ]
