"""`BeUnique`: no two records are alike in the named columns; one of each group stays.

The declaration stands here; its faults in `_unique_faults`, the querysets that it compiles to in `_groups`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.models import F, Model, OrderBy, QuerySet
from django.utils import timezone

from reconcile.declaring import Declaration, as_expression, field_named
from reconcile.drift import EXTRA, STALE, Drift, Guarantee
from reconcile.effects._covering import is_covered
from reconcile.effects._groups import Groups
from reconcile.effects._lifting import Lift, filter_of, lifted
from reconcile.effects._unique_faults import merge_faults, order_faults, others_faults, unique_faults
from reconcile.errors import Fault
from reconcile.finders import Correction, Finder, Merging, Rows, Source
from reconcile.remedies import Merge, Remedy, references_to
from reconcile.sql.expressions import Column, columns_read, path_of, pinned, reads_itself
from reconcile.sql.lookups import AsStored
from reconcile.sql.statements import KEY, WANTED
from reconcile.sql.wording import expression_in_words, in_words
from reconcile.windows import Keys, Scope

__all__ = ["BeUnique"]


@dataclass(frozen=True, init=False)
class BeUnique(Declaration):
    """No two of the records may be alike in `columns`: `BeUnique("customer", keep=["-updated_at"])`.

    columns: names, or expressions over the record such as Lower("email"). Texts are told apart to the character.
    keep: the first record of a group in this order stays; NULL comes last, the primary key decides at the end.
    others: column = value or expression over the record, which the others of a group are to have. The others are
        STALE then, and else EXTRA.
    merge: column = "sum", "min", "max" or "coalesce": what the record that stays takes over from its group.
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
        yield from self.option_faults()
        unusable = [
            *unique_faults(model, self.columns, self._expressions),
            *order_faults(model, self.keep, self._order),
        ]
        yield from unusable
        if not isinstance(self.nulls_distinct, bool):
            hint = "Give True or False."
            yield Fault("reconcile.E012", f"BeUnique: nulls_distinct= is {self.nulls_distinct!r}.", hint)
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
        if self.others is not None and not written & self._parting(every):
            names = ", ".join(map(repr, self.others))
            hint = "Set a column that every= filters by, or one of the unique columns."
            yield Fault(
                "reconcile.E012", f"BeUnique(others=…): {names} leaves the duplicates what they are.", hint
            )

    def sentence(self, model: type[Model]) -> str:  # noqa: ARG002
        """`be unique by customer: the first by -updated_at, pk stays, the others get is_default = False`."""
        columns = " and ".join(expression_in_words(each) for each in self._expressions)
        order = ", ".join(expression_in_words(each) for each in self._order())
        if self.others is not None:
            fate = f", the others get {in_words(self.others)}"
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
        """A where a unique constraint covers the columns, since then nothing is ever found.

        For `others` A as well, where all that decides stands in the records' own rows: the duplicate and the record
        that stays are both locked before it is asked again which is which, so no group can lose all its records.
        C where another row decides, too, of whichever table: that isn't locked. A delete or a merge is D: no lock reaches
        a handler that has read the row and refers to it, or writes it, later.
        """
        if is_covered(every, self._expressions, nulls_distinct=self.nulls_distinct, using=using):
            return "A"
        if self.others is None:
            return "D"
        return "A" if reads_itself(self._deciding(every)) else "C"

    def lift(self, every: QuerySet[Any], using: str) -> Lift:
        """The constraint under which there are no duplicates."""
        condition = filter_of(every)
        if condition is None:
            return Lift(why_not="The filter of every= can't be told as the condition of a unique constraint.")
        return lifted(
            every.model,
            self._expressions,
            condition=condition,
            nulls_distinct=self.nulls_distinct,
            using=using,
        )

    def writes(self, model: type[Model]) -> frozenset[Column]:
        """The columns of `others`; without it all of the record, which goes, and what refers to it."""
        concrete = model._meta.concrete_model or model
        if isinstance(self.others, Mapping):
            found = (field_named(model, name) for name in self.others)
            return frozenset((concrete, each.attname) for each in found if each is not None)
        columns = {(concrete, each.attname) for each in concrete._meta.concrete_fields}
        if self.merge is not None:
            columns |= {(each.model, each.column.attname) for each in references_to(concrete)}
        return frozenset(columns)

    def remedies(self) -> Mapping[Drift, Remedy]:
        """`Merge` where `merge` says how."""
        return {} if self.merge is None else {EXTRA: Merge()}

    def finders(self, source: Source) -> tuple[Finder, ...]:
        """One: the records beyond the first of their group, STALE where they are to have other values, else EXTRA."""
        groups = self._groups(source)
        found = Finder(
            drift=EXTRA if self.others is None else STALE, model=source.model, carried=False, find=groups.beyond,
            counted=groups.surplus, survivors=groups.members,
            correction=None if self.others is None else _correction(groups, self.others),
            merging=None if self.merge is None else _merging(groups, self.merge),
        )  # fmt: skip
        return (found,)

    @property
    def _expressions(self) -> list[Any]:
        return [F(column) if isinstance(column, str) else column for column in self.columns]

    def _order(self) -> list[OrderBy]:
        order = [_sorted_by(each) for each in self.keep]
        named = {path_of(each.expression) for each in order if isinstance(each.expression, F)}
        return order if "pk" in named else [*order, _sorted_by("pk")]

    def _groups(self, source: Source) -> Groups:
        keep = [pinned(each, source.now) for each in self._order()]
        return Groups(source=source, columns=self._expressions, keep=keep, nulls_distinct=self.nulls_distinct)

    def _parting(self, every: QuerySet[Any]) -> frozenset[Column]:
        """The columns by which a record is in its group at all."""
        groups = self._groups(Source(every=every, using=every.db, now=timezone.now()))
        return columns_read(
            groups.records().annotate(**{f"_by_{n}": each for n, each in enumerate(self._expressions)})
        )

    def _deciding(self, every: QuerySet[Any]) -> Rows:
        """The records with all by which it is decided that one goes."""
        groups = self._groups(Source(every=every, using=every.db, now=timezone.now()))
        deciding = [*self._expressions, *(each.expression for each in self._order())]
        named = {f"_by_{number}": each for number, each in enumerate(deciding)}
        decided: Rows = groups.records().annotate(**named)
        return decided


def _sorted_by(each: Any) -> OrderBy:
    if isinstance(each, OrderBy):
        return each
    if isinstance(each, str):
        column = F(each.removeprefix("-"))
        return column.desc(nulls_last=True) if each.startswith("-") else column.asc(nulls_last=True)
    return each.asc(nulls_last=True)  # type: ignore[no-any-return]


def _correction(groups: Groups, others: Mapping[str, Any]) -> Correction:
    model, now = groups.source.model, groups.source.now
    fields = [(field_named(model, name), value) for name, value in others.items()]
    named = {column: as_expression(value, column) for column, value in fields if column is not None}
    stored = {column.attname: AsStored(pinned(value, now), field=column) for column, value in named.items()}
    values = {WANTED.format(attname): value for attname, value in stored.items()}

    def wanted(scope: Scope) -> Rows:
        # Which rows are beyond the first has been asked under their locks; it need not be asked again.
        rows = (
            model._base_manager.using(groups.source.using).filter(scope.on("pk")).annotate(**{KEY: F("pk")})
        )
        listed: Rows = rows.annotate(**values).values_list(KEY, *values)
        return listed

    return Correction(model=model, fields=tuple(named), wanted=wanted, own=True)


def _merging(groups: Groups, merge: Mapping[str, str]) -> Merging:
    model = groups.source.model
    how = {column: each for name, each in merge.items() if (column := field_named(model, name)) is not None}

    def wanted(keys: Keys) -> Rows:
        return groups.merged(how, keys)

    return Merging(fields=tuple(how), wanted=wanted)
