"""`BeUnique`: the declaration, what can be wrong with it, and its finder.

The querysets over groups of equal records are in `groups`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import (
    BooleanField,
    DateField,
    DecimalField,
    DurationField,
    F,
    Field,
    FloatField,
    IntegerField,
    Model,
    OrderBy,
    QuerySet,
    TimeField,
)
from django.utils import timezone

from reconcile.core.declaration import (
    as_expression,
    column_faults,
    expression_faults,
    field_named,
    fields_named,
    misplaced_faults,
    resolution_fault,
)
from reconcile.core.drift import EXTRA, STALE, Drift, Guarantee
from reconcile.core.finder import Finder, GroupFinder, Rows, Source
from reconcile.core.fixes import Correction, Fix, Merging
from reconcile.core.options import Option, is_mapping, is_one_of, option_faults, or_none
from reconcile.core.row_locks import Lock, Survivors
from reconcile.core.scopes import Keys, Scope
from reconcile.core.wording.terms import expression_in_words, in_words, order_in_words
from reconcile.db.columns import concrete_model, is_text, stored_field
from reconcile.db.comparisons import AsStored, overflows
from reconcile.db.django_compat import annotations_of
from reconcile.db.expressions import (
    Column,
    aggregates_in,
    columns_read,
    joins,
    joins_to_many,
    path_of,
    prepare,
    reads_itself,
)
from reconcile.db.statements import KEY, WANTED
from reconcile.errors import Fault, Refusal, nearest
from reconcile.kinds.base import Effect
from reconcile.kinds.be_unique.groups import MERGED, OF_BOOLEANS, Groups
from reconcile.kinds.have_row.link import link_terms
from reconcile.kinds.uniqueness import ConstraintAdvice, advise_constraint, filter_of, is_covered
from reconcile.kinds.values.storable import writable_rows
from reconcile.remedies import Merge, Remedy, references_to

__all__ = ["BeUnique", "merge_faults", "order_faults", "others_faults", "unique_faults"]

_SUMMED = (IntegerField, DecimalField, FloatField, DurationField)
_ORDERED = (*_SUMMED, DateField, TimeField)
_OPTIONS = (
    Option(
        "keep",
        is_one_of(list, tuple),
        'Give a list, such as ["-updated_at"]: the first record in that order stays.',
    ),
    Option(
        "others",
        or_none(lambda others: is_mapping(others) and bool(others)),
        'Give the columns that make the others no duplicates: others={"is_default": False}.',
    ),
    Option(
        "merge",
        or_none(is_mapping),
        'Give a dictionary such as {"visits": "sum"}; an empty one only moves what refers to the others.',
    ),
    Option("nulls_distinct", is_one_of(bool), "Give True or False."),
)


def unique_faults(model: type[Model], columns: tuple[Any, ...], expressions: list[Any]) -> Iterator[Fault]:
    """Columns that aren't there, that can't be told apart, or of which a record has several values."""
    if not columns:
        yield Fault("reconcile.E012", "BeUnique() names no column.", 'Name at least one: BeUnique("email").')
    for column, expression in zip(columns, expressions, strict=True):
        if not hasattr(expression, "resolve_expression"):
            hint = 'Give names of columns, or expressions such as Lower("email").'
            yield Fault("reconcile.E012", f"BeUnique: {column!r} is no column.", hint)
            continue
        found = list(_path_faults(model, expression, "BeUnique"))
        yield from found
        if not found and _kind_of(model, expression) == "JSONField":
            hint = "JSON is compared differently by each database. Keep what matters in a column of its own."
            yield Fault("reconcile.E015", f"BeUnique: {column!r} is a JSON column.", hint)


def order_faults(model: type[Model], keep: Any, order: Callable[[], list[OrderBy]]) -> Iterator[Fault]:
    """A keep= that is no order of the records."""
    wrong = [each for each in keep if not isinstance(each, str) and not hasattr(each, "resolve_expression")]
    for each in [*wrong, *(each for each in keep if each in ("", "-", "?"))]:
        hint = (
            'Give names of columns, with a minus to sort downwards, or expressions such as F("rank").asc().'
        )
        yield Fault("reconcile.E012", f"BeUnique: keep= has {each!r}.", hint)
        return
    for each in order():
        yield from _path_faults(model, each.expression, "BeUnique(keep=…)")


def others_faults(model: type[Model], others: Any) -> Iterator[Fault]:
    """Values that the duplicates can't be given."""
    yield from column_faults(model, "BeUnique(others=…)", iter(others))
    for name, value in others.items():
        field, where = field_named(model, name), f"BeUnique(others={{{name!r}: …}})"
        if field is None:
            continue
        if field.primary_key:
            yield Fault("reconcile.E012", f"{where}: it is the primary key.", "A key is never repaired.")
        elif callable(value) and not hasattr(value, "resolve_expression"):
            hint = "Give a constant, or an expression over the record."
            yield Fault("reconcile.E012", f"{where}: a function can't be called in SQL.", hint)
        else:
            yield from expression_faults(model, value, field, where)


def merge_faults(model: type[Model], merge: Any, columns: list[Any]) -> Iterator[Fault]:
    """Columns that can't be merged, or not in this way; `columns` say which records are alike, and which stays."""
    yield from column_faults(model, "BeUnique(merge=…)", iter(merge))
    for name, how in merge.items():
        field, where = field_named(model, name), f"BeUnique(merge={{{name!r}: {how!r}}})"
        if not isinstance(how, str) or how not in MERGED:
            hint = nearest(str(how), MERGED).strip() or f"Give one of {', '.join(map(repr, MERGED))}."
            yield Fault("reconcile.E012", f"{where}: there is no such way.", hint)
        elif field is not None:
            yield from _merged_column_faults(model, field, how, where)
    for column in columns:
        if joins(_with(model, column).query):
            hint = "A merge locks the records alone. Name columns of the records themselves."
            message = "BeUnique: merge= with a column or an order of another table is not served."
            yield Fault("reconcile.E015", message, hint)


def _merged_column_faults(
    model: type[Model], field: Field[Any, Any], how: str, where: str
) -> Iterator[Fault]:
    kind = stored_field(field)
    if field.primary_key or field in {each.target for each in references_to(model)}:
        hint = "What refers to the survivor has to find it afterwards, too. Leave it out."
        yield Fault("reconcile.E015", f"{where}: other rows refer to this column.", hint)
    elif _refers_to_itself(model, field):
        hint = "It might come to name the record itself, or one that goes. Leave it out."
        yield Fault("reconcile.E015", f"{where}: the column refers to the records themselves.", hint)
    elif kind.get_internal_type() == "JSONField":
        hint = "JSON is compared differently by each database. Leave it out, or use Report()."
        yield Fault("reconcile.E015", f"{where}: it is a JSON column.", hint)
    elif how in OF_BOOLEANS and not isinstance(kind, BooleanField):
        yield Fault(
            "reconcile.E012", f"{where}: the column is no boolean.", "Give 'min', 'max' or 'coalesce'."
        )
    elif how in {"sum", "min", "max"} and isinstance(kind, BooleanField):
        hint = "Give 'any' or 'all'; 'coalesce' would take the first record's."
        yield Fault("reconcile.E012", f"{where}: the column is a boolean.", hint)
    elif how == "sum" and (field.remote_field is not None or not isinstance(kind, _SUMMED)):
        yield Fault(
            "reconcile.E012", f"{where}: the column is no number.", "Give 'min', 'max' or 'coalesce'."
        )
    elif how in {"min", "max"} and not (isinstance(kind, _ORDERED) or is_text(kind)):
        yield Fault("reconcile.E012", f"{where}: its values have no order.", "Give 'coalesce'.")


def _path_faults(model: type[Model], expression: Any, where: str) -> Iterator[Fault]:
    if any(aggregates_in(expression)):
        hint = "Keep it in a column of the record with a HaveValues rule, and name that column."
        yield Fault("reconcile.E015", f"{where}: an aggregate is not served here.", hint)
        return
    misplaced = list(misplaced_faults(expression, where))
    yield from misplaced
    if misplaced:
        return
    try:
        query = _with(model, expression).query
        _ = annotations_of(query)["_each"].output_field
    except FieldError as error:
        yield resolution_fault(error, where)
        return
    if joins_to_many(query):
        yield Fault("reconcile.E013", f"{where}: the path leads to many rows.", "Give a path to one row.")


def _refers_to_itself(model: type[Model], field: Field[Any, Any]) -> bool:
    other: Any = field.related_model
    return other is not None and concrete_model(other) is concrete_model(model)


def _kind_of(model: type[Model], expression: Any) -> str:
    output = annotations_of(_with(model, expression).query)["_each"].output_field
    return str(stored_field(output).get_internal_type())


def _with(model: type[Model], expression: Any) -> QuerySet[Any, Any]:
    return model._base_manager.annotate(_each=expression)


@dataclass(frozen=True, init=False)
class BeUnique(Effect):
    """No two of the records may be alike in `columns`: `BeUnique("customer", keep=["-updated_at"])`.

    columns: names, or expressions over the record such as Lower("email"). Texts are told apart to the character.
    keep: the first record of a group in this order stays; NULL comes last, the primary key decides at the end.
    others: column = value or expression over the record, which the others of a group are to have. The others are
        STALE then, and else EXTRA.
    merge: column = "sum", "min", "max", "any", "all" or "coalesce": what the record that stays takes over from its group.
    nulls_distinct: records with NULL in one of the columns are no duplicates of each other.

    A group is made of the records of `every` alone, and of those alone that are settled: a young record neither
    goes nor makes another go. A check costs one statement for the whole table, and one more for samples.
    """

    columns: tuple[Any, ...] = field(init=False)
    keep: Sequence[Any] = ("pk",)
    others: Mapping[str, Any] | None = None
    merge: Mapping[str, str] | None = None
    nulls_distinct: bool = True

    def __init__(
        self,
        *columns: Any,
        keep: Sequence[Any] = ("pk",),
        others: Mapping[str, Any] | None = None,
        merge: Mapping[str, str] | None = None,
        nulls_distinct: bool = True,
    ) -> None:
        given = {
            "columns": columns,
            "keep": keep,
            "others": others,
            "merge": merge,
            "nulls_distinct": nulls_distinct,
        }
        for name, value in given.items():
            object.__setattr__(self, name, value)

    def faults(self, model: type[Model]) -> Iterator[Fault]:
        """Columns and paths that lead nowhere, and values or ways of merging that the columns can't take."""
        wrong = [*option_faults(self, _OPTIONS, "BeUnique")]
        yield from wrong
        if not wrong:
            yield from self._column_faults(model)

    def _column_faults(self, model: type[Model]) -> Iterator[Fault]:
        unusable = [
            *unique_faults(model, self.columns, self._expressions),
            *order_faults(model, self.keep, self._order),
        ]
        yield from unusable
        if self.others is not None and self.merge is not None:
            hint = "Either the others stay with other values, or they are merged and go."
            yield Fault("reconcile.E012", "BeUnique: others= and merge= can't go together.", hint)
        if self.others is not None:
            yield from others_faults(model, self.others)
        if self.merge is not None:
            deciding = [] if unusable else [*self._expressions, *(each.expression for each in self._order())]
            yield from merge_faults(model, self.merge, deciding)

    def faults_over(self, every: QuerySet[Any]) -> Iterator[Fault]:
        """An others= after which the duplicates would still be duplicates."""
        written = self.writes(every.model)
        if self.others is not None and not written & self._grouping_columns(every):
            names = ", ".join(map(repr, self.others))
            hint = "Set a column that every= filters by, or one of the unique columns."
            yield Fault(
                "reconcile.E012", f"BeUnique(others=…): {names} leaves the duplicates what they are.", hint
            )

    def sentence(self, model: type[Model]) -> str:
        """`be unique by customer: the first by updated_at descending, pk stays, the others get is_default = False`."""
        columns = " and ".join(expression_in_words(each, model) for each in self._expressions)
        order = order_in_words(self._order(), model, nulls_last=True)
        if self.others is not None:
            fate = f", the others get {in_words(self.others, model)}"
        elif self.merge is not None:
            taken = ", ".join(f"{how} of {name}" for name, how in self.merge.items())
            fate = f", the others are merged into it{f' ({taken})' if taken else ''}"
        else:
            fate = ""
        nulls = "" if self.nulls_distinct else ", NULL like any value"
        return f"be unique by {columns}{nulls}: the first by {order} stays{fate}"

    def guarantee(self, model: type[Model], using: str) -> Guarantee:
        """That of a rule over all records of the model."""
        return self.guarantee_over(model._base_manager.all(), using)

    def guarantee_over(self, every: QuerySet[Any], using: str) -> Guarantee:
        """CONSTRAINT where a unique constraint covers the columns, since then nothing is ever found.

        For `others` CONSTRAINT as well, where all that decides stands in the records' own rows: the duplicate and the record
        that stays are both locked before it is asked again which is which, so no group can lose all its records.
        LOCK where another row decides, too, of whichever table: that isn't locked. A delete or a merge is NONE: no lock reaches
        a handler that has read the row and refers to it, or writes it, later.
        """
        if is_covered(every, self._expressions, nulls_distinct=self.nulls_distinct, using=using):
            return Guarantee.CONSTRAINT
        if self.others is None:
            return Guarantee.NONE
        return Guarantee.CONSTRAINT if reads_itself(self._with_deciding_columns(every)) else Guarantee.LOCK

    def constraint_advice(self, every: QuerySet[Any], using: str) -> ConstraintAdvice:
        """The constraint under which there are no duplicates."""
        condition = filter_of(every)
        if condition is None:
            return ConstraintAdvice(
                refusal=Refusal("The filter of every= can't be told as the condition of a unique constraint.")
            )
        return advise_constraint(
            every.model,
            self._expressions,
            condition=condition,
            nulls_distinct=self.nulls_distinct,
            using=using,
        )

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """The columns of `others`. Without `others`: all columns of the record, and those that refer to it."""
        concrete = concrete_model(model)
        if isinstance(self.others, Mapping):
            return frozenset((concrete, each.attname) for each in fields_named(model, self.others))
        columns = {(concrete, each.attname) for each in concrete._meta.concrete_fields}
        if self.merge is not None:
            columns |= {(each.model, each.column.attname) for each in references_to(concrete)}
        return frozenset(columns)

    def decides(self, model: type[Model]) -> frozenset[Column]:
        """Those that must be unique, and those of `others`."""
        alike = model._base_manager.order_by(*self._expressions).values("pk")
        return columns_read(alike) | (self.writes(model) if isinstance(self.others, Mapping) else frozenset())

    def remedies(self) -> Mapping[Drift, Remedy]:
        """`Merge` where `merge` says how."""
        return {} if self.merge is None else {EXTRA: Merge()}

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """One: the records beyond the first of their group, STALE where they are to have other values, else EXTRA."""
        groups = self._groups(source)
        fix: Fix | None = None
        if self.others is not None:
            fix = _correction(groups, self.others)
        elif self.merge is not None:
            fix = _merging_of(groups, self.merge)
        found = GroupFinder(
            drift=EXTRA if self.others is None else STALE, model=source.model, using=source.using, query=groups.duplicates,
            count_rows=groups.count_duplicates, lock=Lock(neighbours=Survivors(groups.members)), fix=fix,
        )  # fmt: skip
        return (found,)

    @property
    def _expressions(self) -> list[Any]:
        return [F(column) if isinstance(column, str) else column for column in self.columns]

    def _order(self) -> list[OrderBy]:
        order = [_as_order_by(each) for each in self.keep]
        named = {path_of(each.expression) for each in order if isinstance(each.expression, F)}
        return order if "pk" in named else [*order, _as_order_by("pk")]

    def _groups(self, source: Source) -> Groups:
        keep = [prepare(each, source.now) for each in self._order()]
        return Groups(source=source, columns=self._expressions, keep=keep, nulls_distinct=self.nulls_distinct)

    def _grouping_columns(self, every: QuerySet[Any]) -> frozenset[Column]:
        """The columns that decide in which group a record is."""
        groups = self._groups(Source(every=every, using=every.db, now=timezone.now()))
        return columns_read(
            groups.records().annotate(**{f"_by_{n}": each for n, each in enumerate(self._expressions)})
        )

    def _with_deciding_columns(self, every: QuerySet[Any]) -> Rows:
        """The records, annotated with all expressions that decide which of them goes."""
        groups = self._groups(Source(every=every, using=every.db, now=timezone.now()))
        deciding = [*self._expressions, *(each.expression for each in self._order())]
        named = {f"_by_{number}": each for number, each in enumerate(deciding)}
        decided: Rows = groups.records().annotate(**named)
        return decided


def _as_order_by(each: Any) -> OrderBy:
    if isinstance(each, OrderBy):
        return each
    if isinstance(each, str):
        column = F(each.removeprefix("-"))
        return column.desc(nulls_last=True) if each.startswith("-") else column.asc(nulls_last=True)
    return each.asc(nulls_last=True)  # type: ignore[no-any-return]


def _correction(groups: Groups, others: Mapping[str, Any]) -> Correction:
    model, now = groups.source.model, groups.source.now
    named = {column: as_expression(value, column) for column, value in link_terms(model, others).items()}
    stored = {column.attname: AsStored(prepare(value, now), field=column) for column, value in named.items()}
    values = {WANTED.format(attname): value for attname, value in stored.items()}
    overflow = overflows(model, named, lambda column: F(WANTED.format(column.attname)), groups.source.using)

    def wanted(scope: Scope) -> Rows:
        # The chunk has found under row locks that the rows in scope are duplicates; that isn't queried again.
        rows = (
            model._base_manager.using(groups.source.using).filter(scope.on("pk")).annotate(**{KEY: F("pk")})
        )
        listed: Rows = writable_rows(rows.annotate(**values), overflow).values_list(KEY, *values)
        return listed

    return Correction(model=model, fields=tuple(named), wanted=wanted, own=True)


def _merging_of(groups: Groups, merge: Mapping[str, str]) -> Merging:
    model = groups.source.model
    how = link_terms(model, merge)

    def wanted(keys: Keys) -> Rows:
        return groups.survivors_to_update(how, keys)

    return Merging(model=model, fields=tuple(how), wanted=wanted, members=groups.members)
