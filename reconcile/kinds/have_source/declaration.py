"""`HaveSource`: the declaration, and what can be wrong with it. Its querysets are in `finders`.

EXTRA: a record is there whose owner isn't. STALE: whether its owner is there isn't known, since its content type has no model in
the project. The key of either is the record's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from types import NoneType
from typing import Any

from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db.models import CompositePrimaryKey, F, Field, Model, Q, QuerySet

from reconcile.core.declaration import (
    as_expression,
    expression_faults,
    field_named,
    field_names,
    field_or_key,
    known_field,
    resolution_fault,
)
from reconcile.core.drift import EXTRA, STALE, Drift, Guarantee
from reconcile.core.finder import Finder, OwnRangeFinder, Rows, Source
from reconcile.core.options import Option, as_given, is_mapping, is_one_of, option_faults
from reconcile.core.scopes import Scope
from reconcile.core.wording.names import row_in_words
from reconcile.core.wording.terms import condition_in_words, in_words
from reconcile.db.columns import is_text
from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import is_swapped, private_fields, referred_field
from reconcile.db.expressions import Column, columns_of, columns_read, joins_to_many
from reconcile.db.text_keys import has_key_of
from reconcile.errors import Fault, Refusal, nearest
from reconcile.kinds.base import Effect
from reconcile.kinds.given_model import take_queryset
from reconcile.kinds.have_source.finders import Generic, Owner, comparable, generic_key, kind_of
from reconcile.kinds.uniqueness import ConstraintAdvice
from reconcile.remedies import Remedy, Report

__all__ = ["HaveSource", "source_faults"]

_OPTIONS = (
    Option("link", is_mapping, 'Give a dictionary: link={"number": F("order_number")}.'),
    Option("to", is_one_of(str), "Give the name of the owner's column."),
    Option("where", is_one_of(Q), "Give a Q over the owner's columns."),
    Option(
        "unknown",
        is_one_of(Remedy, NoneType),
        "Give a remedy, such as Report(), or None to count such records as EXTRA.",
    ),
)


def source_faults(must: HaveSource, model: type[Model]) -> Iterator[Fault]:
    """Everything that is wrong with the declaration, for records of `model`. Costs no statement."""
    wrong = [*_type_faults(must)]
    wrong = wrong or [*(_link_faults(must) if must.link else _column_faults(must, model))]
    wrong = wrong or [*_unknown_faults(must, model)]
    yield from wrong
    if wrong or generic_key(model, must.column) is not None:
        return
    owner, link = _reference(must, model)
    unusable = [*_owner_faults(owner, must, link)]
    yield from unusable
    if not unusable:
        yield from _comparison_faults(owner, model, link)


def _type_faults(must: HaveSource) -> Iterator[Fault]:
    hint = 'Give a column, HaveSource("target"), or model= and link={…}.'
    if not isinstance(must.column, str):
        yield Fault("reconcile.E012", f"HaveSource: {must.column!r} is no name of a column.", hint)
    elif bool(must.column) == bool(must.link):
        what = "both a column and link=" if must.link else "neither a column nor link="
        yield Fault("reconcile.E012", f"HaveSource has {what}.", hint)
    if must.model is not None and not _has_table(must.model):
        yield Fault(
            "reconcile.E012",
            f"HaveSource: model= is {as_given(must.model)}, which is no model with a table.",
            "Give the owner's model class.",
        )
    yield from option_faults(must, _OPTIONS, "HaveSource")


def _link_faults(must: HaveSource) -> Iterator[Fault]:
    if must.model is None:
        yield Fault("reconcile.E012", "HaveSource: link= needs model=.", "Give the owner's model class.")
    if must.to:
        hint = "Name the owner's column in link=, or give the record's column in place of link=."
        yield Fault("reconcile.E012", "HaveSource has both link= and to=.", hint)


def _column_faults(must: HaveSource, model: type[Model]) -> Iterator[Fault]:
    if generic_key(model, must.column) is not None:
        yield from _generic_faults(must, model)
        return
    named = field_named(model, must.column)
    label = f"{model._meta.label}.{must.column}"
    if named is None:
        yield _unknown(must, model)
    elif named.many_to_many:
        hint = f"Write a rule over {label}.through instead."
        yield Fault("reconcile.E013", f"HaveSource: {label} is many-to-many.", hint)
    elif named.remote_field is None and must.model is None:
        hint = f'Say what it refers to: HaveSource("{must.column}", model=…, to="…").'
        yield Fault("reconcile.E012", f"HaveSource: {label} is no foreign key.", hint)
    elif named.remote_field is not None and (must.model is not None or must.to):
        hint = (
            f"A foreign key says that by itself: HaveSource({must.column!r}). For another owner give link=."
        )
        yield Fault(
            "reconcile.E012", f"HaveSource: {label} is a foreign key, and model= or to= is given.", hint
        )


def _generic_faults(must: HaveSource, model: type[Model]) -> Iterator[Fault]:
    key = generic_key(model, must.column)
    if must.model is not None or must.to or must.where:
        hint = "It refers to rows of many models; for one of them write link= with model= and where=."
        message = (
            f"HaveSource: {must.column!r} is a generic foreign key, which takes no model=, to= or where=."
        )
        yield Fault("reconcile.E012", message, hint)
    holder = field_named(model, key.fk_field)
    if holder is None or not (is_text(holder) or has_key_of(holder)):
        hint = "Keep the key as text, number or UUID."
        yield Fault(
            "reconcile.E015", f"HaveSource: {key.fk_field!r} can't hold the keys of many models.", hint
        )


def _unknown_faults(must: HaveSource, model: type[Model]) -> Iterator[Fault]:
    if generic_key(model, must.column) is None and must.unknown != Report():
        message = f"HaveSource: unknown= is {must.unknown!r}, and {must.column or 'link='!r} is no generic foreign key."
        yield Fault("reconcile.E012", message, "Leave it out: a content type alone can have no model.")
    elif must.unknown is not None and must.unknown.deletes:
        message = f"HaveSource: unknown= is {must.unknown!r}, which deletes."
        hint = "Give unknown=None, and remedies={EXTRA: Delete()}, which then deletes these records, too."
        yield Fault("reconcile.E012", message, hint)


def _unknown(must: HaveSource, model: type[Model]) -> Fault:
    label = model._meta.label
    try:
        model._meta.get_field(must.column)
    except FieldDoesNotExist:
        known = [*field_names(model), *(each.name for each in private_fields(model))]
        hint = nearest(must.column, known).strip() or f"Its columns: {', '.join(known)}."
        return Fault("reconcile.E013", f"HaveSource: {label} has no column {must.column!r}.", hint)
    hint = "Write the rule over the model that has the column."
    return Fault("reconcile.E013", f"HaveSource: {label}.{must.column} leads to many rows.", hint)


def _reference(must: HaveSource, model: type[Model]) -> tuple[type[Model], dict[str, Any]]:
    named = field_named(model, must.column) if must.column else None
    if named is not None and named.remote_field is not None:
        return named.related_model, {referred_field(named).name: F(named.attname)}  # type: ignore[return-value]
    if must.model is None:
        raise TypeError(f"{must!r} names no model.")
    return must.model, dict(must.link) or {must.to or "pk": F(must.column)}


def _owner_faults(owner: type[Model], must: HaveSource, link: Mapping[str, Any]) -> Iterator[Fault]:
    label = owner._meta.label
    for name in link:
        column = field_or_key(owner, name)
        if isinstance(column, CompositePrimaryKey):
            hint = "Name its columns in link=."
            yield Fault("reconcile.E015", f"HaveSource: {label} has a composite primary key.", hint)
        elif column is None or column.many_to_many:
            hint = (
                nearest(name, field_names(owner)).strip() or f"Its columns: {', '.join(field_names(owner))}."
            )
            yield Fault("reconcile.E013", f"HaveSource: {label} has no column {name!r}.", hint)
    try:
        if joins_to_many(owner._base_manager.filter(must.where).query):
            hint = "Give a condition on the owner's own columns, or with Exists(…)."
            yield Fault("reconcile.E013", "HaveSource(where=…): the path leads to many rows.", hint)
    except FieldError as error:
        yield resolution_fault(error, "HaveSource(where=…)")


def _comparison_faults(owner: type[Model], model: type[Model], link: Mapping[str, Any]) -> Iterator[Fault]:
    for name, value in link.items():
        column = field_or_key(owner, name)
        if column is None:
            continue
        where = f"HaveSource(link={{{name!r}: …}})"
        if callable(value) and not hasattr(value, "resolve_expression"):
            yield Fault(
                "reconcile.E012", f"{where}: it is given a function.", "Give an expression over the record."
            )
            continue
        unresolved = [*expression_faults(model, value, column, where)]
        yield from unresolved
        kind = None if unresolved else kind_of(model, as_expression(value, column))
        if kind is not None and not comparable(column, kind):
            message = f"{where}: {type(kind).__name__} and {type(column).__name__} can't be compared."
            yield Fault("reconcile.E015", message, "Cast the expression to the column's type: Cast(…, …).")


def _has_table(model: Any) -> bool:
    meta = getattr(model, "_meta", None) if isinstance(model, type) and issubclass(model, Model) else None
    return meta is not None and not meta.abstract and not is_swapped(model)


@dataclass(frozen=True)
class HaveSource(Effect):
    """Every record's owner must still be there: `HaveSource("target")`.

    column: a generic foreign key, a foreign key without a constraint in the database, or with `model` any column.
    model: the owner's model, where the column doesn't say.
    to: the owner's column that `column` holds; its primary key unless given.
    link: in place of `column`: column of the owner = expression over the record.
    where: condition on the owners that count.
    unknown: the remedy for STALE: records whose content type has no model in the project, because an app isn't installed,
        or was removed. None: they are EXTRA, as if their owner were known to be gone.

    A record whose column, or any part of whose link, is NULL refers to nothing and isn't judged.
    """

    column: str = ""
    _: KW_ONLY
    model: type[Model] | None = None
    to: str = ""
    link: Mapping[str, Any] = field(default_factory=dict)
    where: Q = field(default_factory=Q)
    unknown: Remedy | None = field(default_factory=Report)

    def __post_init__(self) -> None:
        take_queryset(self)

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """Options that don't go together, unknown columns and paths, types that can't be compared."""
        yield from source_faults(self, model)

    def sentence(self, model: type[Model]) -> str:
        """`have the target that it refers to`, or `have the Page that it refers to, with code = page_code`."""
        if self.column and self.model is None and not self.where:
            return f"have the {self.column} that it refers to"
        owner = self._owner(model)
        where = condition_in_words(self.where, owner.model, subject="row") if self.where else ""
        counting = f", counting those with {where}" if where else ""
        if self.column and self.model is None:
            return f"have the {self.column} that it refers to{counting}"
        link = in_words({column.name: value for column, value in owner.link.items()}, owner.model, over=model)
        return f"have the {row_in_words(owner.model)} that it refers to, with {link}{counting}"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:  # noqa: ARG002
        """NONE, since there is no owner whose row could be locked; LOCK where a chunk keeps every other writer out."""
        return Guarantee.LOCK if dialect_of(using).blocks_inserts(constrained=False) else Guarantee.NONE

    def constraint_advice(self, every: QuerySet[Any], using: str) -> ConstraintAdvice:  # noqa: ARG002
        """None: an orphan has no owner."""
        return ConstraintAdvice(
            refusal=Refusal(
                "A record whose owner is gone has no row that could be locked. Only a foreign key with a constraint in the "
                "database lets no such record come to be."
            )
        )

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """All columns of the records: a remedy that deletes takes each of them away."""
        return columns_of(model)

    def decides(self, model: type[Model]) -> frozenset[Column]:
        """Those that refer to the owner."""
        key = generic_key(model, self.column)
        names = (
            [key.ct_field, key.fk_field]
            if key is not None
            else [self.column]
            if self.column
            else self.link.values()
        )
        return columns_read(model._base_manager.order_by(*names).values("pk"))

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """The records whose owner is gone; of a generic foreign key also those whose content type has no model."""
        key = generic_key(source.model, self.column)
        if key is not None:
            return Generic(source, key, unknown_is_extra=self.unknown is None).finders()
        owner = self._owner(source.model)

        def find(scope: Scope) -> Rows:
            return owner.orphans(source, source.records(scope), scope)

        return (OwnRangeFinder(drift=EXTRA, model=source.model, using=source.using, query=find),)

    def remedies(self) -> Mapping[Drift, Remedy]:
        """What is given for content types without a model. Everything else has the usual remedy, which reports."""
        return {} if self.unknown is None else {STALE: self.unknown}

    def _owner(self, model: type[Model]) -> Owner:
        named = field_named(model, self.column)
        if self.column and self.model is None and named is not None:
            owner, link = _target_of(named)
            return Owner(model=owner, link=link, where=self.where)
        if self.model is None:
            raise TypeError(f"{self!r} names no model.")
        given = self.link or {self.to or "pk": F(self.column)}
        columns = {known_field(self.model, name): value for name, value in given.items()}
        return Owner(model=self.model, link=columns, where=self.where)


def _target_of(key: Field[Any, Any]) -> tuple[type[Model], dict[Field[Any, Any], Any]]:
    """What a foreign key refers to."""
    owner: type[Model] = key.related_model  # type: ignore[assignment]
    return owner, {referred_field(key): F(key.attname)}
