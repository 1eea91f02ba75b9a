"""The groups of a `BeUnique` as querysets: records that are alike, which of them stays, and the merged values.

Note [Two conditions]: a first condition compares the plain columns. It uses an index, and not the whole table is
ranked; but a collation may fold texts, so that it finds more groups than needed. Among the rows found, a second
condition compares the texts exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import (
    Aggregate,
    Count,
    Expression,
    F,
    Field,
    IntegerField,
    Max,
    Min,
    OrderBy,
    Sum,
    TextField,
    Value,
    Window as Over,
)
from django.db.models.functions import Cast, Coalesce, FirstValue, RowNumber
from django.db.models.lookups import GreaterThan, IsNull

from reconcile.core.declaration import field_named
from reconcile.core.finder import Rows, Source
from reconcile.core.scopes import EVERYTHING, Keys, Scope
from reconcile.db.comparisons import AmongRows, AsStored, Bytewise, any_differs
from reconcile.db.django_compat import copy_expression
from reconcile.db.expressions import path_of, prepare
from reconcile.db.statements import KEY, WANTED

__all__ = ["COALESCE", "MERGED", "OF_BOOLEANS", "Groups"]

COALESCE = "coalesce"
OF_BOOLEANS: Mapping[str, type[Aggregate]] = {"any": Max, "all": Min}
"""How a boolean of several records becomes one; a database that has booleans has no largest of them."""

MERGED: Mapping[str, type[Aggregate] | None] = {
    "sum": Sum, "min": Min, "max": Max, **OF_BOOLEANS, COALESCE: None,
}  # fmt: skip
"""How a column of several records becomes one value."""

_ALIKE, _LIKELY = "_alike_{}", "_likely_{}"
_RANK, _SURVIVOR, _SIZE = "_rank", "_survivor", "_size"


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The records of a source, grouped by `columns`; in each group the first in the order of `keep` stays."""

    source: Source
    columns: Sequence[Any]
    keep: Sequence[OrderBy]
    nulls_distinct: bool

    def records(self) -> Rows:
        """The records that belong to a group: with `nulls_distinct`, those without NULL in a column."""
        rows = self.source.records(EVERYTHING)
        if self.nulls_distinct:
            for column in filter(self._may_be_null, self._expressions):
                rows = rows.filter(IsNull(column, False))
        return rows

    def count_duplicates(self, scope: Scope) -> int:
        """How many records are not the first of their group. One statement; for all records it ranks none."""
        if scope != EVERYTHING:
            return self.duplicates(scope).count()
        alike = {_ALIKE.format(number): each for number, each in enumerate(self._exact_columns())}
        groups = self.records().annotate(**alike).values(*alike).annotate(_rows=Count("*"))
        return int(groups.filter(_rows__gt=1).aggregate(_sum=Sum(F("_rows") - 1, default=0))["_sum"])

    def duplicates(self, scope: Scope) -> Rows:
        """The records in scope that are not the first of their group, even if only part of the group is in scope."""
        # Django would filter before it ranks if the condition were added to the ranked queryset, so that is a subquery.
        ranked = (
            self.records()
            .filter(self._in_candidate_groups(scope))
            .annotate(**{_RANK: self._over_group(RowNumber(), self.keep)})
        )
        rows = self.source.model._base_manager.using(self.source.using).filter(scope.on("pk"))
        return rows.filter(pk__in=ranked.filter(**{f"{_RANK}__gt": 1}).values("pk"))

    def members(self, scope: Scope) -> Rows:
        """All records of the groups that records in scope are in: (key, key of the one that stays)."""
        rows = self.records().filter(self._in_candidate_groups(scope))
        rows = rows.annotate(
            **{_SURVIVOR: self._over_group(FirstValue("pk"), self.keep), _SIZE: self._over_group(Count("*"))}
        )
        listed: Rows = rows.filter(**{f"{_SIZE}__gt": 1}).values_list("pk", _SURVIVOR)
        return listed

    def survivors_to_update(self, how: Mapping[Field[Any, Any], str], keys: Keys) -> Rows:
        """Of the records of `keys` alone, the survivors whose columns differ from the merged values of their group.

        A record that joined a group later doesn't count, and one that has left `every` does: the merge must add up
        exactly the records that it deletes.
        """
        rows = self.source.model._base_manager.using(self.source.using).filter(keys.on("pk"))
        wanted = {
            WANTED.format(field.attname): AsStored(self._merged_value(field, each), field=field)
            for field, each in how.items()
        }
        rows = rows.annotate(**{KEY: F("pk"), _RANK: self._over_group(RowNumber(), self.keep)}, **wanted)
        rows = rows.filter(any_differs(tuple(how), lambda field: F(WANTED.format(field.attname))))
        listed: Rows = rows.filter(**{_RANK: 1}).values_list(KEY, *wanted)
        return listed

    @property
    def _expressions(self) -> list[Any]:
        return [prepare(column, self.source.now) for column in self.columns]

    def _exact_columns(self) -> list[Bytewise]:
        return [Bytewise(column) for column in self._expressions]

    def _merged_value(self, field: Field[Any, Any], how: str) -> Over | GreaterThan:
        if how in OF_BOOLEANS:
            number = Cast(F(field.attname), IntegerField())
            return GreaterThan(self._over_group(OF_BOOLEANS[how](number)), 0)
        aggregate = MERGED[how]
        if aggregate is not None:
            return self._over_group(aggregate(field.attname))
        there = IsNull(F(field.attname), True)
        return self._over_group(FirstValue(field.attname), [OrderBy(there), *self.keep])

    def _over_group(self, function: Expression, order: Sequence[OrderBy] | None = None) -> Over:
        return Over(
            function,
            partition_by=self._exact_columns(),
            order_by=[copy_expression(each) for each in order or ()] or None,
        )

    def _in_candidate_groups(self, scope: Scope) -> AmongRows:
        """True of all records of the groups that may have several records or a key in scope, and perhaps of more."""
        likely = {_LIKELY.format(number): each for number, each in enumerate(self._expressions)}
        # A row with NULL in it is in no list.
        if not self.nulls_distinct:
            likely = {name: self._without_null(each) for name, each in likely.items()}
        rows = self.records().annotate(**likely).values(*likely)
        rows = rows.filter(scope.on("pk")) if isinstance(scope, Keys) else rows.annotate(_rows=Count("*"))
        if not isinstance(scope, Keys):
            rows = rows.filter(_rows__gt=1).values(*likely)
        return AmongRows(list(likely.values()), rows)

    def _without_null(self, column: Any) -> Any:
        return (
            Coalesce(Cast(column, TextField()), Value("", TextField()))
            if self._may_be_null(column)
            else column
        )

    def _may_be_null(self, column: Any) -> bool:
        field = field_named(self.source.model, path_of(column)) if isinstance(column, F) else None
        return field is None or field.null
