"""The database: one file per dialect, the statements and expressions that the ORM lacks, images of rows.

The ORM writes the statements; what it can't write (an `INSERT … SELECT` header, an `UPDATE … FROM`
header, locks and timeouts) stands in this package and nowhere else. Nothing here knows a rule.
"""
