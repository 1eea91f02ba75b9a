"""Many rules: what `manage.py check`, `migrate` and the development server pay for them at their start.

All figures are ratios to importing the files that hold the rules, measured in this one run. No database is touched.

    python benchmarks/many_rules.py --rules 10000
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import django

sys.path[0] = str(Path(__file__).resolve().parent.parent)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sample_project.settings")
django.setup()

from django.conf import settings

from reconcile import checks
from reconcile.rules.registry import load

IN_A_FILE = 100
HEAD = """
from django.db.models import Count, F, Q, Sum
from reconcile import BeUnique, HaveRow, HaveValues, Rule, Satisfy, Settle
from sample_project.shop.models import Invoice, Order
"""
KINDS = (
    'HaveRow(Invoice, link={"order": F("pk")}, values={"amount": F("total")})',
    'HaveValues(item_count=Count("items"))',
    'HaveValues(total=Sum(F("items__price") * F("items__quantity")))',
    "Satisfy(Q(total__gte=0))",
    'BeUnique("pk")',
)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rules", type=int, default=10_000)
    number = arguments.parse_args().rules
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "generated_rules", number)
        sys.path.insert(0, folder)
        settings.RECONCILE = {**getattr(settings, "RECONCILE", {}), "RULES": ["generated_rules"]}
        alone = _seconds(_import_all)
        first = _seconds(lambda: (checks.check_rules(), checks.check_guarantees()))
        again = _seconds(lambda: (checks.check_rules(), checks.check_guarantees()))
        assert not load().faults
    print(f"{number:,} rules in files of {IN_A_FILE}; importing the files: 1.00 ({alone:.2f} s)")
    print(f"system checks, first in the process    {first / alone:.2f}")
    print(f"system checks, once more               {again / alone:.2f}")


def _write(package: Path, number: int) -> None:
    package.mkdir()
    (package / "__init__.py").touch()
    for file in range(0, number, IN_A_FILE):
        lines = (
            f"rule_{n} = Rule(every=Order, must={KINDS[n % len(KINDS)]})"
            for n in range(file, min(file + IN_A_FILE, number))
        )
        (package / f"rules_{file}.py").write_text(HEAD + "\n".join(lines) + "\n")


def _import_all() -> None:
    package = importlib.import_module("generated_rules")
    for info in pkgutil.walk_packages(package.__path__, "generated_rules."):
        importlib.import_module(info.name)


def _seconds(act: Callable[[], object]) -> float:
    """Seconds of the processor, so that nothing else on the machine counts."""
    began = time.process_time()
    act()
    return time.process_time() - began


if __name__ == "__main__":
    main()
