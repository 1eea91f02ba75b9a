"""Everything that is about SQL text: lookups, rewritten expressions, statement headers, dialects.

The ORM writes the statements; what it can't write (an `INSERT … SELECT` header, an `UPDATE … FROM`
header, locks and timeouts) stands in this package and nowhere else. Nothing here knows a rule.
"""
