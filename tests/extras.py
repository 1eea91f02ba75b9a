"""`python -m tests.extras`: the wheel with each extra, in an environment that has nothing else, does what the extra is for.

It takes the standard library alone, and what pip installs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "reconcile"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}
RECONCILE = {"RULES": ["own_rules"]}
USE_TZ = True
"""
RULE = """
from django.contrib.auth.models import User
from django.db.models import Q
from reconcile import Rule, Satisfy

mailed = Rule(every=User, must=Satisfy(~Q(email="")))
"""
ADD_A_USER = "django-admin shell -c 'from django.contrib.auth.models import User; User.objects.create(email=\"a@b.c\")'"

CHECKS = {
    "": [
        ("reconcile --help", 0, ""),
        ("django-admin migrate --verbosity 0", 0, ""),
        ("django-admin reconcile rules", 0, ""),
        ("reconcile check", 1, ""),
        (ADD_A_USER, 0, ""),
        ("reconcile check", 0, ""),
        ("reconcile repair --apply", 0, ""),
        ("reconcile check --format junit", 2, "django-reconcile[ci]"),
        ("reconcile baseline update", 2, "django-reconcile[ci]"),
        ("python -c 'import django; django.setup(); import reconcile.tasks'", 0, ""),
    ],
    "ci": [
        ("django-admin migrate --verbosity 0", 0, ""),
        (ADD_A_USER, 0, ""),
        ("reconcile check --format junit=report.xml", 0, ""),
        ("reconcile baseline update", 0, ""),
    ],
    "audit": [
        ("django-admin migrate --verbosity 0", 0, ""),
        ("reconcile signals bypasses", 0, ""),
        ("python -c 'from reconcile.audit.raw_sql import can_parse; assert can_parse()'", 0, ""),
    ],
    "postgresql": [("python -c 'import django.db.backends.postgresql.base'", 0, "")],
    "mysql": [("python -c 'import django.db.backends.mysql.base'", 0, "")],
    "redis": [
        (
            "python -c 'from kombu import Connection; Connection(\"redis://127.0.0.1:6379/0\").transport'",
            0,
            "",
        )
    ],
}
"""For each extra, none being the package alone: commands, their exit codes, and what they say on standard error."""


def main() -> None:
    """Try them all, two at a time; exits with 1 where a command didn't do what it should."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        place = Path(folder)
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT)]
        subprocess.run(pip, check=True)
        (wheel,) = place.glob("*.whl")
        faults = [fault for found in pool.map(partial(try_extra, place, wheel), CHECKS) for fault in found]
    print("\n".join(faults) or f"Tried: the package alone, and {', '.join(filter(None, CHECKS))}.")
    sys.exit(bool(faults))


def try_extra(place: Path, wheel: Path, extra: str) -> list[str]:
    """What went wrong with the extra in an environment of its own."""
    project = place / (extra or "alone")
    bin_folder = project / "venv" / "bin"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(project / "venv")], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(bin_folder / "python"), "--disable-pip-version-check"]
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    subprocess.run([*pip, "install", "--quiet", "--no-compile", wanted], check=True)
    (project / "own_settings.py").write_text(SETTINGS)
    (project / "own_rules").mkdir()
    (project / "own_rules" / "__init__.py").touch()
    (project / "own_rules" / "users.py").write_text(RULE)
    environment = {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "DJANGO_SETTINGS_MODULE": "own_settings",
    }
    return [fault for check in CHECKS[extra] for fault in tried(project, environment, extra, *check)]


def tried(
    project: Path, environment: dict[str, str], extra: str, command: str, code: int, said: str
) -> list[str]:
    """One command's fault, or nothing."""
    done = subprocess.run(
        command, shell=True, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == code and said in done.stderr:
        return []
    return [f"[{extra}] {command}: exit code {done.returncode}, not {code}\n{done.stdout}{done.stderr}"]


if __name__ == "__main__":
    main()
