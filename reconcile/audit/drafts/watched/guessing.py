"""What a written value may be: an expression over the row and what stands around it. Those that don't give what was written, once, are out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from typing import Any

from django.db import DatabaseError, transaction
from django.db.models import (
    CharField,
    DateField,
    DecimalField,
    Expression,
    ExpressionWrapper,
    F,
    Field,
    FloatField,
    ForeignKey,
    IntegerField,
    JSONField,
    Model,
    TextField,
    UUIDField,
    Value,
)
from django.db.models.functions import Coalesce, Concat, Lower, Upper
from django.utils.text import slugify

from reconcile.audit.drafts.candidates import Candidate, columns_of, only_some, value_candidates
from reconcile.audit.drafts.scoring import holds_for, owed_by
from reconcile.audit.drafts.watched.observing import SENTINEL, Target

__all__ = ["Guesses"]

TEXTS = (CharField, TextField)
NUMBERS = (IntegerField, DecimalField, FloatField)
LITERAL = 3
"""Characters that a template may have between two columns."""
HOPS = 2


class Guesses:
    """What is left of all that a column may be. written: how often each value was seen. constants: whether nothing but one value was."""

    def __init__(self, target: Target, using: str) -> None:
        self.target, self.using = target, using
        self.left: list[Candidate] | None = None
        self.values: list[Any] = []

    def judge(self, key: Any) -> None:
        """Drop each guess that doesn't give what stands in the row now."""
        there = self._rows().filter(pk=key).values_list(self.target.column, flat=True).get()
        if self.left is None:
            self.left = [*_of_schema(self.target), *_templates(self.target, key, there, self.using)]
        self.values.append(there)
        self.left = [each for each in self.left if self._gives(each, key)]

    def _gives(self, each: Candidate, key: Any) -> bool:
        try:
            with transaction.atomic(using=self.using):
                return holds_for(each, key, self.using)
        except (DatabaseError, ArithmeticError, TypeError, ValueError):
            return False

    def _rows(self) -> Any:
        return self.target.model._base_manager.using(self.using)

    @property
    def constant(self) -> Candidate | None:
        """The one value that was written each time, if a rule can say it; None if there were several."""
        first = self.values[0] if self.values else None
        if self.values and all(isinstance(each, dict) for each in self.values):
            return self._keys()
        if any(each != first for each in self.values) or not isinstance(
            first, str | bool | int | Decimal | None
        ):
            return None
        code = repr(first).replace("'", '"')
        return _candidate(
            self.target, code, str(first), expected=Value(first), imports={"from decimal import Decimal"} if isinstance(first, Decimal) else set()
        )  # fmt: skip

    def _keys(self) -> Candidate | None:
        """The keys that were put into a document each time, with the same values."""
        first, *others = self.values
        held = {key: value for key, value in first.items() if key not in SENTINEL and all(one.get(key, ...) == value for one in others)}  # fmt: skip
        if not held or held == first:
            return None
        code = f"HaveKeys({held!r})".replace("'", '"')
        return _candidate(
            self.target, code, f"the keys {', '.join(held)}", imports={"from reconcile import HaveKeys"}
        )


def _candidate(
    target: Target, code: str, told: str, *, expected: Any = None, imports: set[str] | None = None, simple: int = 0, **more: Any
) -> Candidate:  # fmt: skip
    return Candidate(
        model=target.model, column=target.column, must=f"HaveValues({target.column}={code})", told=f"{target.column} = {told}",
        imports=frozenset({"from reconcile import HaveValues, Rule", *(imports or ())}), expected=expected, simple=simple, **more,
    )  # fmt: skip


def _of_schema(target: Target) -> Iterator[Candidate]:
    """All that the schema lets one think of, the simplest first."""
    known = [each for each in value_candidates(target.model) if each.column == target.column]
    # Over a key that is NULL there is nothing to copy; what a save writes then is seen.
    yield from (replace(each, unless_null="") for each in known)
    yield from (one for each in known for one in only_some(each))
    yield from _copies(target)
    if isinstance(target.field, TEXTS):
        yield from _texts(target)
    if isinstance(target.field, NUMBERS):
        yield from _arithmetic(target)


def _paths(model: type[Model], hops: int = HOPS) -> Iterator[tuple[str, Field[Any, Any], bool]]:
    """The columns of the row and of those that it refers to, each with its path, and whether a NULL may stand on the way."""
    for each in model._meta.concrete_fields:
        yield each.name, each, bool(each.null)
        if isinstance(each, ForeignKey) and hops and isinstance(each.related_model, type):
            for path, field, null in _paths(each.related_model, hops - 1):
                if not field.primary_key:
                    yield f"{each.name}__{path}", field, null or bool(each.null)


def _copies(target: Target) -> Iterator[Candidate]:
    """What stands in another column, as it is, or an empty text where nothing does."""
    for path, each, null in _paths(target.model):
        # A path that comes back to the row says nothing.
        if path == target.column or each.primary_key or not _is_alike(target.field, each):
            continue
        hops = path.count("__")
        f = {"from django.db.models import F"}
        yield _candidate(target, f'F("{path}")', path.replace("__", "."), expected=F(path), imports=f, simple=hops, source=path.replace("__", ".") if hops else "")  # fmt: skip
        if null and isinstance(target.field, TEXTS) and not target.field.null:
            yield _candidate(
                target, f'Coalesce(F("{path}"), Value(""))', f"{path.replace('__', '.')}, or nothing", expected=Coalesce(F(path), Value("")), simple=hops + 1,
                imports={"from django.db.models import F, Value", "from django.db.models.functions import Coalesce"},
            )  # fmt: skip


def _is_alike(one: Field[Any, Any], other: Field[Any, Any]) -> bool:
    if isinstance(one, ForeignKey) or isinstance(other, ForeignKey):
        return (
            isinstance(one, ForeignKey)
            and isinstance(other, ForeignKey)
            and one.related_model is other.related_model
        )
    for kinds in (TEXTS, NUMBERS, (DateField,), (UUIDField,), (JSONField,)):
        if isinstance(one, kinds):
            return isinstance(other, kinds)
    return type(one) is type(other)


def _texts(target: Target) -> Iterator[Candidate]:
    """A text of the row in small or large letters, or as a slug."""
    for each in columns_of(target.model):
        if isinstance(each, TEXTS) and each.name != target.column and not each.choices:
            for function in (Lower, Upper):
                name = function.__name__
                yield _candidate(
                    target, f'{name}(F("{each.name}"))', f"{each.name} in {name.lower()} case", expected=function(F(each.name)), simple=1,
                    imports={"from django.db.models import F", f"from django.db.models.functions import {name}"},
                )  # fmt: skip
            yield _candidate(
                target, f'FromPython(slugify, reads=["{each.name}"])', f"slugify({each.name})", made=slugify, reads=(each.name,), simple=1,
                imports={"from django.utils.text import slugify", "from reconcile import FromPython, HaveValues, Rule"},
            )  # fmt: skip


def _arithmetic(target: Target) -> Iterator[Candidate]:
    """Two numbers of the row, multiplied, added, or the one less the other."""
    numbers = [
        each for each in columns_of(target.model) if isinstance(each, NUMBERS) and each.name != target.column
    ]
    for one, other in permutations(numbers, 2):
        for sign, made in (
            ("*", F(one.name) * F(other.name)),
            ("+", F(one.name) + F(other.name)),
            ("-", F(one.name) - F(other.name)),
        ):
            if sign != "-" and one.name > other.name:
                continue
            yield _candidate(
                target, f'F("{one.name}") {sign} F("{other.name}")', f"{one.name} {sign} {other.name}", expected=_typed(made, target.field), simple=2,
                imports={"from django.db.models import F"},
            )  # fmt: skip


def _typed(expression: Any, field: Field[Any, Any]) -> Expression:
    return ExpressionWrapper(expression, output_field=field.clone())


def _templates(target: Target, key: Any, there: Any, using: str) -> Iterator[Candidate]:
    """Two texts with a few characters between, as in `parent.path / name`, so that the first value that was seen is given."""
    if not isinstance(target.field, TEXTS) or not there:
        return
    paths = [
        (path, null)
        for path, each, null in _paths(target.model, 1)
        if isinstance(each, TEXTS) and path != target.column and not each.choices
    ]
    row = target.model._base_manager.using(using).filter(pk=key).values(*(path for path, _ in paths)).get()
    for (first, one_null), (second, other_null) in permutations(paths, 2):
        one, other = row[first] or "", row[second] or ""
        between = there[len(one) : len(there) - len(other)]
        is_given = there == f"{one}{between}{other}" and other and between and len(between) <= LITERAL
        if is_given and not any(letter.isalnum() for letter in between):
            yield _template(target, (first, one_null), between, (second, other_null))


def _template(target: Target, first: tuple[str, bool], between: str, second: tuple[str, bool]) -> Candidate:
    parts: list[Any] = []
    codes: list[str] = []
    names = {"F"}
    functions = {"Concat"}
    for part in (first, between, second):
        if isinstance(part, str):
            parts.append(Value(part))
            codes.append(f"Value({part!r})".replace("'", '"'))
            names.add("Value")
        elif part[1]:
            parts.append(Coalesce(F(part[0]), Value("")))
            codes.append(f'Coalesce(F("{part[0]}"), Value(""))')
            functions.add("Coalesce")
            names.add("Value")
        else:
            parts.append(F(part[0]))
            codes.append(f'F("{part[0]}")')
    told = f"{first[0].replace('__', '.')} {between} {second[0].replace('__', '.')}"
    imports = {
        f"from django.db.models import {', '.join(sorted(names))}",
        f"from django.db.models.functions import {', '.join(sorted(functions))}",
    }
    return _candidate(
        target, f"Concat({', '.join(codes)})", told, expected=Concat(*parts), imports=imports, simple=2
    )


def same_values(one: Candidate, other: Candidate, keys: Sequence[Any], using: str) -> Any:
    """The key of a row for which the two give different values; None if there is none among these."""
    expected = [owed_by(each, keys, using) for each in (one, other)]
    return next((key for key in keys if expected[0].get(key) != expected[1].get(key)), None)
