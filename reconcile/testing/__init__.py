"""Assertions for tests: that rules are true of records, of everything, or of what a block of code wrote.

They need no pytest: what fails is an AssertionError that says which rule, which keys, and what is there beside
what is owed. `reconcile.pytest_plugin` hands them to pytest.
"""

from __future__ import annotations

from reconcile.testing._asserting import assert_consistent, assert_rules
from reconcile.testing._watching import Watch

__all__ = ["Watch", "assert_consistent", "assert_rules"]
