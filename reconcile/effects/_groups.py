"""The groups of a `BeUnique`: records that are alike, which of them stays, and what the others come to.

Note [Two conditions]: which groups have several records is asked with the columns as they are, so that an index
helps and the whole table need not be ranked; a collation may fold texts there and bring more groups than needed.
Within what is found, groups are told apart to the character.
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
    Max,
    Min,
    OrderBy,
    Sum,
    TextField,
    Value,
    Window as Over,
)
from django.db.models.functions import Cast, Coalesce, FirstValue, RowNumber
from django.db.models.lookups import IsNull

from reconcile.declaring import field_named
from reconcile.finders import Rows, Source
from reconcile.sql.expressions import path_of, pinned
from reconcile.sql.grouping import AmongRows, Bytewise
from reconcile.sql.lookups import AsStored, any_differs
from reconcile.sql.statements import KEY, WANTED
from reconcile.windows import EVERYTHING, Keys, Scope

__all__ = ["COALESCE", "MERGED", "Groups"]

COALESCE = "coalesce"
MERGED: Mapping[str, type[Aggregate] | None] = {"sum": Sum, "min": Min, "max": Max, COALESCE: None}
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
        """The records that are in a group at all."""
        rows = self.source.records(EVERYTHING)
        if self.nulls_distinct:
            for column in filter(self._may_be_null, self._expressions):
                rows = rows.filter(IsNull(column, False))
        return rows

    def surplus(self, scope: Scope) -> int:
        """How many records are beyond the first of their group. One statement, without ranking any."""
        if scope != EVERYTHING:
            return self.beyond(scope).count()
        alike = {_ALIKE.format(number): each for number, each in enumerate(self._exactly())}
        groups = self.records().annotate(**alike).values(*alike).annotate(_rows=Count("*"))
        return int(groups.filter(_rows__gt=1).aggregate(_sum=Sum(F("_rows") - 1, default=0))["_sum"])

    def beyond(self, scope: Scope) -> Rows:
        """The records in scope that are beyond the first of their group, however little of it is in scope."""
        # A condition added to a ranked queryset would be put below the ranking, so the ranking stands inside.
        ranked = (
            self.records().filter(self._likely(scope)).annotate(**{_RANK: self._over(RowNumber(), self.keep)})
        )
        rows = self.source.model._base_manager.using(self.source.using).filter(scope.on("pk"))
        return rows.filter(pk__in=ranked.filter(**{f"{_RANK}__gt": 1}).values("pk"))

    def members(self, scope: Scope) -> Rows:
        """All records of the groups that records in scope are in: (key, key of the one that stays)."""
        rows = self.records().filter(self._likely(scope))
        rows = rows.annotate(
            **{_SURVIVOR: self._over(FirstValue("pk"), self.keep), _SIZE: self._over(Count("*"))}
        )
        listed: Rows = rows.filter(**{f"{_SIZE}__gt": 1}).values_list("pk", _SURVIVOR)
        return listed

    def merged(self, how: Mapping[Field[Any, Any], str], keys: Keys) -> Rows:
        """Of just the records of `keys`, those that stay and differ from what their group comes to.

        A record that has come into a group since doesn't count, nor does it matter whether one has left `every`:
        what is added up has to be just what goes.
        """
        rows = self.source.model._base_manager.using(self.source.using).filter(keys.on("pk"))
        wanted = {
            WANTED.format(field.attname): AsStored(self._merged(field, each), field=field)
            for field, each in how.items()
        }
        rows = rows.annotate(**{KEY: F("pk"), _RANK: self._over(RowNumber(), self.keep)}, **wanted)
        rows = rows.filter(any_differs(tuple(how), lambda field: F(WANTED.format(field.attname))))
        listed: Rows = rows.filter(**{_RANK: 1}).values_list(KEY, *wanted)
        return listed

    @property
    def _expressions(self) -> list[Any]:
        return [pinned(column, self.source.now) for column in self.columns]

    def _exactly(self) -> list[Bytewise]:
        return [Bytewise(column) for column in self._expressions]

    def _merged(self, field: Field[Any, Any], how: str) -> Over:
        aggregate = MERGED[how]
        if aggregate is not None:
            return self._over(aggregate(field.attname))
        there = IsNull(F(field.attname), True)
        return self._over(FirstValue(field.attname), [OrderBy(there), *self.keep])

    def _over(self, function: Expression, order: Sequence[OrderBy] | None = None) -> Over:
        return Over(
            function, partition_by=self._exactly(), order_by=[each.copy() for each in order or ()] or None
        )

    def _likely(self, scope: Scope) -> AmongRows:
        """True of all records of the groups that can be of interest, and perhaps of some more."""
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
