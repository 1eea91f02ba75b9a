"""The command line: `reconcile`, and the same group as `manage.py reconcile`.

Machine formats go to standard output alone; everything else, the project's own prints included, to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from reconcile.cli._group import reconcile

__all__ = ["main", "reconcile"]

# Each module adds its commands to the group.
from reconcile.cli import _baseline, _check, _explain, _repair, _rules, _runs, _steer, _undo  # noqa: F401


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # As with manage.py, modules of the folder one stands in can be imported.
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds strings
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    reconcile.main(args=None if arguments is None else list(arguments), prog_name="reconcile")
