"""What the caps still let a run write for a rule, held chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass

from reconcile.drift import Written
from reconcile.errors import GivenUpError

__all__ = ["Allowance"]


@dataclass
class Allowance:
    """Rows that may still be written, and how many of them deleted; None without a cap."""

    rows: float | None = None
    deletes: float | None = None

    def hold(self, written: Written) -> None:
        """Raise GivenUpError where a chunk goes beyond what is left; the chunk is then rolled back."""
        for left, rows, what in (
            (self.rows, written.total, "repairs"),
            (self.deletes, written.delete, "deletes"),
        ):
            if left is not None and rows > left:
                raise GivenUpError(
                    f"The cap on {what} is reached: {left:g} more rows may be written, and the next chunk "
                    f"would write {rows}. Look at the journal; then repair with a higher cap."
                )

    def spend(self, written: Written) -> None:
        """Take off what a committed chunk has written."""
        self.rows = None if self.rows is None else self.rows - written.total
        self.deletes = None if self.deletes is None else self.deletes - written.delete
