"""Level-triggered rules for Django: what every record must have, whichever path wrote it.

The public names are handed out on demand, because Django imports this package before its models can be.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reconcile import receipts
    from reconcile.drift import EXTRA, MISSING, STALE
    from reconcile.effects import (
        AtLeast,
        AtMost,
        Exactly,
        FromPython,
        HaveKeys,
        HaveRow,
        HaveRows,
        HaveValues,
        Satisfy,
    )
    from reconcile.errors import ReconcileError
    from reconcile.remedies import Call, Insert, Report, Resend, Split, Update
    from reconcile.rules import Rule
    from reconcile.settling import Settle
    from reconcile.effects import AtLeast, AtMost, Exactly, HaveReceipt, HaveRow, HaveSource, HaveValues
    from reconcile.errors import ReconcileError
    from reconcile.remedies import Enqueue, Insert, Report, Update
    from reconcile.rules import Rule, Settle

__all__ = [
    "EXTRA",
    "MISSING",
    "STALE",
    "AtLeast",
    "AtMost",
    "Call",
    "Exactly",
    "FromPython",
    "HaveKeys",
    "HaveRow",
    "HaveRows",
    "Enqueue",
    "Exactly",
    "HaveReceipt",
    "HaveRow",
    "HaveSource",
    "HaveValues",
    "Insert",
    "ReconcileError",
    "Report",
    "Resend",
    "Rule",
    "Satisfy",
    "Settle",
    "Split",
    "Update",
    "receipts",
]

_HOMES = {
    "reconcile.drift": (
        "EXTRA",
        "MISSING",
        "STALE",
    ),
    "reconcile.effects": (
        "AtLeast",
        "AtMost",
        "Exactly",
        "FromPython",
        "HaveKeys",
        "HaveRow",
        "HaveRows",
        "HaveValues",
        "Satisfy",
    ),
    "reconcile.errors": ("ReconcileError",),
    "reconcile.remedies": (
        "Call",
        "Insert",
        "Report",
        "Resend",
        "Split",
        "Update",
    ),
    "reconcile.rules": ("Rule",),
    "reconcile.settling": ("Settle",),
    "reconcile.drift": ("EXTRA", "MISSING", "STALE"),
    "reconcile.effects": (
        "AtLeast",
        "AtMost",
        "Exactly",
        "HaveReceipt",
        "HaveRow",
        "HaveSource",
        "HaveValues",
    ),
    "reconcile.errors": ("ReconcileError",),
    "reconcile.remedies": ("Enqueue", "Insert", "Report", "Update"),
    "reconcile.rules": ("Rule", "Settle"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    if name == "receipts":
        return importlib.import_module("reconcile.receipts")
    raise AttributeError(f"module 'reconcile' has no attribute {name!r}")
