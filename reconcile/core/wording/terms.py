"""Expressions, conditions, orders and querysets in words.

What is resolved, as the filter of a queryset is, names its columns by the tables of the query; what isn't names paths. A row
of a subquery has its columns bare; a column of the record around it reads `the record's depth`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from typing import Any

from django.db.models import (
    Aggregate,
    Case,
    Exists,
    F,
    Field,
    Model,
    OrderBy,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.lookups import Lookup

from reconcile.core.wording.constants import constant_in_words, field_in_words
from reconcile.core.wording.names import function_in_words, model_in_words
from reconcile.core.wording.paths import column_in_words, field_of_path, has_alias, lookup_of_path
from reconcile.db.django_compat import (
    LOOKUP_SEP,
    Col,
    CombinedExpression,
    ConcatPair,
    NegatedExpression,
    NothingNode,
    Query,
    Selection,
    Sliced,
    WhereNode,
    column_of_outer_query,
    constructor_arguments,
    extra_sql,
    is_aggregate_condition,
    output_field_of,
    selection_of,
    slice_of,
    table_it_reads_from,
    where_of,
)
from reconcile.db.expressions import path_of

__all__ = ["condition_in_words", "expression_in_words", "in_words", "order_in_words", "queryset_in_words"]


def in_words(
    values: Mapping[str, Any], model: type[Model] | None = None, *, over: type[Model] | None = None
) -> str:
    """`amount = total and status = 'C' (cancelled)`: columns of `model`, each with its value over records of `over`."""
    return " and ".join(
        _assignment(name, value, model, over or model, alone=len(values) == 1)
        for name, value in values.items()
    )


def _assignment(
    name: str, value: Any, model: type[Model] | None, over: type[Model] | None, *, alone: bool
) -> str:
    column = field_of_path(model, [name])
    text = Words(model=over).operand(value, column, derived=not alone)
    return f"{name.replace(LOOKUP_SEP, '.')} = {text}"


def expression_in_words(expression: Any, model: type[Model] | None = None, *, subject: str = "record") -> str:
    """An expression over rows of `model`: `Lower(email)`. A subquery calls the row around it by the name of `subject`."""
    return Words(model=model, subject=subject).term(expression)


def condition_in_words(condition: Any, model: type[Model] | None = None, *, subject: str = "record") -> str:
    """A condition over rows of `model`: `kind = 'created' and not (amount < 0)`."""
    return Words(model=model, subject=subject).term(condition)


def order_in_words(
    terms: Sequence[Any], model: type[Model] | None = None, *, nulls_last: bool = False
) -> str:
    """`created_at descending, pk`: an order as `order_by` takes it. nulls_last: NULL comes last unless something else is said."""
    return ", ".join(
        _ordered(each, Words(model=model, subject="row"), nulls_last=nulls_last) for each in terms
    )


def queryset_in_words(queryset: QuerySet[Any]) -> str:
    """The queryset's filter, empty if it has none."""
    return Words(model=queryset.model, queries=(queryset.query,), rooted=True).filter_of(queryset.query)


def _ordered(each: Any, words: Words, *, nulls_last: bool) -> str:
    if isinstance(each, str):
        descending = " descending" if each.startswith("-") else ""
        return f"{words.path(each.removeprefix('-'))}{descending}"
    if not isinstance(each, OrderBy):
        return words.term(each)
    text = f"{words.operand(each.expression)}{' descending' if each.descending else ''}"
    if each.nulls_first:
        return f"{text} (NULL first)"
    if bool(each.nulls_last) is nulls_last:
        return text
    return f"{text} ({'NULL last' if each.nulls_last else 'NULL where the database puts it'})"


_LOOKUPS = {
    "exact": "=",
    "iexact": "is, in any case,",
    "gt": ">",
    "gte": "≥",
    "lt": "<",
    "lte": "≤",
    "in": "in",
    "icontains": "contains in any case",
    "startswith": "starts with",
    "istartswith": "starts in any case with",
    "endswith": "ends with",
    "iendswith": "ends in any case with",
    "regex": "matches",
    "iregex": "matches in any case",
    "prefix_of": "is a prefix of",
}
_STRENGTHS = {"+": 1, "-": 1, "*": 2, "/": 2}
"""How strongly arithmetic binds; around everything else stand brackets."""
_CONDITIONS = (Q, WhereNode, Lookup, Exists, NegatedExpression)


@dataclass(frozen=True, kw_only=True)
class Words:
    """How terms are put into words at one place of a rule.

    model: what paths begin at. queries: the queries around, the innermost last; a subquery adds its own. rooted: the first of them
    selects the records themselves. subject: what a subquery calls the row that is around all of it.
    """

    model: type[Model] | None = None
    queries: tuple[Query, ...] = ()
    rooted: bool = False
    subject: str = "record"

    def term(self, value: Any) -> str:  # noqa: C901, PLR0911, PLR0912 - one for each kind of term
        """Any term, without brackets around it."""
        if hasattr(value, "in_words"):
            return str(value.in_words(self.model))
        if isinstance(value, F):
            return self._reference(value)
        if isinstance(value, Value):
            return constant_in_words(_stored(value))
        if isinstance(value, Col):
            return self._column(value)
        if isinstance(value, Q | WhereNode):
            return self._conditions(value)
        if isinstance(value, Lookup):
            return self._lookup(value)
        if isinstance(value, NegatedExpression):
            return f"not ({self.term(value.get_source_expressions()[0])})"
        if isinstance(value, Exists):
            return self._existence(value.query)
        if isinstance(value, CombinedExpression):
            return self._arithmetic(value)
        if isinstance(value, Query | QuerySet):
            return self._rows(value if isinstance(value, Query) else value.query)
        if isinstance(value, Subquery):
            rows = self._rows(value.query)
            return rows if type(value) is Subquery else f"{type(value).__name__}({rows})"
        if isinstance(value, NothingNode):
            return "nothing, since its queryset is none()"
        if isinstance(value, OrderBy):
            return _ordered(value, self, nulls_last=False)
        if hasattr(value, "get_source_expressions"):
            return self._function(value)
        if isinstance(value, Field):
            return field_in_words(value)
        if (extra := extra_sql(value)) is not None:
            return f"SQL {list(extra[0])!r} with {list(extra[1])!r}"
        return function_in_words(value) if callable(value) else constant_in_words(value)

    def operand(self, value: Any, column: Field[Any, Any] | None = None, *, derived: bool = True) -> str:
        """A term that stands beside a sign, in brackets where they are needed; a constant may be a choice of `column`."""
        if (
            isinstance(value, Q)
            and len(value) == 1
            and not value.negated
            and isinstance(value.children[0], Q)
        ):
            return self.operand(value.children[0], column, derived=derived)
        if isinstance(value, _CONDITIONS) or (derived and _goes_on(value)):
            return f"({self.term(value)})"
        if isinstance(value, Query | QuerySet | Subquery) and not hasattr(value, "in_words"):
            return f"({self.term(value)})"
        constant = _stored(value) if isinstance(value, Value) else value
        if hasattr(constant, "resolve_expression") or isinstance(constant, Col) or callable(constant):
            return self.term(constant)
        if isinstance(constant, list | tuple) and any(
            hasattr(each, "resolve_expression") for each in constant
        ):
            return f"[{', '.join(self.operand(each, column) for each in constant)}]"
        return self.term(constant) if hasattr(constant, "in_words") else constant_in_words(constant, column)

    def path(self, path: str) -> str:
        """A path that isn't resolved, with points."""
        return path.replace(LOOKUP_SEP, ".")

    def filter_of(self, query: Query) -> str:
        """The filter of a query, which is the last of `queries`; empty if it has none."""
        return self._conditions(where_of(query))

    # References.

    def _reference(self, reference: F) -> str:
        path = (
            self.path(path_of(reference))
            if isinstance(path_of(reference), str)
            else self.term(path_of(reference))
        )
        if isinstance(reference, Sliced):
            whole, start, stop = slice_of(reference)
            return f"{self._reference(whole)}[{start}:{'' if stop is None else stop}]"
        return (
            f"the {self.subject}'s {path}"
            if isinstance(reference, OuterRef) or column_of_outer_query(reference)
            else path
        )

    def _column(self, column: Col) -> str:
        for distance, query in enumerate(reversed(self.queries)):
            if has_alias(query, column.alias):
                place = len(self.queries) - 1 - distance
                inside = replace(self, queries=self.queries[: place + 1], model=table_it_reads_from(query)[1])
                path = column_in_words(query, column, inside.term)
                return f"{self._owner(distance)}{path}"
        return f"{column.target.model._meta.label}.{column.target.name}"

    def _owner(self, distance: int) -> str:
        """Whose column it is that is named so many queries further out."""
        if not distance:
            return ""
        if self.rooted and distance == len(self.queries) - 1:
            return f"the {self.subject}'s "
        model = table_it_reads_from(self.queries[-1 - distance])[1]
        name = model_in_words(model) if model else "row"
        return f"the enclosing {name}'s " if distance == 1 else f"the {name}'s {distance} subqueries around "

    # Conditions.

    def _conditions(self, node: Any) -> str:
        parts = [(child, text) for child in node.children if (text := self._child(child))]
        several = len(parts) > 1
        joined = f" {node.connector.lower()} ".join(
            f"({text})" if several and _is_compound(child) and child.connector != node.connector else text
            for child, text in parts
        )
        return f"not ({joined})" if node.negated and joined else joined

    def _child(self, child: Any) -> str:
        if isinstance(child, tuple):
            return self._pair(*child)
        return self.term(child)

    def _pair(self, path: str, value: Any) -> str:
        """A path with its lookup, and what a `Q` compares it with."""
        name, lookup = lookup_of_path(self.model, path)
        return f"{name} {self._comparison(lookup, value, field_of_path(self.model, name.split('.')))}"

    def _lookup(self, lookup: Lookup) -> str:
        if lookup.lookup_name is None:
            return f"{type(lookup).__name__}({self.operand(lookup.lhs)}, {self.operand(lookup.rhs)})"
        if _asks_a_condition(lookup):
            return self.term(lookup.lhs) if lookup.rhs else f"not ({self.term(lookup.lhs)})"
        column = lookup.lhs.target if isinstance(lookup.lhs, Col) else self._named_column(lookup.lhs)
        return f"{self.operand(lookup.lhs)} {self._comparison(lookup.lookup_name, lookup.rhs, column)}"

    def _named_column(self, value: Any) -> Field[Any, Any] | None:
        return field_of_path(self.model, path_of(value).split(LOOKUP_SEP)) if type(value) is F else None

    def _comparison(self, lookup: str, value: Any, column: Field[Any, Any] | None) -> str:
        if lookup == "isnull":
            return "is missing" if value else "is there"
        if lookup == "range" and isinstance(value, list | tuple) and len(value) == 2:  # noqa: PLR2004
            first, last = (self.operand(each, column) for each in value)
            return f"from {first} to {last}"
        return f"{_LOOKUPS.get(lookup, lookup)} {self.operand(value, column)}"

    # Functions.

    def _arithmetic(self, value: Any) -> str:
        strength = _STRENGTHS.get(value.connector, 0)
        left, right = self.operand(value.lhs), self.operand(value.rhs)
        if (
            isinstance(value.lhs, CombinedExpression)
            and not _STRENGTHS.get(value.lhs.connector, 0) >= strength > 0
        ):
            left = f"({left})"
        if (
            isinstance(value.rhs, CombinedExpression)
            and not _STRENGTHS.get(value.rhs.connector, 0) > strength > 0
        ):
            right = f"({right})"
        return f"{left} {value.connector.replace('%%', '%')} {right}"

    def _function(self, value: Any) -> str:
        if isinstance(value, When):
            condition, result = value.get_source_expressions()
            return f"when {self.term(condition)} then {self.operand(result)}"
        if isinstance(value, Case):
            *cases, default = value.get_source_expressions()
            return f"case({', '.join(map(self.term, cases))}, else {self.operand(default)})"
        where = getattr(value, "filter", None) if isinstance(value, Aggregate) else None
        given = [each for each in _arguments(value) if each is not where]
        terms = [*map(self.operand, given), *self._options(value, [*given, where])]
        return f"{_name_of(type(value))}({', '.join(terms)}{f' where {self._condition_of_aggregate(where)}' if where is not None else ''})"

    def _condition_of_aggregate(self, where: Any) -> str:
        # Since Django 6 the condition stands inside an expression of its own.
        return self.term(where.get_source_expressions()[0] if is_aggregate_condition(where) else where)

    def _options(self, value: Any, expressions: list[Any]) -> Iterator[str]:
        """What a function was made with beside its expressions: `distinct=True`, `output_field=IntegerField()`."""
        told = [_as_given(each) for each in expressions]
        told += [self.term(each).replace(".", LOOKUP_SEP) for each in expressions if isinstance(each, Col)]
        for name, given in _named_arguments(value):
            known = any(type(each) is type(given) and each == given for each in told)
            if not (_is_expression(given) or known or given is None):
                yield f"{name}={self.term(given)}" if name else self.term(given)

    # Subqueries.

    def _existence(self, query: Query) -> str:
        inside, select = self._within(query), selection_of(query)
        some = f"there are more than {select.low} of" if select.low else "there is some"
        if select.joined_by:
            return f"{some} row of {inside.parts(select)}"
        return f"{some} {inside.origin(query)}"

    def _rows(self, query: Query) -> str:
        """`the first price of item with order = the record's pk by pk descending`."""
        inside, select = self._within(query), selection_of(query)
        if select.joined_by:
            return f"{_reach(select)} {self.parts(select)}{inside.order(select)}"
        what = ", ".join(map(inside.operand, select.columns)) or "row"
        distinct = "distinct " if select.distinct else ""
        return f"{_reach(select)} {distinct}{what} of {inside.origin(query)}"

    def parts(self, select: Selection) -> str:
        """Subqueries that are joined by `union` and its like."""
        return f" {select.joined_by} ".join(f"({self._rows(each)})" for each in select.parts)

    def _within(self, query: Query) -> Words:
        return replace(self, queries=(*self.queries, query), model=table_it_reads_from(query)[1])

    def origin(self, query: Query) -> str:
        """Which rows a subquery reads: `item with price > 1, grouped by order, by pk`."""
        model, where, select = table_it_reads_from(query)[1], self.filter_of(query), selection_of(query)
        text = f"{model_in_words(model) if model else 'row'}{f' with {where}' if where else ''}"
        if select.groups:
            text += f", grouped by {', '.join(map(self.operand, select.groups))}"
        if select.distinct_on:
            text += f", distinct on {', '.join(map(self.path, select.distinct_on))}"
        if select.extra:
            text += f", extended by SQL {select.extra!r}"
        if select.tables:
            text += f", beside each row of {', '.join(select.tables)}"
        return f"{text}{self.order(select)}"

    def order(self, select: Selection) -> str:
        """The order of a subquery, each term in the words of its place; empty if it has none."""
        terms = [_ordered(each, self, nulls_last=False) for each in select.order]
        return f" by {', '.join(terms)}" if terms else ""


def _name_of(kind: type) -> str:
    """The name of a function; of one that isn't Django's where it is found, since two may have one name."""
    ours = kind.__module__.startswith(("django.", "reconcile."))
    return kind.__name__ if ours else f"{kind.__module__}.{kind.__qualname__}"


def _reach(select: Selection) -> str:
    """Which of its rows a subquery gives."""
    if select.low == 0 and select.high is None:
        return "each"
    if select.low == 0:
        return "the first" if select.high == 1 else f"the first {select.high}"
    return f"rows {select.low + 1} to {select.high or 'the last'} as"


def _goes_on(value: Any) -> bool:
    """Whether it has words of its own, in which a reader might go on too far; not the name of one thing."""
    return hasattr(value, "in_words") and not getattr(value, "is_constant", False)


def _asks_a_condition(lookup: Lookup) -> bool:
    """Whether it compares a condition with True or False, as filter() makes one of each condition that it is given."""
    conditional = getattr(lookup.lhs, "conditional", False) and not isinstance(lookup.lhs, Col | F)
    return lookup.lookup_name == "exact" and conditional and isinstance(lookup.rhs, bool)


def _is_compound(node: Any) -> bool:
    return isinstance(node, Q | WhereNode) and not node.negated and len(node.children) > 1


def _stored(value: Value) -> Any:
    """The constant as its column stores it, so that two ways to write it read alike."""
    field = output_field_of(value)
    constant = value.value
    if field is None or isinstance(constant, str | bool) or constant is None:
        return constant
    try:
        return field.get_prep_value(constant)
    except (TypeError, ValueError):
        return constant


def _arguments(value: Any) -> Iterator[Any]:
    """What a function is given; Django nests a Concat of several in pairs that nobody has written."""
    for each in value.get_source_expressions():
        if isinstance(each, ConcatPair):
            yield from _arguments(each)
        elif each is not None:
            yield each


def _is_expression(value: Any) -> bool:
    return hasattr(value, "resolve_expression") or isinstance(value, Q | QuerySet)


def _as_given(expression: Any) -> Any:
    """What somebody may have written for the expression: a path, or a plain constant."""
    if isinstance(expression, Value):
        return expression.value
    return path_of(expression) if isinstance(expression, F) else expression


def _named_arguments(value: Any) -> Iterator[tuple[str, Any]]:
    """What an expression was made with, by the names of the parameters; those of a list have none."""
    args, options = constructor_arguments(value) or ((), {})
    parameters = list(signature(type(value).__init__).parameters.values())[1:]
    for position, given in enumerate(args):
        parameter = parameters[position] if position < len(parameters) else None
        listed = parameter is None or parameter.kind is Parameter.VAR_POSITIONAL
        yield ("" if listed or parameter is None else parameter.name), given
    yield from sorted(options.items())
