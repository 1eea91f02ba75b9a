"""Options that several commands share, the report files, and the progress bar."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.util import find_spec
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from django.db import connections
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.segment import Segment

from reconcile.cli.group import set_up_django, standard_output
from reconcile.core.scopes import Keys
from reconcile.core.whole_files import write_file
from reconcile.db.columns import is_text
from reconcile.detect.checking import RuleCheck, check, evaluation_errors
from reconcile.detect.inspecting import locate_keys
from reconcile.errors import ReconcileError, UnknownNameError, UsageError
from reconcile.reports.facts import key_words, printable
from reconcile.rules.invalid import InvalidRule
from reconcile.rules.registry import project_rules, select
from reconcile.rules.rule import Rule
from reconcile.rules.thresholds import is_limit

if TYPE_CHECKING:
    from reconcile.runs import Progress as Advance

__all__ = [
    "DEFAULT_SAMPLES",
    "WIDTH",
    "Limit",
    "Percent",
    "Samples",
    "check_all",
    "choice_words",
    "chosen_rules",
    "complete_rules",
    "database_option",
    "fail_on_option",
    "formats_and_output",
    "known_database",
    "output_options",
    "progress_bar",
    "require_package",
    "rule_arguments",
    "stderr_console",
    "write_report",
    "write_text",
]

Command = Callable[..., Any]

DEFAULT_SAMPLES = 5

WIDTH = 140
"""The width, in columns, of a text report that does not go to a terminal."""


def require_package(package: str, asked: str, extra: str = "ci") -> None:
    """Raise UsageError if `package` of the extra is not installed. Call it before anything is checked."""
    if find_spec(package) is None:
        raise UsageError(
            f"{asked} needs the package {package!r}, and it is not installed. Install the extra {extra!r}: "
            f"pip install 'django-reconcile[{extra}]'"
        )


class Samples(click.ParamType):  # type: ignore[type-arg]
    """The type of `--samples`: `N`, `keys` or `off`."""

    name = "N|keys|off"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of keys that the report shows of each kind of drift. Fails for any other value."""
        named = {"keys": DEFAULT_SAMPLES, "off": 0}
        if isinstance(value, int):
            return value
        if value in named:
            return named[value]
        if not re.fullmatch(r"\d{1,6}", value):
            self.fail(f"{value!r} is none of a number, 'keys' and 'off'.", param, ctx)
        return int(value)


class Limit(click.ParamType):  # type: ignore[type-arg]
    """The type of a cap: a count of rows, or a percent of the checked records."""

    name = "N|N%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The count as a number, or the percent as text. Fails for any other value."""
        limit = int(value) if re.fullmatch(r"[0-9]+", str(value)) else value
        if limit is None or not is_limit(limit):
            self.fail(f"{value!r} is neither a count such as 100 nor a percent such as 0.5%.", param, ctx)
        return limit


class Percent(click.FloatRange):
    """The type of a share: a number of 0 to 100. `nan` is none, and nothing is below it."""

    def __init__(self) -> None:
        super().__init__(0, 100)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The share. Fails for what isn't one."""
        share: float = super().convert(value, param, ctx)
        if isnan(share):
            self.fail(f"{value!r} is no number of 0 to 100.", param, ctx)
        return share


def _keep_excluded(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:  # noqa: ARG001
    ctx.meta[_EXCLUDED] = value


_EXCLUDED = "reconcile.excluded"


def _excluded() -> tuple[str, ...]:
    """What `--exclude` of this command names."""
    ctx = click.get_current_context(silent=True)
    kept: Mapping[str, Any] = ctx.meta if ctx else {}
    excluded: tuple[str, ...] = kept.get(_EXCLUDED, ())
    return excluded


def rule_arguments(command: Command) -> Command:
    """Give the command the arguments `[RULE…]` and the options `--select` and `--exclude`, which `chosen_rules` reads itself."""
    command = click.option(
        "--exclude",
        multiple=True,
        metavar="RULE|KIND:VALUE",
        expose_value=False,
        callback=_keep_excluded,
        shell_complete=complete_rules,
        help="Leave these rules out, by name or as for --select.",
    )(command)
    command = click.option(
        "--select",
        "selectors",
        multiple=True,
        metavar="KIND:VALUE",
        help="Rules by tag:…, owner:…, model:app.Model or app:….",
    )(command)
    return click.argument("names", nargs=-1, metavar="[RULE]...", shell_complete=complete_rules)(command)


def complete_rules(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """The names of rules that begin so, for a shell; none where the project can't be set up, since nobody reads an error there."""
    try:
        set_up_django()
        return [name for name in project_rules() if name.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - whatever the project raises
        return []


def complete_databases(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """The aliases of databases that begin so."""
    try:
        set_up_django()
        return [alias for alias in connections if alias.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - whatever the project raises
        return []


def database_option(command: Command) -> Command:
    """Give the command the option `--database`."""
    return click.option(
        "--database",
        "using",
        shell_complete=complete_databases,
        default="default",
        show_default=True,
        metavar="ALIAS",
        help="Database to work on.",
    )(command)


def fail_on_option(what: str) -> Callable[[Command], Command]:
    """The option `--fail-on`. `what` says, in its help, whose severity counts."""
    return click.option(
        "--fail-on",
        type=click.Choice(["warn", "error"]),
        default="error",
        show_default=True,
        help=f"Least {what} that makes the exit code 1.",
    )


class ReportFile(click.Path):
    """The type of `--output`: a file that a report can be written to. It is tested before anything is run."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path. Fails if its folder does not exist."""
        path = Path(str(super().convert(value, param, ctx)))
        if not str(value) or not path.parent.is_dir():
            self.fail(f"{str(value)!r} is not in a folder that exists.", param, ctx)
        return path


def formats_and_output(*forms: str) -> Callable[[Command], Command]:
    """The options `--format`, with these formats to choose from, of which the first is the usual one, and `--output`."""

    def add_options(command: Command) -> Command:
        command = click.option(
            "--output", type=ReportFile(), metavar="FILE", help="Write the report to this file."
        )(command)
        return click.option(
            "--format",
            "form",
            type=click.Choice(forms),
            default=forms[0],
            show_default=True,
            help="Report format.",
        )(command)

    return add_options


output_options = formats_and_output("text", "json")


allow_empty_option = click.option(
    "--allow-empty", is_flag=True, help="Don't fail if there was no record to check. Else that exits with 1."
)


def chosen_rules(
    names: tuple[str, ...], selectors: tuple[str, ...], using: str | None = None
) -> Mapping[str, Rule]:
    """The rules of the project that the names and selectors choose.

    With `using`, only rules about that database. Raises UnknownNameError if nothing has the name of a rule, a selector or a
    database; UsageError if no rule is left, or if a named rule is not about the database.
    """
    known = known_database(using) if using else None
    return select(project_rules(), names, selectors, exclude=_excluded(), using=known)


def keys_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command the option `--keys`."""
    return click.option(
        "--keys",
        "key_texts",
        multiple=True,
        metavar="KEY,KEY…",
        help="With one RULE: of its records these alone, by primary key. Repeat it for keys with a comma in them.",
    )(command)


def chosen_keys(texts: Sequence[str], rules: Mapping[str, Rule], using: str) -> Mapping[str, Sequence[Any]]:
    """For the one rule, the keys of its records that `--keys` names; empty without any.

    Raises UsageError unless one rule is chosen, and for keys that no record has.
    """
    if not texts:
        return {}
    if len(rules) != 1:
        raise UsageError(f"--keys names records of one rule, and {len(rules)} are chosen. Name the RULE.")
    (rule,) = rules.values()
    if isinstance(rule, InvalidRule):
        return {}
    listed = texts if len(texts) > 1 else texts[0].split(",")
    if not is_text(rule.model._meta.pk):
        listed = [each.strip() for each in listed]
    with evaluation_errors(using):
        return {rule.name: locate_keys(rule.model, listed, using=using)}


def choice_words(
    names: Sequence[str], selectors: Sequence[str], using: str, keys: Sequence[str] = ()
) -> list[str]:
    """The words of a command that choose these rules, and records, on this database. The default database is left out."""
    words = [*names, *key_words(keys)]
    for selector in selectors:
        words += ["--select", selector]
    for each in _excluded():
        words += ["--exclude", each]
    if using != "default":
        words += ["--database", using]
    return words


def known_database(using: str) -> str:
    """The alias `using` itself. Raises UnknownNameError if the settings have no such database."""
    if using not in connections:
        raise UnknownNameError(
            "database", using, connections, instead=f" The settings have {', '.join(connections)}."
        )
    return using


def stderr_console() -> Console:
    """A console that writes to standard error, for progress and remarks."""
    return Console(stderr=True)


def write_report(
    ctx: click.Context,
    form: str,
    output: Path | None,
    *,
    text: Callable[[], RenderableType] = str,
    **machine: Callable[[], str],
) -> None:
    """Write the report in the chosen format, to the file `output` or to standard output.

    `text` makes the report for people, where the command has one; `machine` has one function for each other format, by its name. A file is written
    as a whole or not at all. Raises UsageError if the file can't be written, ReconcileError if standard output can't.
    """

    def write(target: Any) -> None:
        if form in machine:
            report = machine[form]()
            # A format with one line for each finding is empty if there is none.
            target.write(f"{report}\n" if report else "")
        else:
            width = None if target.isatty() or "COLUMNS" in os.environ else WIDTH
            console = _Console(file=target, highlight=False, width=width)
            console.print(_Printable(text()), crop=False)
        target.flush()

    if output is None:
        _write_to_stdout(standard_output(ctx), write)
        return
    try:
        write_file(output, write)
    except OSError as error:
        raise UsageError(
            f"The report can't be written to {str(output)!r}: {error.strerror or error}. {_WHAT_STANDS}"
        ) from error


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command's exit code: rich would exit with 1, which means drift."""
        raise BrokenPipeError


class _Printable:
    """A report of which no reason, name or value reaches a terminal as a control sequence."""

    def __init__(self, report: RenderableType) -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """The segments of the report, with escapes for what can't be printed. No line ends in blanks, which a diff or an editor would mark."""
        for line in Segment.split_lines(console.render(self._report, options)):
            yield from _without_blanks_at_the_end(
                [
                    Segment(text if control else printable(text), style, control)
                    for text, style, control in line
                ]
            )
            yield Segment.line()


def _without_blanks_at_the_end(line: list[Segment]) -> list[Segment]:
    while line and not line[-1].control and not line[-1].text.rstrip(" "):
        line.pop()
    if line and not line[-1].control:
        text, style, control = line.pop()
        line.append(Segment(text.rstrip(" "), style, control))
    return line


_WHAT_STANDS = "What a repair or an undo has written stands; see: reconcile runs"


def _write_to_stdout(target: Any, write: Callable[[Any], None]) -> None:
    """Write the report to standard output. A reader that stops early is left to click, which exits quietly.

    Raises ReconcileError if the report can't be written.
    """
    if target is None:
        raise _stdout_error("it is closed")
    try:
        write(target)
    except BrokenPipeError:
        raise
    except OSError as error:
        with suppress(OSError, AttributeError):
            # The rest of the buffer would fail again when Python exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), target.fileno())
        raise _stdout_error(error.strerror or str(error)) from error


def _stdout_error(why: str) -> ReconcileError:
    return ReconcileError(f"The report can't be written to standard output: {why}. {_WHAT_STANDS}")


def write_text(output: Path, text: str, what: str) -> None:
    """As `write_file`, of a text. what: what people call it. Raises UsageError if the file can't be written."""
    try:
        write_file(output, lambda target: target.write(text))
    except OSError as error:
        raise UsageError(f"{what} can't be written to {str(output)!r}: {error.strerror or error}.") from error


@contextmanager
def progress_bar(what: str, *, total: int | None) -> Iterator[Advance]:
    """Show a progress bar during the block. Yields a function of the rule at hand and the number of steps just done.

    Nothing is shown if standard error is no terminal, or if `--verbose` logs the steps there.
    """
    console = stderr_console()
    context = click.get_current_context(silent=True)
    logging_steps = context is not None and context.find_root().params.get("verbose")
    if not console.is_terminal or logging_steps:
        yield lambda *_: None
        return
    columns = (
        TextColumn(f"{what} {{task.fields[rule]}}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total, rule="")
        yield lambda rule, steps: progress.update(task, advance=steps, rule=rule)


def check_all(
    rules: Mapping[str, Rule],
    *,
    using: str,
    now: datetime,
    samples: int,
    only: Mapping[str, Sequence[Any]] | None = None,
    keep: int = 0,
) -> list[RuleCheck]:
    """Check one rule after the other, at the moment `now`. Keep at most `samples` keys of each kind of drift.

    only: for some of the rules the keys of the records that are looked at. keep: drifted keys of each kind to keep for what comes after.

    An error of one rule is in its result, and the others are checked all the same.
    """
    checks = []
    with progress_bar("checking", total=len(rules)) as advance:
        for name, rule in rules.items():
            advance(name, 0)
            keys = None if only is None or name not in only else Keys(only[name])
            checks.append(check(rule, using=using, now=now, samples=samples, only=keys, keep=keep))
            advance(name, 1)
    return checks
