"""`reconcile signals`: what a save sets off, and which rule covers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from reconcile.cli.group import Subject, exit_code, reconcile, set_up_django
from reconcile.cli.options import (
    Percent,
    complete_rules,
    database_option,
    fail_on_option,
    formats_and_output,
    known_database,
    output_options,
    require_package,
    write_report,
    write_text,
)
from reconcile.errors import UnknownNameError, UsageError
from reconcile.rules.registry import project_rules, rules_if_any, select

if TYPE_CHECKING:
    from reconcile.audit.accepted import Changed
    from reconcile.audit.known import Identity, Known
    from reconcile.audit.listing import SignalsAudit
    from reconcile.audit.searching import Search
    from reconcile.reports.bypasses import BypassReport
    from reconcile.rules.rule import Rule


def _cache_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--no-cache`."""
    return click.option(
        "--no-cache",
        "use_cache",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Read all of the source anew, and keep nothing in .reconcile_cache.",
    )(command)


@reconcile.group("signals", cls=Subject, without="list", named="list")
def signals_group() -> None:
    """List what writing a record of each model sets off, and which rule covers it; with a MODEL, of that one."""


@signals_group.command("list")
@click.argument("model", required=False)
@click.option(
    "--third-party", is_flag=True, help="Show the effects of Django and of installed packages, too."
)
@click.option(
    "--run", "is_run", is_flag=True, help="Save existing rows, roll that back, and tell what it did."
)
@database_option
@_cache_option
@formats_and_output("text", "json", "mermaid")
@click.pass_context
def list_command(
    ctx: click.Context,
    model: str | None,
    using: str,
    form: str,
    output: Path | None,
    *,
    third_party: bool,
    is_run: bool,
    use_cache: bool,
) -> None:
    """List what writing a record sets off: receivers, overridden methods, fields with a pre_save of their own, deletes of others.

    MODEL is `app.Model`, or the model's name if no other has it. Asks no database, unless told to --run: it then saves up to 20 rows of each model as
    they are, each in a transaction that is rolled back. No message, mail, connection or file gets out of that, and nothing is deleted.
    """
    from reconcile.audit.listing import audit_signals, named_model
    from reconcile.conf import exempt_effects
    from reconcile.reports import signals as reports, signals_run

    set_up_django()
    models = None if model is None else [named_model(model)]
    audit = audit_signals(rules_if_any(), models, follow=True, use_cache=use_cache, third_party=third_party)
    if is_run:
        audit = _run(audit, known_database(using))
    write_report(
        ctx,
        form,
        output,
        text=lambda: reports.as_text(audit, exempt_effects(), third_party=third_party or model is not None),
        json=lambda: reports.as_json(audit),
        mermaid=lambda: reports.as_mermaid(audit, third_party=third_party),
    )
    ctx.exit(exit_code(error=signals_run.has_faults(audit)))


def _run(audit: SignalsAudit, using: str) -> SignalsAudit:
    from reconcile.audit.running import run_saves
    from reconcile.detect.checking import evaluation_errors

    require_package("sqlglot", "signals --run", "audit")
    with evaluation_errors(using):
        return run_saves(audit, using)


ACCEPTED = Path("reconcile-covered.toml")


def _accepted_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option `--accepted`."""
    return click.option(
        "--accepted", type=click.Path(dir_okay=False, path_type=Path), default=ACCEPTED, show_default=True, metavar="FILE",
        help="What the rules were accepted to cover.",
    )(command)  # fmt: skip


@signals_group.group("coverage", cls=Subject, without="report", named="report")
def coverage_group() -> None:
    """Say which effects no rule covers."""


@coverage_group.command("report")
@click.option(
    "--third-party", is_flag=True, help="Count the effects of Django and of installed packages, too."
)
@click.option(
    "--fail-under",
    type=Percent(),
    metavar="PERCENT",
    help="Exit with 1 if rules cover less of the effects.",
)
@fail_on_option("severity of what is not covered")
@_accepted_option
@_cache_option
@formats_and_output("text", "json")
@click.pass_context
def coverage_command(
    ctx: click.Context,
    fail_under: float | None,
    fail_on: str,
    accepted: Path,
    form: str,
    output: Path | None,
    *,
    third_party: bool,
    use_cache: bool,
) -> None:
    """Say which effects no rule covers. One that decides what is written is an error, any other a warning. Asks no database."""
    from reconcile.audit.coverage import coverage_of
    from reconcile.audit.listing import audit_signals
    from reconcile.conf import exempt_effects
    from reconcile.reports import signals as reports

    set_up_django()
    rules = rules_if_any()
    changed = _changed(rules, accepted)
    coverage = coverage_of(
        audit_signals(rules, use_cache=use_cache, third_party=third_party),
        rules,
        exempt_effects(),
        third_party=third_party,
        changed=changed,
    )
    write_report(
        ctx,
        form,
        output,
        text=lambda: reports.coverage_as_text(coverage),
        json=lambda: reports.coverage_as_json(coverage),
    )
    fails = coverage.status == "error" or (coverage.status == "warn" and fail_on == "warn")
    ctx.exit(exit_code(drift=fails or (fail_under is not None and coverage.percent < fail_under)))


def _changed(rules: Mapping[str, Rule], accepted: Path) -> Sequence[Changed]:
    """What has changed of what the rules were accepted to cover; nothing if there is no file."""
    from reconcile.audit.accepted import changes_since, fingerprints, read_accepted

    if not accepted.exists():
        if accepted != ACCEPTED:
            raise UsageError(
                f"There is no file {str(accepted)!r}. Write it with: reconcile signals coverage accept RULE --accepted {accepted}"
            )
        return []
    before = read_accepted(accepted)
    for name in before:
        if name not in rules:
            raise UnknownNameError(
                "rule",
                name,
                rules,
                instead=f" Take it out of {accepted}, or accept the rule that took its place.",
            )
    return changes_since(before, fingerprints({name: rules[name] for name in before}))


@coverage_group.command("accept")
@click.argument("names", nargs=-1, required=True, metavar="RULE...", shell_complete=complete_rules)
@_accepted_option
@output_options
@click.pass_context
def accept_command(
    ctx: click.Context, names: tuple[str, ...], accepted: Path, form: str, output: Path | None
) -> None:
    """Note that somebody has compared these rules with what they cover, as it is now. The report then fails where it changes."""
    from reconcile.audit.accepted import as_toml, fingerprints, read_accepted
    from reconcile.reports import signals as reports

    require_package("tomlkit", "signals coverage accept")
    set_up_django()
    rules = select(project_rules(), names)
    found = fingerprints(rules)
    for name in rules:
        if name not in found:
            raise UsageError(
                f"Rule {name!r} covers nothing. Name the functions that it stands in for in covers=."
            )
    before = read_accepted(accepted) if accepted.exists() else {}
    write_text(accepted, as_toml({**before, **found}), "What the rules cover")
    write_report(
        ctx,
        form,
        output,
        text=lambda: reports.accepted_as_text(found, str(accepted)),
        json=lambda: reports.accepted_as_json(found),
    )


_LEVELS = ("uncovered", "covered", "exempt", "by-hand", "low", "third-party", "unknown")


class _Levels(click.Choice[str]):
    """The levels as the command line has them, or as the JSON report has: `by-hand`, `by_hand`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The level. Fails for any other word."""
        return super().convert(str(value).replace("_", "-"), param, ctx)


@signals_group.command("bypasses")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
@click.option(
    "--show",
    "shown",
    multiple=True,
    type=_Levels([*_LEVELS, "all"]),
    help="List these, too. Repeat it for several.",
)
@click.option("--tests", is_flag=True, help="Look through tests, too.")
@click.option(
    "--migrations", is_flag=True, help="Look through migrations, too, whose models set nothing off."
)
@click.option(
    "--diff",
    "revision",
    metavar="REV",
    help="Tell only what has come since the branch left this revision of git.",
)
@click.option(
    "--baseline",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Pass over what this file has as known.",
)
@click.option(
    "--seen",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Tell what tests ran, as pytest --reconcile-bypasses FILE recorded.",
)
@_cache_option
@click.option("--update-baseline", is_flag=True, help="Write what is uncovered now into the baseline.")
@formats_and_output("text", "json", "github", "sarif", "junit")
@click.pass_context
def bypasses_command(
    ctx: click.Context,
    paths: tuple[Path, ...],
    shown: tuple[str, ...],
    revision: str | None,
    baseline: Path | None,
    seen: Path | None,
    form: str,
    output: Path | None,
    *,
    tests: bool,
    migrations: bool,
    update_baseline: bool,
    use_cache: bool,
) -> None:
    """Find the calls in the source that write records past their receivers, save() or delete(), and say which rule covers that.

    Without a PATH all of the project's own source. Runs nothing of it, and asks no database. Exits with 1 for an effect that no rule covers.
    """
    from reconcile.audit.bypasses import Level
    from reconcile.audit.recorded import read_recording
    from reconcile.audit.searching import Search
    from reconcile.reports import bypasses as reports, bypasses_ci

    if update_baseline and baseline is None:
        raise UsageError("--update-baseline needs --baseline FILE, the file to write.")
    if update_baseline and revision is not None:
        raise UsageError(
            "--update-baseline and --diff don't go together: a baseline has all that is uncovered."
        )
    if form == "junit":
        require_package("junitparser", "--format junit")
    set_up_django()
    search = Search(
        paths=paths,
        tests=tests,
        migrations=migrations,
        seen=read_recording(seen) if seen else None,
        use_cache=use_cache,
    )
    levels = (
        frozenset(Level)
        if "all" in shown
        else frozenset({Level.UNCOVERED, *(Level(each.replace("-", "_")) for each in shown)})
    )
    report = replace(_find_bypasses(search, revision, baseline, update=update_baseline), shown=levels)
    write_report(
        ctx,
        form,
        output,
        text=lambda: reports.as_text(report),
        json=lambda: reports.as_json(report),
        github=lambda: bypasses_ci.as_github(report),
        sarif=lambda: bypasses_ci.as_sarif(report),
        junit=lambda: bypasses_ci.as_junit(report),
    )
    ctx.exit(exit_code(error=report.status == "error", drift=report.status != "clean"))


def _find_bypasses(
    search: Search, revision: str | None, baseline: Path | None, *, update: bool
) -> BypassReport:
    from reconcile.audit.known import known_of, only_new, read_known, without_known
    from reconcile.audit.revisions import texts_at
    from reconcile.audit.searching import search_bypasses
    from reconcile.conf import exempt_effects
    from reconcile.reports.bypasses import BypassReport

    rules, exempt = rules_if_any(), exempt_effects()
    texts = texts_at(revision) if revision is not None else None
    audit = search_bypasses(rules, exempt, search)
    report = BypassReport(
        audit=audit, bypasses=audit.bypasses, since=revision or "", baseline=str(baseline or "")
    )
    if texts is not None:
        before = search_bypasses(rules, exempt, replace(search, seen=None), texts)
        report = replace(report, bypasses=only_new(audit.bypasses, before.bypasses))
    if baseline is None:
        return report
    known = {} if update and not baseline.exists() else read_known(baseline)
    if update:
        known = known_of(report.bypasses, known, audit.looked_through)
        _write_known(baseline, known)
    found, mended = without_known(report.bypasses, known, audit.looked_through)
    return replace(report, bypasses=found, mended=() if texts is not None else mended)


def _write_known(baseline: Path, known: Mapping[Identity, Known]) -> None:
    from reconcile.audit.known import as_toml

    require_package("tomlkit", "--update-baseline")
    write_text(baseline, as_toml(known), "The baseline")
