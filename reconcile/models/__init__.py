"""What the package keeps in the database: of runs in `_runs`, of rows in `_rows`.

It lies in the database that it speaks of, because a chunk's data, journal and cursor commit together.
"""

from reconcile.models._rows import Change, ExactField, Finding, Receipt
from reconcile.models._runs import Chunk, Outcome, Run, Shard, Suspension

__all__ = [
    "Change", "Chunk", "ExactField", "Finding", "Outcome", "Receipt", "Run", "Shard", "Suspension",
]  # fmt: skip
