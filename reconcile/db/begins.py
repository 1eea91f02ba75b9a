"""`startswith` with another column's value, by a range that an index serves."""

from __future__ import annotations

from typing import Any

from django.db.models.lookups import StartsWith

from reconcile.db.columns import is_text, stored_field
from reconcile.db.dialects import forms_of, spell
from reconcile.db.django_compat import SQL, BaseDatabaseWrapper, Col, SQLCompiler

__all__ = ["Begins"]


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

    def as_sql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper) -> SQL:
        """The pattern, and beside it the range, where the database has a form for one and the column its usual collation."""
        pattern, params = super().as_sql(compiler, connection)
        within = forms_of(connection).prefix_range()
        collated = not isinstance(self.lhs, Col) or getattr(
            stored_field(self.lhs.target), "db_collation", None
        )
        if not within or collated:
            return pattern, tuple(params)
        lhs, rhs = self.process_lhs(compiler, connection), self.process_rhs(compiler, connection)
        return spell(f"({within} AND {{pattern}})", lhs=lhs, rhs=rhs, pattern=(pattern, params))
