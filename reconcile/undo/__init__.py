"""Undoing: the changes of a run, the history of a row, the statements that restore it."""
