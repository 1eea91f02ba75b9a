"""`--reconcile-bypasses FILE`: what the test suite wrote past signals and methods, recorded for `reconcile signals bypasses --seen FILE`."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from reconcile.audit.recorded import SeenCall, as_rows, from_rows, write_recording
from reconcile.testing.recording import record_bypasses

__all__ = ["Recorder"]


class Recorder:
    """Records from the first test to the last. Workers of pytest-xdist hand what they saw to the process that started them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: Counter[SeenCall] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Any:
        """Watch while the tests run."""
        with ExitStack() as stack:
            recording = stack.enter_context(record_bypasses())
            # Whoever ends the run at the first failure raises here.
            stack.callback(lambda: self.calls.update(recording.calls))
            return (yield)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand over what was seen, or write the file."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["reconcile_bypasses"] = as_rows(self.calls)
        else:
            write_recording(self.path, self.calls)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker has seen."""
        self.calls.update(from_rows(getattr(node, "workeroutput", {}).get("reconcile_bypasses", [])))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say where it is."""
        count = len(self.calls)
        sites = "call site that writes" if count == 1 else "call sites that write"
        terminalreporter.write_line(f"reconcile: {count:,} {sites} past signals recorded in {self.path}")
