"""What the audit of a project's source costs, beside parsing the same files: run it in a project's folder, with its settings.

    DJANGO_SETTINGS_MODULE=shop.settings python …/benchmarks/audit.py

Each is measured in a process of its own, in seconds of the processor and without what `django.setup()` takes. The cache is made in a folder of
its own and dropped.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import process_time

ROUNDS = 3


def main() -> None:
    """Print the ratios to parsing."""
    if len(sys.argv) > 1:
        print(f"{_seconds(WAYS[sys.argv[1]]):.6f}")
        return
    taken: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            for way in WAYS:
                taken.setdefault(way, []).append(_measured(way, folder))
    parsing = median(taken["parsing all that is looked through"])
    for way, seconds in taken.items():
        print(f"{way:50} {median(seconds) / parsing:6.1f}   ({median(seconds):.2f} s)")


def _measured(way: str, folder: str) -> float:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), way]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().rpartition("\n")[2])


def _seconds(act: Callable[[], object]) -> float:
    import django

    django.setup()
    began = process_time()
    act()
    return process_time() - began


def _files() -> Sequence[Path]:
    from reconcile.audit.files import is_migration, is_test, python_files, roots

    return [Path(each) for each in python_files(roots()) if not is_test(each) and not is_migration(each)]


def _parse() -> object:
    from reconcile.audit.sources import without_collecting

    with without_collecting():
        return [ast.parse(each.read_bytes()) for each in _files()]


def _bypasses() -> object:
    from reconcile.audit.searching import Search, search_bypasses

    return search_bypasses({}, {}, Search(use_cache=True))


def _signals() -> object:
    from reconcile.audit.listing import audit_signals

    return audit_signals({}, follow=True, use_cache=True)


WAYS: dict[str, Callable[[], object]] = {
    "parsing all that is looked through": _parse,
    "bypasses, first run": _bypasses,
    "bypasses, second run": _bypasses,
    "signals, after it": _signals,
    "signals, second run": _signals,
}

if __name__ == "__main__":
    main()
