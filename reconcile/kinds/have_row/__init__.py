"""`HaveRow`: the declaration, the link between record and row, the finders, the new rows."""
