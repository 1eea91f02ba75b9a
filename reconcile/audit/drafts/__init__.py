"""Drafts of rules from the schema and the data: what could be true of each record, how far it is, and the line that says so."""
