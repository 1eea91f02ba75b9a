"""What can be wrong with a `HaveSource`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db.models import CompositePrimaryKey, F, Field, Model, Q

from reconcile.declaring import as_expression, expression_faults, field_named, field_names, resolution_fault
from reconcile.effects._generic import generic_key
from reconcile.effects._owner import comparable, kind_of
from reconcile.errors import Fault, nearest
from reconcile.sql.expressions import joins_to_many
from reconcile.sql.lookups import is_text
from reconcile.sql.texts import has_key_of

__all__ = ["source_faults"]


class _Spec(Protocol):
    """What a `HaveSource` declares."""

    @property
    def column(self) -> str: ...
    @property
    def model(self) -> type[Model] | None: ...
    @property
    def to(self) -> str: ...
    @property
    def link(self) -> Mapping[str, Any]: ...
    @property
    def where(self) -> Q: ...


def source_faults(must: _Spec, model: type[Model]) -> Iterator[Fault]:
    """Everything that is wrong with the declaration, for records of `model`. Costs no statement."""
    wrong = [*_type_faults(must)]
    wrong = wrong or [*(_link_faults(must) if must.link else _column_faults(must, model))]
    yield from wrong
    if wrong or generic_key(model, must.column) is not None:
        return
    owner, link = _reference(must, model)
    unusable = [*_owner_faults(owner, must, link)]
    yield from unusable
    if not unusable:
        yield from _comparison_faults(owner, model, link)


def _type_faults(must: _Spec) -> Iterator[Fault]:
    hint = 'Give a column, HaveSource("target"), or model= and link={…}.'
    if not isinstance(must.column, str):
        yield Fault("reconcile.E012", f"HaveSource: {must.column!r} is no name of a column.", hint)
    elif not isinstance(must.link, Mapping):
        shape = 'Give a dictionary: link={"number": F("order_number")}.'
        yield Fault("reconcile.E012", f"HaveSource: link= is {must.link!r}.", shape)
    elif bool(must.column) == bool(must.link):
        what = "both a column and link=" if must.link else "neither a column nor link="
        yield Fault("reconcile.E012", f"HaveSource has {what}.", hint)
    if must.model is not None and not _has_table(must.model):
        yield Fault(
            "reconcile.E012",
            f"HaveSource: model= is {must.model!r}, which is no model with a table.",
            "Give the owner's model class.",
        )
    if not isinstance(must.to, str):
        yield Fault(
            "reconcile.E012", f"HaveSource: to= is {must.to!r}.", "Give the name of the owner's column."
        )
    if not isinstance(must.where, Q):
        yield Fault(
            "reconcile.E012", f"HaveSource: where= is {must.where!r}.", "Give a Q over the owner's columns."
        )


def _link_faults(must: _Spec) -> Iterator[Fault]:
    if must.model is None:
        yield Fault("reconcile.E012", "HaveSource: link= needs model=.", "Give the owner's model class.")
    if must.to:
        hint = "Name the owner's column in link=, or give the record's column in place of link=."
        yield Fault("reconcile.E012", "HaveSource has both link= and to=.", hint)


def _column_faults(must: _Spec, model: type[Model]) -> Iterator[Fault]:
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


def _generic_faults(must: _Spec, model: type[Model]) -> Iterator[Fault]:
    key = generic_key(model, must.column)
    if must.model is not None or must.to or must.where:
        hint = "It refers to rows of many models; for one of them write link= with model= and where=."
        said = f"HaveSource: {must.column!r} is a generic foreign key, which takes no model=, to= or where=."
        yield Fault("reconcile.E012", said, hint)
    holder = field_named(model, key.fk_field)
    if holder is None or not (is_text(holder) or has_key_of(holder)):
        hint = "Keep the key as text, number or UUID."
        yield Fault(
            "reconcile.E015", f"HaveSource: {key.fk_field!r} can't hold the keys of many models.", hint
        )


def _unknown(must: _Spec, model: type[Model]) -> Fault:
    label = model._meta.label
    try:
        model._meta.get_field(must.column)
    except FieldDoesNotExist:
        known = [*field_names(model), *(each.name for each in model._meta.private_fields)]
        hint = nearest(must.column, known).strip() or f"Its columns: {', '.join(known)}."
        return Fault("reconcile.E013", f"HaveSource: {label} has no column {must.column!r}.", hint)
    hint = "Write the rule over the model that has the column."
    return Fault("reconcile.E013", f"HaveSource: {label}.{must.column} leads to many rows.", hint)


def _reference(must: _Spec, model: type[Model]) -> tuple[type[Model], dict[str, Any]]:
    named = field_named(model, must.column) if must.column else None
    if named is not None and named.remote_field is not None:
        return named.related_model, {named.target_field.name: F(named.attname)}  # type: ignore[attr-defined, return-value]
    if must.model is None:
        raise TypeError(f"{must!r} names no model.")
    return must.model, dict(must.link) or {must.to or "pk": F(must.column)}


def _owner_faults(owner: type[Model], must: _Spec, link: Mapping[str, Any]) -> Iterator[Fault]:
    label = owner._meta.label
    for name in link:
        column = _column(owner, name)
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
        column = _column(owner, name)
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
            said = f"{where}: {type(kind).__name__} and {type(column).__name__} can't be compared."
            yield Fault("reconcile.E015", said, "Cast the expression to the column's type: Cast(…, …).")


def _has_table(model: Any) -> bool:
    meta = getattr(model, "_meta", None) if isinstance(model, type) and issubclass(model, Model) else None
    return meta is not None and not meta.abstract and not meta.swapped


def _column(owner: type[Model], name: str) -> Field[Any, Any] | None:
    return owner._meta.pk if name == "pk" else field_named(owner, name)
