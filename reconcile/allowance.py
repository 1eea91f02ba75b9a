"""What the caps and the plan still let a run write for a rule, held chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass

from reconcile.drift import Written
from reconcile.errors import GivenUpError

__all__ = ["Allowance"]


@dataclass
class Allowance:
    """Rows that may still be written, and how many of them deleted; None without a cap.

    planned: records that are left of the plan in `file`; None without a plan.
    """

    rows: float | None = None
    deletes: float | None = None
    planned: int | None = None
    file: str = ""

    def hold(self, written: Written, *, records: int = 0) -> None:
        """Raise GivenUpError where a chunk that has repaired so many records goes beyond what is left; it is rolled back."""
        for left, rows, what in (
            (self.rows, written.total, "repairs"),
            (self.deletes, written.delete, "deletes"),
        ):
            if left is not None and rows > left:
                raise GivenUpError(
                    f"The cap on {what} is reached: {left:g} more rows may be written, and the next chunk "
                    f"would write {rows}. Look at the journal; then repair with a higher cap."
                )
        if self.planned is not None and records > self.planned:
            raise GivenUpError(
                f"The plan in {self.file} is used up: {self.planned:,} of its records are left, and the next chunk would "
                f"repair {records:,}. Look at the journal; then make a new plan, and apply that."
            )

    def spend(self, written: Written, *, records: int = 0) -> None:
        """Take off what a committed chunk has written."""
        self.rows = None if self.rows is None else self.rows - written.total
        self.deletes = None if self.deletes is None else self.deletes - written.delete
        self.planned = None if self.planned is None else self.planned - records
