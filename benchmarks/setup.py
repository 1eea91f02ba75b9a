"""What the package adds to `django.setup()`: milliseconds with it in INSTALLED_APPS, and without it.

    python benchmarks/setup.py [--rounds 15]

Each measurement is a process of its own, the two kinds in turn; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WITHOUT = ["django.contrib.contenttypes", "django.contrib.auth"]
WITH = [*WITHOUT, "reconcile"]
PROGRAM = """
import sys, time
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=sys.argv[1:],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
begun = time.perf_counter()
django.setup()
print(time.perf_counter() - begun)
"""


def milliseconds(apps: list[str]) -> float:
    """The milliseconds that `django.setup()` takes with these apps, in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, *apps]
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(result.stdout) * 1_000


def main() -> None:
    """Print both medians and their difference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    rounds = range(parser.parse_args().rounds)
    milliseconds(WITH)  # The first process compiles the modules.
    pairs = [(milliseconds(WITHOUT), milliseconds(WITH)) for _ in rounds]
    without, with_it = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"without {without:.0f} ms, with {with_it:.0f} ms: {with_it - without:.0f} ms more")


if __name__ == "__main__":
    main()
