"""Assertions for tests: that rules are true of records, of everything, or of what a block of code wrote.

They need no pytest. They raise AssertionError, whose message names the rule and the keys, and shows what is there beside what
is owed. `reconcile.pytest_plugin` offers them to pytest.
"""

from __future__ import annotations

from reconcile.audit.parity.records import Linked
from reconcile.audit.recorded import write_recording
from reconcile.testing.assertions import Watch, assert_consistent, assert_rules
from reconcile.testing.batches import assert_batch_safe
from reconcile.testing.cost import assert_cost
from reconcile.testing.parity import assert_parity
from reconcile.testing.recording import Recording, record_bypasses

__all__ = [
    "Linked",
    "Recording",
    "Watch",
    "assert_batch_safe",
    "assert_consistent",
    "assert_cost",
    "assert_parity",
    "assert_rules",
    "record_bypasses",
    "write_recording",
]
