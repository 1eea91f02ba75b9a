"""What saves of existing rows were seen to set off, beside what the source says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from rich.text import Text

from reconcile.audit.effects import OF_SAVES
from reconcile.audit.listing import Audited, ModelSignals, SignalsAudit
from reconcile.audit.ran import EffectRun, ModelRun, SeenWrite
from reconcile.reports.facts import plural
from reconcile.reports.findings import plain

__all__ = ["effect_run_as_dict", "effect_run_lines", "has_faults", "model_run_as_dict", "model_run_lines", "sum_of_run"]  # fmt: skip


def effect_run_lines(found: ModelSignals, each: Audited) -> Iterator[Text]:
    """Whether the effect ran, and which of its writes were seen; nothing if nothing was run."""
    if found.run is None or found.run.why or not found.run.looked_at:
        return
    if each.effect.on not in OF_SAVES:
        yield Text("not run: only saves are", style="dim")
        return
    run = found.run.effects[each.effect.name, each.effect.on]
    yield Text(f"ran for {run.rows:,} of {plural(found.run.rows + len(found.run.faults), 'row')}{_written(run)}", style="green" if run.rows else "yellow")  # fmt: skip
    if unseen := _not_seen(each, run):
        yield Text(f"not seen to write {', '.join(unseen)}", style="yellow")
    if unexpected := _unexpected(each, run):
        yield Text(f"the source doesn't show that it writes {', '.join(unexpected)}", style="yellow")


def _written(run: EffectRun) -> str:
    models = dict.fromkeys(each.model for each in sorted(run.writes, key=lambda each: len(each.through)))
    return f", and was seen to write {', '.join(map(plain, models))}" if models else ""


def _not_seen(each: Audited, run: EffectRun) -> list[str]:
    """The models that the source says it writes, itself or by what follows, and that no statement wrote."""
    seen = {one.model for one in run.writes}
    return [*dict.fromkeys(one.model for one in _said(each) if one.model not in seen)]


def _unexpected(each: Audited, run: EffectRun) -> list[str]:
    said = {one.model for one in _said(each)}
    is_read = each.doing is not None and each.doing.is_read
    return (
        [*dict.fromkeys(one.model for one in sorted(run.writes) if one.model not in said)] if is_read else []
    )


def _said(each: Audited) -> Iterable[Any]:
    return each.doing.writes if each.doing else ()


def model_run_lines(found: ModelSignals) -> Iterator[Text]:
    """How many rows were saved, what was kept from the world, and what went wrong."""
    run = found.run
    if run is None:
        return
    if run.why:
        yield Text(f"No row was saved: {plain(run.why)}", style="red")
        return
    if not run.looked_at:
        yield Text("It has no rows to save.", style="yellow")
        return
    yield Text(f"Saved and rolled back: {plural(run.rows, 'row')} of {run.looked_at:,} looked at{_kept_in(found)}.", style="dim")  # fmt: skip
    if changed := [name for name, times in run.changed.items() if times]:
        yield Text(f"The save changed {', '.join(changed)}", style="dim")
    if run.others:
        yield Text(f"Written by none of the effects above: {', '.join({one.model: 0 for one in run.others})}", style="yellow")  # fmt: skip
    for what, times in run.outside.refused.items():
        yield Text(f"Refused {plural(times, 'time')}: {plain(what)}", style="yellow")
    for key, why in run.faults.items():
        yield Text(f"{plain(str(key))} could not be saved: {plain(why)}", style="red")


def _kept_in(found: ModelSignals) -> str:
    run: Any = found.run
    kept = [
        *([plural(run.on_commit, "callback") + " of COMMIT"] if run.on_commit else []),
        *([plural(len(run.outside.mails), "mail")] if run.outside.mails else []),
        *([f"{times:,} {name}" for name, times in run.outside.task_names.items()]),
    ]
    return f"; dropped {', '.join(kept)}" if kept else ""


def sum_of_run(audit: SignalsAudit) -> Iterator[Text]:
    """How much of what the source says was seen; nothing if nothing was to be run."""
    if not audit.is_run:
        return
    runs = [each.run for each in audit.models if each.run is not None]
    pairs = [pair for each in audit.models if each.run is not None for pair in _run_effects(each, each.run)]
    said = sum(len({one.model for one in _said(each)}) for each, _ in pairs)
    unseen = sum(len(_not_seen(each, run)) for each, run in pairs)
    unexpected = sum(len(_unexpected(each, run)) for each, run in pairs)
    idle = sum(not run.rows for _, run in pairs)
    without = sum(not each.rows for each in runs)
    faults = sum(len(each.faults) for each in runs)
    refused = sum(sum(each.outside.refused.values()) for each in runs)
    rows = plural(sum(each.rows for each in runs), "row")
    others = sum(
        not each.effect.third_party and each.effect.on not in OF_SAVES
        for found in audit.models
        for each in found.effects
    )
    yield Text.assemble(
        (f"Run: {rows} of {plural(len(runs) - without, 'model')} saved and rolled back; ", ""),
        (f"{said - unseen:,} of {plural(said, 'write')} seen, {unexpected:,} that the source doesn't show; ", "yellow" if unseen or unexpected else "green"),
        (f"{plural(idle, 'effect')} did not run.", "yellow" if idle else "green"),
        (f" Of deletes and many-to-many, {plural(others, 'effect')} {'is' if others == 1 else 'are'} never run." if others else "", ""),
        (f" Of {plural(without, 'model')} no row was saved." if without else "", "yellow"),
        (f" {plural(refused, 'act')} refused." if refused else "", "yellow"),
        (f" {plural(faults, 'row')} could not be saved." if faults else "", "red"),
    )  # fmt: skip


def _run_effects(found: ModelSignals, run: ModelRun) -> Iterator[tuple[Audited, EffectRun]]:
    """The project's own effects that a save runs, with what each was seen to do."""
    for each in found.effects:
        if each.effect.on in OF_SAVES and not each.effect.third_party:
            yield each, run.effects[each.effect.name, each.effect.on]


def has_faults(audit: SignalsAudit) -> bool:
    """Whether a row could not be saved, or the rows of a model could not be read."""
    return any(each.run and (each.run.faults or each.run.is_unreadable) for each in audit.models)


def model_run_as_dict(found: ModelSignals) -> dict[str, Any] | None:
    """The same for machines; None if nothing was run."""
    run = found.run
    if run is None:
        return None
    return {
        "rows": run.rows,
        "looked_at": run.looked_at,
        "why": run.why or None,
        "changed": {name: times for name, times in run.changed.items() if times},
        "others": _writes(run.others),
        "on_commit": run.on_commit,
        "mails": len(run.outside.mails),
        "tasks": dict(run.outside.task_names),
        "refused": dict(run.outside.refused),
        "faults": [{"key": str(key), "why": why} for key, why in run.faults.items()],
    }


def effect_run_as_dict(found: ModelSignals, each: Audited) -> dict[str, Any] | None:
    """The same of one effect; None if it wasn't run."""
    if found.run is None or each.effect.on not in OF_SAVES:
        return None
    run = found.run.effects[each.effect.name, each.effect.on]
    return {
        "rows": run.rows,
        "writes": _writes(run.writes),
        "not_seen": _not_seen(each, run),
        "unexpected": _unexpected(each, run),
    }


def _writes(found: Counter[SeenWrite]) -> list[dict[str, Any]]:
    return [
        {"model": each.model, "how": each.how, "through": list(each.through), "times": found[each]}
        for each in sorted(found)
    ]
