"""`reconcile init`: the first rules of a project, drafted from its schema and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from reconcile.cli.group import reconcile, set_up_django
from reconcile.cli.options import (
    database_option,
    known_database,
    output_options,
    require_package,
    write_report,
    write_text,
)
from reconcile.conf import rule_packages
from reconcile.errors import UsageError
from reconcile.rules.registry import rules_if_any

if TYPE_CHECKING:
    from django.db.models import Model

    from reconcile.audit.drafts.drafting import Draft
    from reconcile.audit.drafts.watched.drafting import Watching
    from reconcile.audit.effects import Effect
    from reconcile.audit.listing import SignalsAudit

SETTINGS = 'RECONCILE = {"RULES": ["%s"]}'


@reconcile.command("init")
@click.argument("model", required=False)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("rules"),
    show_default=True,
    metavar="FOLDER",
    help="The package for the rules.",
)
@click.option(
    "--watch",
    "is_watched",
    is_flag=True,
    help="Save up to 20 records of MODEL, roll that back, and draft what the saves are seen to write.",
)
@database_option
@output_options
@click.pass_context
def init_command(
    ctx: click.Context,
    model: str | None,
    folder: Path,
    using: str,
    form: str,
    output: Path | None,
    *,
    is_watched: bool,
) -> None:
    """Draft rules from the schema and the data, and write them into a package; a file that is there is never touched.

    MODEL is `app.Model`, or the model's name if no other has it; without it, all models of the project's own apps. Reads a sample of 5,000 records of
    each, then checks what it has drafted. Writes nothing to the database: what --watch saves is rolled back, and nothing gets out of it.
    """
    from reconcile.audit.drafts.drafting import draft_rules
    from reconcile.audit.drafts.said import with_rules
    from reconcile.audit.drafts.trying import try_drafts
    from reconcile.audit.effects import audited_models
    from reconcile.audit.listing import audit_signals, named_model
    from reconcile.detect.checking import evaluation_errors
    from reconcile.reports import drafts as reports

    if is_watched and model is None:
        raise UsageError("--watch saves records of one model: reconcile init MODEL --watch")
    if is_watched:
        require_package("sqlglot", "init --watch", "audit")
    set_up_django()
    using = known_database(using)
    models = audited_models() if model is None else [named_model(model)]
    rules = rules_if_any()
    audit = audit_signals(rules, follow=True, with_names=True)
    with evaluation_errors(using):
        watching = _watch(models[0], using) if is_watched else None
        drafting = draft_rules(models, audit, using, watching.drafts if watching is not None else ())
        tried, failed = try_drafts(with_rules(drafting.drafts, rules.values()), using)
    sure = [each.draft for each in tried]
    written, kept = _write(folder, [each for each in sure if not each.said_by])
    report = reports.DraftReport(
        tried=tried,
        written=written,
        kept=kept,
        uncovered=_uncovered(audit, sure, model),
        settings=_settings(folder),
        left_out=[*drafting.left_out, *failed],
        looked_at=len(models),
        watching=watching,
    )
    write_report(
        ctx, form, output, text=lambda: reports.as_text(report), json=lambda: reports.as_json(report)
    )


def _watch(model: type[Model], using: str) -> Watching:
    from reconcile.audit.drafts.watched.drafting import watch_saves

    return watch_saves(model, using)


def _write(folder: Path, drafts: Sequence[Draft]) -> tuple[list[str], dict[str, str]]:
    """Write the modules that aren't there. Returns their paths, and the texts of those that are there by their paths."""
    from reconcile.audit.drafts.writing import as_modules

    if not drafts:
        return [], {}
    texts = {folder / f"{name}.py": text for name, text in as_modules(drafts, _bypasses()).items()}
    init = folder / "__init__.py"
    written, kept = [], {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in {**({} if init.exists() else {init: ""}), **texts}.items():
            if path.exists() or path.is_symlink():
                kept[str(path)] = text
            else:
                write_text(path, text, "The drafts")
                written.append(str(path))
    except OSError as error:
        raise UsageError(f"{str(folder)!r} can't be written: {error.strerror or error}.") from error
    return written, kept


def _bypasses() -> Mapping[str, int]:
    """By the name of an effect, how many calls in the source skip it."""
    from collections import Counter

    from reconcile.audit.bypasses import Level
    from reconcile.audit.searching import search_bypasses

    found = search_bypasses({}, {}).bypasses
    return Counter(skip.effect.name for each in found for skip in each.skips if skip.state is Level.UNCOVERED)


def _uncovered(audit: SignalsAudit, drafts: Sequence[Draft], model: str | None) -> list[Effect]:
    """The project's effects that no draft covers, and no rule; of one model alone, if drafts were asked for that one."""
    from reconcile.audit.listing import named_model

    covered = {one.effect.name for each in drafts for one in each.covers}
    wanted = None if model is None else named_model(model)
    effects = (each for found in audit.models if wanted in {None, found.model} for each in found.effects)
    own = [each.effect for each in effects if not each.effect.third_party and not each.rules]
    return [each for each in own if each.name not in covered]


def _settings(folder: Path) -> str:
    name = ".".join(folder.parts)
    return "" if name in rule_packages() or folder.is_absolute() else SETTINGS % name
