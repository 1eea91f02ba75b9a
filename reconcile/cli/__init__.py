"""The command line: `reconcile`, and the same group as `manage.py reconcile`.

Only a report goes to standard output. Everything else goes to standard error, also what the project itself prints.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence

from reconcile.cli.group import reconcile

__all__ = ["main", "reconcile"]

# Each module adds its commands to the group.
from reconcile.cli import (  # noqa: F401
    baseline,
    check,
    cost,
    explain,
    init,
    parity,
    repair,
    rules,
    runs,
    signals,
    undo,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit with its code."""
    # As with manage.py, the modules of the current folder can be imported.
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds strings
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    # What an audit has parsed needn't be taken apart: the process ends.
    atexit.register(gc.freeze)
    reconcile.main(args=None if arguments is None else list(arguments), prog_name="reconcile")
