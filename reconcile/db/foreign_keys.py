"""Foreign keys as the database has them, of tables that no model need declare: which rows do they refer to?"""

from __future__ import annotations

from typing import Any

from django.db.models import BooleanField, F, Func, QuerySet, Subquery

from reconcile.db.django_compat import SQL, BaseDatabaseWrapper, SQLCompiler, compile_expression, quoter
from reconcile.db.schema import ForeignKeyInto

__all__ = ["ReferredBy"]

_ALIAS = "reconcile_referring"


class ReferredBy(Func):
    """True of rows that a row of another table refers to by the foreign key, as the database compares them.

    but_for: rows of the model itself that don't count, if the key is of its own table; own_key: the column of their keys.
    """

    output_field = BooleanField()

    def __init__(
        self, key: ForeignKeyInto, *, own_key: str = "", but_for: QuerySet[Any, Any] | None = None
    ) -> None:
        super().__init__(F("pk"), *([Subquery(but_for.values("pk"))] if but_for is not None else []))
        self.foreign_key, self.own_key = key, own_key

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> SQL:
        (own, params), *leaving = (
            compile_expression(compiler, each) for each in self.get_source_expressions()
        )
        quote, key = quoter(connection), self.foreign_key
        row = own.rpartition(".")[0]
        pairs = zip(key.columns, key.referred, strict=True)
        # SQLite compares by the collation of the left side, and a foreign key by that of the column referred to.
        matched = " AND ".join(f"{row}.{quote(there)} = {_ALIAS}.{quote(here)}" for here, there in pairs)
        for rows, more in leaving:
            matched += f" AND {_ALIAS}.{quote(self.own_key)} NOT IN {rows}"
            params = (*params, *more)
        # The own key is asked for its alias alone; it has no parameters.
        return f"EXISTS (SELECT 1 FROM {key.table} {_ALIAS} WHERE {matched})", params
