"""`manage.py reconcile`: the same group as the `reconcile` command."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from reconcile.cli import reconcile

__all__ = ["Command"]


class Command(BaseCommand):
    """A command that hands its arguments to the click group. The group itself reports rules that can't be used."""

    help = "Find the records whose side effects are missing, and repair them."
    requires_system_checks = ()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run the group from the shell, and exit with its code."""
        reconcile.main(args=argv[2:], prog_name="manage.py reconcile")

    def add_arguments(self, parser: CommandParser) -> None:
        """Accept any arguments, as in `call_command("reconcile", "check", "--format", "json")`."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the group from Python. Raises CommandError with the group's exit code if it is not 0."""
        code = reconcile.main(args=list(options["arguments"]), prog_name="reconcile", standalone_mode=False)
        if code:
            raise CommandError(f"reconcile exited with {code}", returncode=code)
