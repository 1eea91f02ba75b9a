"""`BeUnique`: the declaration, and the groups of equal records."""
