"""The drafts of a project's rules: what holds of each model, with its evidence, and the effects that each would cover."""

from __future__ import annotations

import keyword
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.apps import apps
from django.db import DatabaseError, transaction
from django.db.models import Model

from reconcile.audit.drafts.candidates import (
    children_of,
    generic_keys,
    only_some,
    plural_of,
    value_candidates,
)
from reconcile.audit.drafts.scoring import (
    RowOfEach,
    Score,
    best_of,
    one_row_each,
    sample_of,
    score,
    with_numbers,
)
from reconcile.audit.drafts.uniques import Unique, unique_columns
from reconcile.audit.effects import On
from reconcile.audit.listing import Audited, SignalsAudit
from reconcile.audit.places import innermost
from reconcile.db.columns import concrete_model
from reconcile.db.django_compat import is_migrated
from reconcile.errors import first_line

__all__ = ["Draft", "Drafting", "covers_in_code", "draft_rules", "file_name", "import_of", "with_covers"]

HERE = frozenset({On.PRE_SAVE, On.SAVE})
"""What sets columns of the record that is saved."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One rule that could be written. name: of its variable. every, must: the code of both. evidence: sentences for a comment. unsure: what a person has
    to decide. share: of how many records it is true, of 1. covers: the effects that it would stand in for.
    reports: the kind of drift that it only reports until a person has decided. said_by: the rule of the project that says it already.
    """

    model: type[Model]
    name: str
    every: str
    must: str
    imports: frozenset[str]
    evidence: tuple[str, ...]
    unsure: str = ""
    share: float = 1.0
    writes: type[Model] | None = None
    source: type[Model] | None = None
    column: str = ""
    covers: tuple[Audited, ...] = field(default=())
    reports: str = ""
    said_by: str = ""


def file_name(model: type[Model]) -> str:
    """The module in which the rules of the model stand: `orders`; with its app before it where models of two apps would share it."""
    name = _plain_name(model)
    others = {each._meta.app_label for each in apps.get_models() if _plain_name(each) == name}
    return name if len(others) == 1 else f"{model._meta.app_label}_{name}"


def _plain_name(model: type[Model]) -> str:
    name = _identifier(plural_of(model))
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"{model._meta.model_name}_rules"


def _identifier(name: str) -> str:
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


@dataclass(frozen=True, kw_only=True)
class Drafting:
    """The drafts, and the models that could not be read, each with the reason."""

    drafts: Sequence[Draft]
    left_out: Sequence[tuple[type[Model], str]]


def draft_rules(
    models: Iterable[type[Model]], audit: SignalsAudit, using: str, watched: Sequence[Draft] = ()
) -> Drafting:
    """The drafts for the models. A few statements for each candidate, over 5,000 records at most. Writes nothing.

    watched: drafts of what saves were seen to write, which say more of a column than what its values happen to be.
    """
    effects = [each for found in audit.models for each in found.effects if not each.effect.third_party]
    drafts: list[Draft] = []
    left_out = []
    for model in models:
        if model._meta.proxy or not is_migrated(model, using):
            continue
        try:
            # Whoever runs this in a transaction goes on in it.
            with transaction.atomic(using=using):
                found = [*_of_model(model, using)]
        except DatabaseError as error:
            left_out.append((model, first_line(error)))
            continue
        drafts += found
    drafts = [with_covers(each, effects) for each in _merged(drafts, watched)]
    return Drafting(drafts=drafts, left_out=left_out)


def _merged(drafts: Sequence[Draft], watched: Sequence[Draft]) -> Iterator[Draft]:
    """Those that were watched in place of what data say of the same columns; with the evidence of both where they say the same."""
    seen = {(each.model, each.column): each for each in watched}
    said = {(each.model, each.column): each for each in drafts if each.column}
    yield from (each for each in drafts if not each.column or (each.model, each.column) not in seen)
    for place, each in seen.items():
        other = said.get(place)
        is_same = other is not None and (other.every, other.must) == (each.every, each.must)
        yield (
            replace(each, evidence=(each.evidence[0], *other.evidence))
            if other is not None and is_same
            else each
        )


def _of_model(model: type[Model], using: str) -> Iterator[Draft]:
    keys = sample_of(model, using)
    if keys:
        yield from _drafts(model, keys, model._base_manager.using(using).count(), using)


def _drafts(model: type[Model], keys: Sequence[Any], total: int, using: str) -> Iterator[Draft]:
    yield from (_of_value(each, is_sample=len(keys) < total) for each in _values(model, keys, using))
    for child in children_of(model):
        found = one_row_each(model, child, keys, using)
        if found is not None:
            yield _of_row(found, total, len(keys))
    yield from (_of_unique(each) for each in unique_columns(model, using))
    for name in generic_keys(model):
        yield Draft(
            model=model, name=name, every=model.__name__, must=f'HaveSource("{name}")', column=name,
            imports=frozenset({"from reconcile import HaveSource, Rule", import_of(model)}),
            evidence=("Nothing in the database keeps what a generic foreign key refers to.",),
        )  # fmt: skip


def _values(model: type[Model], keys: Sequence[Any], using: str) -> list[Score]:
    """For each column what holds best. An aggregate that doesn't hold for all is tried on those rows alone that are of one kind."""
    scores = [score(each, keys, using) for each in value_candidates(model)]
    doubtful = [each.candidate for each in scores if each.candidate.named and each.share < 1]
    some = (one for each in doubtful for one in only_some(each))
    best = best_of([*scores, *(score(one, keys, using) for one in some)])
    return [with_numbers(each, keys, using) for each in best]


def import_of(model: type[Model]) -> str:
    """The import of the model: from where it says that it stands, or, as of one that a factory made, from its app's models."""
    app = apps.get_app_config(model._meta.app_label)
    places = [model.__module__, *([app.models_module.__name__] if app.models_module else [])]
    found = (each for each in places if getattr(sys.modules.get(each), model.__name__, None) is model)
    return f"from {next(found, model.__module__)} import {model.__name__}"


MOST_NAMED = 5


def _not(keys: Sequence[Any], number: int) -> str:
    """The first of the records for which it isn't true; empty if there are none."""
    more = " …" if number > MOST_NAMED else ""
    return f"; not: {', '.join(map(str, keys[:MOST_NAMED]))}{more}" if number else ""


def _of_value(found: Score, *, is_sample: bool) -> Draft:
    each = found.candidate
    sample = " of a sample" if is_sample else ""
    wrong = found.looked - found.holds
    others = f"{_not(found.others, wrong)} ({100 * wrong / found.looked:.1f} %)" if wrong else ""
    unsure = " ".join(_doubts(found))
    every = (
        f"{each.model.__name__}.objects.exclude({each.unless_null}=None)"
        if each.unless_null
        else each.model.__name__
    )
    with_key = f" with a {each.unless_null}" if each.unless_null else ""
    return Draft(
        model=each.model, name=each.column, every=every, must=each.must, column=each.column, writes=each.model, source=each.child,
        imports=each.imports | {import_of(each.model)}, share=found.holds / found.looked, unsure=unsure, reports="STALE" if unsure else "",
        evidence=(f"{found.holds:,} of {found.looked:,} {plural_of(each.model)}{sample}{with_key} have {each.told}{others}.",),
    )  # fmt: skip


def _doubts(found: Score) -> Iterator[str]:
    """What a person has to decide before the draft may repair: what is written over may be the only copy."""
    each = found.candidate
    if found.share < 0.9:  # noqa: PLR2004
        yield f"It holds for {found.share:.0%} of those with something to compare: bulk paths, or it means something else."
    if each.source:
        yield f"Is it always {each.source}, or what that was when the record was made?"
    if each.many is not None and found.single:
        yield f"No record has two rows of {plural_of(each.many.model)}: their column may as well be made from this one."
    if each.many is not None and found.lacking:
        yield f"Those that differ have no {plural_of(each.many.model)} at all: perhaps these are missing, and the column is right."


def _of_row(found: RowOfEach, total: int, sample: int) -> Draft:
    child, model = found.child, found.model
    link = {
        child.key: 'F("pk")',
        **{name: repr(value).replace("'", '"') for name, value in found.constants.items()},
    }
    told = ", ".join(f'"{name}": {value}' for name, value in link.items())
    values = ", ".join(f'"{name}": F("{own}")' for name, own in found.values.items())
    every = model.__name__
    if found.without is not None:
        name, value = found.without
        every = f"{model.__name__}.objects.exclude({name}={repr(value).replace(chr(39), chr(34))})"
    missing = found.looked - found.holds
    others = _not(found.others, missing)
    but = f" that are not {found.without[0]} = {found.without[1]!r}" if found.without else ""
    of_sample = " of a sample" if sample < total else ""
    share = found.holds / found.looked
    return Draft(
        model=model, name=_identifier(str(child.model._meta.verbose_name)), every=every, writes=child.model,
        must=f'HaveRow({child.model.__name__}, link={{{told}}}{f", values={{{values}}}" if values else ""})',
        imports=frozenset({"from django.db.models import F", "from reconcile import HaveRow, Rule", import_of(model), import_of(child.model)}),
        share=share, unsure="" if share >= 0.9 else f"{missing:,} have none: bulk paths, or not each owes one.", reports="" if share >= 0.9 else "MISSING",  # noqa: PLR2004
        evidence=(f"{found.holds:,} of {found.looked:,} {plural_of(model)}{of_sample}{but} have one {child.model._meta.verbose_name}{others}.",),
    )  # fmt: skip


def _of_unique(found: Unique) -> Draft:
    every = (
        found.model.__name__
        if not found.flag
        else f"{found.model.__name__}.objects.filter({found.flag}=True)"
    )
    columns = ", ".join(f'"{each}"' for each in found.columns)
    return Draft(
        model=found.model, name=found.flag or f"unique_{'_'.join(found.columns)}", every=every, must=f"BeUnique({columns})",
        imports=frozenset({"from reconcile import BeUnique, Rule", import_of(found.model)}), evidence=(found.told,), column=found.flag,
        share=found.share, unsure="" if found.share > 0.99 else "Say which of them stays, and what becomes of the others.",  # noqa: PLR2004
    )  # fmt: skip


def with_covers(draft: Draft, effects: Sequence[Audited]) -> Draft:
    """The draft with the effects that it would stand in for."""
    return replace(draft, covers=tuple(each for each in effects if _covers(draft, each)))


def _covers(draft: Draft, each: Audited) -> bool:
    """Whether the effect does what the rule asks for: sets the column, or writes the rows for what happens to the records they come from."""
    model, doing = each.effect.model, each.doing
    if doing is None or draft.writes is None:
        return False
    if draft.column and draft.source is None:
        return model is draft.model and each.effect.on in HERE and draft.column in doing.sets
    written = {one.model for one in doing.writes if not one.through}
    comes_from = draft.source if draft.column else draft.model
    is_delete = each.effect.on in {On.PRE_DELETE, On.POST_DELETE}
    mentions = not draft.column or bool({draft.column, f"{draft.column}_id"} & doing.names)
    is_about = model is comes_from and draft.writes._meta.label in written
    return is_about and mentions and (bool(draft.column) or not is_delete)


def covers_in_code(draft: Draft) -> tuple[list[str], set[str]]:
    """The functions of `covers=` as code, and the imports that they need; none that can't be imported."""
    names, imports = [], set()
    for each in draft.covers:
        if each.effect.on in {On.SAVE, On.DELETE}:
            names.append(
                f"{concrete_model(each.effect.model).__name__}.{'save' if each.effect.on is On.SAVE else 'delete'}"
            )
            imports.add(import_of(each.effect.model))
            continue
        function = innermost(each.effect.function)
        if function is not None and "." not in function.__qualname__:
            package, _, module = function.__module__.rpartition(".")
            names.append(f"{module}.{function.__qualname__}")
            imports.add(f"from {package} import {module}" if package else f"import {module}")
    return [*dict.fromkeys(names)], imports
