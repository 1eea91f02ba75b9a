"""Django's system checks: every fault of every rule, together, without touching the database."""

from __future__ import annotations

from typing import Any

from django.core import checks

from reconcile.registry import load

__all__ = ["check_rules"]


@checks.register("reconcile")
def check_rules(**_: Any) -> list[checks.CheckMessage]:
    """One error for each fault of the project's rules; none where all can be used."""
    return [checks.Error(fault.message, hint=fault.hint or None, id=fault.id) for fault in load().faults]
