"""Which of several rows is the first: a list of columns as `order_by` takes it, made total by the key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import F, Model
from django.db.models.expressions import OrderBy

from reconcile.declaring import resolution_fault
from reconcile.errors import Fault
from reconcile.finders import Rows
from reconcile.sql.expressions import joins_to_many, path_of
from reconcile.sql.wording import expression_in_words

__all__ = ["order_faults", "order_in_words", "ordered"]

_ORDER = "_order_{}"
_HINT = 'Give columns as order_by() takes them: by=["-created_at", "-pk"].'


def ordered(rows: Rows, by: Sequence[Any]) -> tuple[Rows, list[OrderBy]]:
    """`rows` with what they are ordered by under aliases, where its columns are seen, and the order by these."""
    terms = _total(rows.model, by)
    names = [_ORDER.format(number) for number in range(len(terms))]
    named: Rows = rows.alias(**{name: term.expression for name, term in zip(names, terms, strict=True)})
    return named, [_like(term, name) for term, name in zip(terms, names, strict=True)]


def order_faults(model: type[Model], by: Any, where: str) -> Iterator[Fault]:
    """A fault for each reason why rows of `model` have no first one by `by`. Costs no statement."""
    if isinstance(by, str) or not isinstance(by, Sequence) or not by:
        yield Fault("reconcile.E012", f"{where}: by= is {by!r}.", _HINT)
        return
    for each in by:
        if (not isinstance(each, str) and not hasattr(each, "resolve_expression")) or each in {"", "-", "?"}:
            yield Fault("reconcile.E012", f"{where}: by= has {each!r}.", _HINT)
            return
    try:
        rows, _ = ordered(model._base_manager.all(), by)
    except FieldError as error:
        yield resolution_fault(error, f"{where}: by=")
        return
    if joins_to_many(rows.query):
        yield Fault("reconcile.E013", f"{where}: by= has a path to many rows.", "Give paths to one row.")


def order_in_words(by: Sequence[Any]) -> str:
    """`created_at descending, pk descending`."""
    return ", ".join(
        f"{expression_in_words(term.expression)}{' descending' if term.descending else ''}"
        for term in map(_term, by)
    )


def _total(model: type[Model], by: Sequence[Any]) -> list[OrderBy]:
    """`by` as expressions. The key comes last unless it is named, in the direction of the last one that is."""
    terms = [_term(each) for each in by]
    key = model._meta.pk
    if not any(
        isinstance(each.expression, F) and path_of(each.expression) in {"pk", key.name} for each in terms
    ):
        terms.append(OrderBy(F("pk"), descending=terms[-1].descending))
    return terms


def _term(each: Any) -> OrderBy:
    if isinstance(each, str):
        return OrderBy(F(each.removeprefix("-")), descending=each.startswith("-"))
    return each if isinstance(each, OrderBy) else OrderBy(each)


def _like(term: OrderBy, name: str) -> OrderBy:
    """The same direction and place of NULLs, for what stands under `name`."""
    like = term.copy()
    like.set_source_expressions([F(name)])
    return like
