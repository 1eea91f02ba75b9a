"""`manage.py reconcile`: the same group as the `reconcile` command."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from reconcile.cli import reconcile

__all__ = ["Command"]


class Command(BaseCommand):
    """Hands its arguments to the click group, which reports rules that can't be used by itself."""

    help = "Find the records whose side effects are missing, and repair them."
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run from the shell; exits with the group's code."""
        reconcile.main(args=argv[2:], prog_name="manage.py reconcile")

    def add_arguments(self, parser: CommandParser) -> None:
        """Take everything, for `call_command("reconcile", "check", "--format", "json")`."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, **options: Any) -> None:
        """Run from Python. Raises CommandError with the group's exit code where it isn't 0."""
        code = reconcile.main(args=list(options["arguments"]), prog_name="reconcile", standalone_mode=False)
        if code:
            raise CommandError(f"reconcile exited with {code}", returncode=code)
