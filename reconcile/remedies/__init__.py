"""What a repair does about drift: one file per remedy.

A remedy writes for the keys of one chunk, inside that chunk's transaction, and journals what it wrote.
"""

from reconcile.remedies.base import Journal, Message, Remedy, WriteResult, WriteStep
from reconcile.remedies.call import Call
from reconcile.remedies.delete import Delete
from reconcile.remedies.enqueue import Enqueue
from reconcile.remedies.insert import Insert
from reconcile.remedies.merge import Merge
from reconcile.remedies.references import references_to
from reconcile.remedies.report import Report
from reconcile.remedies.resend import Resend
from reconcile.remedies.split import Split
from reconcile.remedies.update import Update

__all__ = [
    "Call",
    "Delete",
    "Enqueue",
    "Insert",
    "Journal",
    "Merge",
    "Message",
    "Remedy",
    "Report",
    "Resend",
    "Split",
    "Update",
    "WriteResult",
    "WriteStep",
    "references_to",
]
