"""The group of all commands: it sets up Django and logging, and it chooses every exit code, of outcomes and of errors."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from contextlib import redirect_stdout
from typing import IO, Any

import django
import rich_click as click
import structlog
from click.exceptions import Exit
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from reconcile.cli.project import settings_of_project
from reconcile.errors import (
    EvaluationError,
    LeaseHeldError,
    LeaseLostError,
    ReconcileError,
    StoppedError,
    UsageError,
)
from reconcile.reports.facts import printable

__all__ = ["Subject", "exit_code", "reconcile", "set_up_django", "standard_output"]

EXIT_DRIFT, EXIT_USAGE, EXIT_ERROR, EXIT_INCOMPLETE = 1, 2, 3, 4
EXIT_LEASED, EXIT_INTERRUPTED, EXIT_NOT_READ = 75, 130, 141

_CODES_OF_ERRORS: tuple[tuple[type[ReconcileError], int], ...] = (
    (UsageError, EXIT_USAGE),
    (EvaluationError, EXIT_ERROR),
    (LeaseHeldError, EXIT_LEASED),
    (LeaseLostError, EXIT_LEASED),
    (StoppedError, EXIT_INCOMPLETE),
    (ReconcileError, EXIT_ERROR),
)


def exit_code(
    *, error: bool = False, leased: bool = False, incomplete: bool = False, drift: bool = False
) -> int:
    """The exit code of an outcome. If several are true, the gravest decides; 0 if none is true.

    error: a rule could not be evaluated. leased: another run has leased a rule. incomplete: a repair or an undo has left
    something. drift: there is drift at or above the severity that the command fails on.
    """
    by_gravity = (
        (error, EXIT_ERROR),
        (leased, EXIT_LEASED),
        (incomplete, EXIT_INCOMPLETE),
        (drift, EXIT_DRIFT),
    )
    return next((code for is_true, code in by_gravity if is_true), 0)


class Group(click.RichGroup):
    """A group whose commands may raise the package's errors. It prints them to standard error, and exits with their code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and note whether they ask for help alone, which needs no Django."""
        ctx.meta["help"] = bool({"-h", "--help"} & set(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Everything that it prints, except its report, goes to standard error."""
        ctx.meta["standard_output"] = sys.stdout
        # Whoever asks for help reads it, or pipes it into a pager.
        elsewhere = sys.stdout if ctx.meta["help"] else sys.stderr
        try:
            with redirect_stdout(elsewhere):
                return super().invoke(ctx)
        except ReconcileError as error:
            code = next(code for kind, code in _CODES_OF_ERRORS if isinstance(error, kind))
            click.echo(f"Error: {printable(str(error))}", err=True)
            ctx.exit(code)
        except (click.ClickException, Exit, click.Abort):
            raise
        except BrokenPipeError:
            # What is left in the buffer would fail again when Python exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(EXIT_NOT_READ)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except Exception:  # noqa: BLE001 - Python would exit with 1, which means drift
            click.echo(traceback.format_exc(), err=True)
            ctx.exit(EXIT_ERROR)


class Subject(click.RichGroup):
    """A group about one thing: `reconcile runs` lists, and `reconcile runs RUN` shows one, without a word for it."""

    def __init__(self, *args: Any, without: str, named: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.without, self.named = without, named

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command before the arguments that leave it out."""
        first = args[0] if args else ""
        # While a shell completes, what is written isn't all.
        if first not in self.commands and first not in {"-h", "--help"} and not ctx.resilient_parsing:
            args = [self.without if not first or first.startswith("-") else self.named, *args]
        return super().parse_args(ctx, args)


_GROUPS: list[Any] = [
    {"name": "Look and mend", "commands": ["check", "repair", "undo", "explain"]},
    {"name": "Rules", "commands": ["rules", "init", "baseline"]},
    {"name": "The night", "commands": ["nightly", "runs"]},
    {"name": "Signals", "commands": ["signals"]},
]
"""The verbs as the help shows them; one that isn't built isn't there."""


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.rich_config(help_config=click.RichHelpConfiguration(command_groups={"reconcile": _GROUPS}))
@click.option(
    "--settings", metavar="MODULE", help="Django settings module, instead of DJANGO_SETTINGS_MODULE."
)
@click.option("-v", "--verbose", is_flag=True, help="Log each step to standard error.")
@click.version_option(package_name="django-reconcile", prog_name="reconcile")
@click.pass_context
def reconcile(ctx: click.Context, settings: str | None, *, verbose: bool) -> None:
    """Find the records whose side effects are missing, and repair them with set-based SQL.

    Exit codes: 0 clean or warnings only, 1 drift, 2 usage or invalid rules, 3 a rule could not be evaluated,
    4 repair incomplete or stopped by a cap, 75 another run holds the rule, 130 interrupted.
    """
    if settings:
        os.environ["DJANGO_SETTINGS_MODULE"] = settings
    _configure_logging(ctx, verbose=verbose)
    if not ctx.meta["help"]:
        set_up_django()


def standard_output(ctx: click.Context) -> IO[str]:
    """The real standard output. Only reports are written to it."""
    output: IO[str] = ctx.meta["standard_output"]
    return output


def set_up_django() -> None:
    """Set up Django, unless manage.py has done so. Raises UsageError if the settings can't be used."""
    if apps.ready:
        return
    name = os.environ.get("DJANGO_SETTINGS_MODULE")
    if not name and not settings.configured:
        name = settings_of_project()
    if not name and not settings.configured:
        raise UsageError(
            "DJANGO_SETTINGS_MODULE is not set, and no manage.py in this folder or above names one. Set it, or give --settings "
            "myproject.settings."
        )
    try:
        django.setup()
    except ImproperlyConfigured as error:
        raise UsageError(f"Settings {name!r} can't be used: {error}") from error
    except Exception as error:
        raise UsageError(f"Settings {name!r} can't be read: {type(error).__name__}: {error}") from error
    if not apps.is_installed("reconcile"):
        raise UsageError(
            f"Settings {name!r} don't have 'reconcile' in INSTALLED_APPS. Add it, and run migrate."
        )


def _configure_logging(ctx: click.Context, *, verbose: bool) -> None:
    """Send log events to standard error until the command ends, unless the project has configured structlog itself."""
    if structlog.is_configured():
        return
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if verbose else logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    ctx.call_on_close(structlog.reset_defaults)
