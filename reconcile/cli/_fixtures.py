"""`--fixtures`, `--fast` and `--as-written` of `reconcile check`: the check in a throw-away database that holds the fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich_click as click
from django.utils import timezone

from reconcile.checking import RuleCheck
from reconcile.cli._options import known_database
from reconcile.errors import UsageError
from reconcile.fixtures import load, origins, throwaway_database
from reconcile.registry import valid_rules

__all__ = ["Fixtures", "fixture_options", "holding", "taken_from"]

Command = Callable[..., Any]
Origins = Callable[[Sequence[RuleCheck]], Mapping[tuple[str, str], str]]


@dataclass(frozen=True, kw_only=True)
class Fixtures:
    """Which files to load, in this order; none where the configured database is to be checked.

    fast: on SQLite. as_written: without calling a receiver.
    """

    files: Sequence[Path] = ()
    fast: bool = False
    as_written: bool = False


def fixture_options(command: Command) -> Command:
    """`--fixtures`, `--fast` and `--as-written`."""
    command = click.option(
        "--fast",
        is_flag=True,
        help="With --fixtures: SQLite in memory, tables made from the models, without migrations.",
    )(command)
    command = click.option(
        "--as-written",
        is_flag=True,
        help="With --fixtures: call no receiver while loading; the rows are what the files say.",
    )(command)
    return click.option(
        "--fixtures",
        "fixtures",
        multiple=True,
        metavar="FILE...",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Check these files in a throw-away database; the configured one is not touched.",
    )(command)


def taken_from(
    names: tuple[str, ...], files: tuple[Path, ...], *, fast: bool, as_written: bool
) -> tuple[tuple[str, ...], Fixtures]:
    """The rules and the files that were asked for: with `--fixtures`, an argument that is a file and no rule is one more.

    So `--fixtures shop/*.json` does what it says. Raises UsageError for a file given twice, and for a flag that goes with
    files alone.
    """
    if not files:
        if fast or as_written:
            flag = "--fast" if fast else "--as-written"
            raise UsageError(f"{flag} goes with --fixtures FILE: the configured database is what it is.")
        return names, Fixtures()
    rules = valid_rules()
    more = [name for name in names if name not in rules and Path(name).is_file()]
    every = [*files, *map(Path, more)]
    seen: set[Path] = set()
    for file in every:
        if file.resolve() in seen:
            raise UsageError(f"Fixture {str(file)!r} is given twice. Leave one out.")
        seen.add(file.resolve())
    named = tuple(name for name in names if name not in more)
    return named, Fixtures(files=every, fast=fast, as_written=as_written)


@contextmanager
def holding(fixtures: Fixtures, using: str) -> Iterator[Origins]:
    """While the block runs, `using` is a throw-away database that holds the fixtures; yields what says where rows come from.

    Without fixtures it is the configured database, and nothing is said. Raises FixtureError and what
    `throwaway_database` raises.
    """
    if not fixtures.files:
        yield lambda _: {}
        return
    with throwaway_database(known_database(using), fast=fixtures.fast):
        places = load(fixtures.files, using=using, as_written=fixtures.as_written)
        yield lambda checks: origins(checks, places, using=using, now=timezone.now())
