"""`startswith` with another column's value, by a range that an index serves."""

from __future__ import annotations

from typing import Any

from django.db.models.lookups import StartsWith

from reconcile.db.columns import is_text, stored_field
from reconcile.db.django_compat import SQL, BaseDatabaseWrapper, Col, SQLCompiler, is_utf8

__all__ = ["Begins"]

_LAST = "repeat(chr(1114111), 8)"
"""PostgreSQL: the last character that there is, which stands for none, more often than any text has it."""


class Begins(StartsWith):
    """True if a text column begins with a value, as Django's `startswith` has it on this database.

    A database uses an index for a pattern that it knows beforehand, and for no other; so the pattern stands beside a range, in which
    each text lies that it matches. On MariaDB and MySQL a subquery uses no range that begins with another row's value.
    """

    @classmethod
    def improves(cls, node: Any) -> bool:
        """Whether the lookup is of a text column with an expression, so that a range may be faster."""
        return (
            type(node) is StartsWith
            and hasattr(node.rhs, "resolve_expression")
            and is_text(node.lhs.output_field)
        )

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        """LIKE takes a letter for its capital, so the range goes from the capitals, which come first, to the small ones."""
        # No byte of a text is FF.
        beyond = "LOWER({rhs}) || CAST(x'FF' AS TEXT)"
        return self._within(compiler, connection, f"{{lhs}} >= UPPER({{rhs}}) AND {{lhs}} < {beyond}")

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        """By bytes, as the index orders that Django makes for patterns beside each index on a text."""
        if not is_utf8(connection):
            return self.as_sql(compiler, connection)
        beyond = f"(({{rhs}})::text || {_LAST})"
        return self._within(compiler, connection, f"{{lhs}} ~>=~ ({{rhs}})::text AND {{lhs}} ~<=~ {beyond}")

    def _within(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, template: str) -> SQL:
        pattern, params = self.as_sql(compiler, connection)
        if not isinstance(self.lhs, Col) or getattr(stored_field(self.lhs.target), "db_collation", None):
            return pattern, tuple(params)
        lhs, lhs_params = self.process_lhs(compiler, connection)
        rhs, rhs_params = self.process_rhs(compiler, connection)
        within = template.format(lhs=lhs, rhs=rhs)
        return f"({within} AND {pattern})", (*lhs_params, *rhs_params, *lhs_params, *rhs_params, *params)
