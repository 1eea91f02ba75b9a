"""The values that a rule may name for a column, beside expressions: one file per value."""
