"""Level-triggered rules for Django: what every record must have, whichever path wrote it.

The public names are handed out on demand, because Django imports this package before its models can be.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reconcile import receipts
    from reconcile.core.drift import EXTRA, MISSING, STALE
    from reconcile.errors import ReconcileError
    from reconcile.kinds import (
        AtLeast,
        AtMost,
        BeUnique,
        Exactly,
        FromPython,
        HaveKeys,
        HaveReceipt,
        HaveRow,
        HaveRows,
        HaveSource,
        HaveValues,
        Latest,
        LookedUp,
        PermissionOf,
        Previous,
        RunningSum,
        Satisfy,
        Within,
    )
    from reconcile.remedies import Call, Delete, Enqueue, Insert, Merge, Report, Resend, Split, Update
    from reconcile.rules.rule import Rule
    from reconcile.rules.settle import Settle
    from reconcile.runs.ensuring import aensure, ensure, ensuring
    from reconcile.runs.looking import look
    from reconcile.runs.watching import watching

__all__ = [
    "EXTRA",
    "MISSING",
    "STALE",
    "AtLeast",
    "AtMost",
    "BeUnique",
    "Call",
    "ContentTypeOf",
    "Delete",
    "Enqueue",
    "Exactly",
    "FromPython",
    "HaveKeys",
    "HaveReceipt",
    "HaveRow",
    "HaveRows",
    "HaveSource",
    "HaveValues",
    "Insert",
    "Latest",
    "LookedUp",
    "Merge",
    "PermissionOf",
    "Previous",
    "ReconcileError",
    "Report",
    "Resend",
    "Rule",
    "RunningSum",
    "Satisfy",
    "Settle",
    "Split",
    "Update",
    "Within",
    "aensure",
    "ensure",
    "ensuring",
    "look",
    "receipts",
    "watching",
]

_HOMES = {
    "reconcile.core.drift": ("EXTRA", "MISSING", "STALE"),
    "reconcile.kinds": (
        "AtLeast",
        "AtMost",
        "BeUnique",
        "ContentTypeOf",
        "Exactly",
        "FromPython",
        "HaveKeys",
        "HaveReceipt",
        "HaveRow",
        "HaveRows",
        "HaveSource",
        "HaveValues",
        "Latest",
        "LookedUp",
        "PermissionOf",
        "Previous",
        "RunningSum",
        "Satisfy",
        "Within",
    ),
    "reconcile.errors": ("ReconcileError",),
    "reconcile.remedies": (
        "Call",
        "Delete",
        "Enqueue",
        "Insert",
        "Merge",
        "Report",
        "Resend",
        "Split",
        "Update",
    ),
    "reconcile.rules.rule": ("Rule",),
    "reconcile.rules.settle": ("Settle",),
    "reconcile.runs.ensuring": ("aensure", "ensure", "ensuring"),
    "reconcile.runs.looking": ("look",),
    "reconcile.runs.watching": ("watching",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    if name == "receipts":
        return importlib.import_module("reconcile.receipts")
    raise AttributeError(f"module 'reconcile' has no attribute {name!r}")
