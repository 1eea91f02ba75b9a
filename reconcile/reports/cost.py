"""What signals cost, for people in a terminal and on a page, and for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.template import Context
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reconcile.audit.cost.classes import CostClass
from reconcile.audit.cost.costing import DELETED, ActCost, CostAudit, ModelCost, Together
from reconcile.audit.cost.counting import Counted
from reconcile.audit.effects import Effect
from reconcile.core.declaration import shown_path
from reconcile.reports.facts import plural
from reconcile.reports.findings import plain
from reconcile.reports.html import template
from reconcile.reports.layout import indented, table

__all__ = ["as_html", "as_json", "as_text", "statements_for"]

VERSION = 1
"""The version of the JSON."""
SIZES = (1, 500, 100_000)
"""Numbers of records of which the statements are told."""
ONE_IN = 100
"""One in so many records goes by itself, in the line between."""
BAR = 24
"""Columns of the longest bar."""


def statements_for(counted: Counted, records: int) -> Mapping[str, int]:
    """The statements for so many records, by way: one save each, a few by themselves and the others as a set, or all as a set.

    own: of a save without effects. As a set they are about as many as for one record, whatever the number.
    """
    each = counted.own + counted.k
    alone = records // ONE_IN
    return {
        "one by one": records * each,
        f"one in {ONE_IN} by itself": each + alone * each if alone else each,
        "as a set": each,
    }


# For people.


def as_text(audit: CostAudit) -> RenderableType:
    """A part for each model, the dearest first, then those that cost nothing or could not be counted, then the sum."""
    shown = [each for each in audit.models if _is_shown(each)]
    scale = _scale(shown)
    parts = [line for each in shown for line in (*_model(each, scale), "")]
    return Group("", *parts, *_others(audit), *_faults(audit), _sum(audit))


def _is_shown(model: ModelCost) -> bool:
    """Whether its effects cost anything, or it could not be counted."""
    return model.faults > 0 or any(
        each.k or each.callbacks for act in model.acts.values() if (each := act.dearest) is not None
    )


Scale = Mapping[bool, int]


def _scale(shown: Sequence[ModelCost]) -> Scale:
    """The K of the longest bar: one delete with all that goes along would leave nothing to be seen of the saves, so that it has its own."""
    found = {True: 1, False: 1}
    for name, act in ((name, act) for each in shown for name, act in each.acts.items()):
        found[name == DELETED] = max(found[name == DELETED], *(one.most for one in act.classes), 1)
    return found


def _model(model: ModelCost, scale: Scale) -> Iterator[RenderableType]:
    yield Text(model.model._meta.label, style="bold")
    yield indented(_bars(model, scale))
    for act in model.acts.values():
        for record, why in act.faults.items():
            yield indented(Text(f"{plain(record)}: not counted. {plain(why)}", style="red"))
    if (counted := model.dearest) is not None and counted.k:
        yield indented(_lines(model.dearest_act or "", counted))
    yield from (indented(Text(each, style="dim")) for each in _remarks(model))


def _bars(model: ModelCost, scale: Scale) -> Table:
    """`created      8 ████████ status = 'placed'  3 records`, a line for each class; what doesn't fit goes on beneath itself."""
    bars = Table.grid(padding=(0, 1, 0, 0))
    bars.add_column(no_wrap=True, min_width=11)
    bars.add_column(no_wrap=True, min_width=7, justify="right")
    bars.add_column(no_wrap=True)
    bars.add_column(overflow="fold")
    for name, act in model.acts.items():
        for place, one in enumerate(act.classes):
            width = _width(one, scale[name == DELETED], BAR)
            bars.add_row(
                "" if place else name,
                Text(_range(one), style="bold"),
                Text("█" * width, style=_tone(one.most)),
                Text.assemble(plain(one.said), "  " if one.said else "", (plural(one.rows, "record"), "dim")),
            )
    return bars


def _width(one: CostClass, most: int, longest: int) -> int:
    """How long a bar is; whatever costs something has one."""
    return max(round(longest * one.most / most), 1) if one.most > 0 else 0


def _range(one: CostClass) -> str:
    return f"{one.most:,}" if one.least == one.most else f"{one.least:,}–{one.most:,}"


DEAR = 5
"""Statements beyond its own from which on a save is marked as dear."""


def _tone(k: int) -> str:
    return "red" if k >= DEAR else "yellow" if k else "green"


def _lines(act: str, counted: Counted) -> RenderableType:
    """The statements for 1, 500 and 100,000 of the dearest records, by way."""
    rows = table(_heading(act), *(f"{each:,}" for each in SIZES), numbers=[f"{each:,}" for each in SIZES])
    found = [statements_for(counted, each) for each in SIZES]
    for way in found[0]:
        about = "" if way == "one by one" else "about "
        rows.add_row(way, *(f"{about}{each[way]:,}" for each in found))
    return rows


def _heading(act: str) -> str:
    return f"statements when {act}"


def _remarks(model: ModelCost) -> Iterator[str]:
    """Who causes the statements, what comes on top, how long it takes, and what deletes cost for the sake of receivers."""
    if (counted := model.dearest) is not None:
        by_effect = _by_effect(counted)
        if by_effect:
            yield "by " + ", ".join(f"{_short(name)} {number:,}" for name, number in by_effect.most_common())
        on_top = [plural(counted.savepoints, "statement") + " of savepoints"] if counted.savepoints else []
        on_top += [plural(counted.callbacks, "callback") + " after COMMIT"] if counted.callbacks else []
        if on_top:
            yield f"and {' and '.join(on_top)}, which {'is' if counted.savepoints + counted.callbacks == 1 else 'are'} not among them"
    if model.seconds is not None:
        yield f"a save takes {1000 * model.seconds:.1f} ms here, 500 take about {500 * model.seconds:.1f} s, without COMMIT"
    yield from _of_deletes(model)


def _of_deletes(model: ModelCost) -> Iterator[str]:
    if model.slows_deletes:
        named = ", ".join(map(_named, model.slows_deletes))
        yield f"a queryset's delete() would be one statement, and reads its rows first for {named}"
    elif model.referring:
        yield f"a queryset's delete() reads its rows in any case: those of {', '.join(model.referring)} refer to them"
    if (together := model.together) is not None and together.statements != together.without:
        yield f"delete() of {plural(together.rows, 'row')} by one queryset needs {plural(together.statements, 'statement')}, in silence {together.without:,}"
    if protected := sum(act.protected for act in model.acts.values()):
        yield f"{plural(protected, 'record')} can't be deleted, for the sake of others that refer to {'it' if protected == 1 else 'them'}"


def _by_effect(counted: Counted) -> Counter[str]:
    found: Counter[str] = Counter()
    for (name, _), number in counted.by_effect.items():
        found[name] += number
    return found


def _short(name: str) -> str:
    return plain(name.rpartition(".")[2]) or "the save itself"


def _named(effect: Effect) -> str:
    place = f" ({shown_path(effect.place.file)}:{effect.place.line})" if effect.place else ""
    return f"{_short(effect.name)}{place}"


def _others(audit: CostAudit) -> Iterator[RenderableType]:
    free = [each for each in audit.models if each.is_counted and not _is_shown(each)]
    if free:
        named = ", ".join(each.model._meta.label for each in free)
        yield Text(f"Nothing beyond the save's own: {named}.", style="green")
    for each in audit.models:
        if not each.is_counted and not each.faults:
            why = each.why or "none of its acts was counted"
            yield Text(f"Not counted: {each.model._meta.label}, {plain(why)}.", style="yellow")


def _faults(audit: CostAudit) -> Iterator[RenderableType]:
    for what, why in audit.faults.items():
        yield Text(f"{plain(what)} failed: {plain(why)}", style="red")
    for what, times in audit.outside.refused.items():
        yield Text(f"Refused {plural(times, 'time')}: {plain(what)}", style="yellow")


def _sum(audit: CostAudit) -> Text:
    counted = [each for each in audit.models if each.is_counted]
    records = sum(len(act.samples) for each in counted for act in each.acts.values())
    acts = Counter(name for each in counted for name, act in each.acts.items() for _ in act.samples)
    named = ", ".join(f"{number:,} {name}" for name, number in acts.items())
    text = Text(
        f"{plural(records, 'record')} of {plural(len(counted), 'model')} counted and rolled back{f': {named}' if named else ''}."
    )
    if not audit.deletes:
        text.append(" Deletes were not: only on a throw-away database (--fixtures) or a copy (--on-copy).")
    if len(counted) < len(audit.models):
        left = len(audit.models) - len(counted)
        text.append(f" {plural(left, 'model')} not counted.", style="yellow")
    if faults := len(audit.faults) + sum(each.faults for each in audit.models):
        text.append(f" {plural(faults, 'act')} failed.", style="red")
    return text


# On a page.


def as_html(audit: CostAudit) -> str:
    """One page that loads nothing from the network."""
    shown = [each for each in audit.models if _is_shown(each)]
    scale = _scale(shown)
    context = {
        "status": {"error": "error", "empty": "empty"}.get(audit.status, "clean"),
        "sum": _sum(audit).plain,
        "models": [_part(each, scale) for each in shown],
        "others": [line.plain for line in (*_others(audit), *_faults(audit)) if isinstance(line, Text)],
        "sizes": [f"{each:,}" for each in SIZES],
    }
    return template("cost.html").render(Context(context)).strip()


def _part(model: ModelCost, scale: Scale) -> Mapping[str, Any]:
    counted = model.dearest
    found = [statements_for(counted, each) for each in SIZES] if counted is not None and counted.k else []
    return {
        "name": model.model._meta.label,
        "status": {"red": "fail", "yellow": "warn", "green": "pass"}[_tone(model.k)],
        "k": f"{model.k:,}",
        "acts": [
            {"name": name, "classes": [_as_bar(one, scale[name == DELETED]) for one in act.classes], "faults": [f"{plain(record)}: {plain(why)}" for record, why in act.faults.items()]}
            for name, act in model.acts.items()
        ],
        "lines": [(way, [f"{'' if way == 'one by one' else 'about '}{each[way]:,}" for each in found]) for way in (found[0] if found else ())],
        "heading": _heading(model.dearest_act or ""),
        "remarks": [*_remarks(model)],
    }  # fmt: skip


def _as_bar(one: CostClass, most: int) -> Mapping[str, Any]:
    tone = {"red": "fail", "yellow": "warn", "green": "pass"}[_tone(one.most)]
    return {
        "range": _range(one),
        "width": _width(one, most, 100),
        "said": plain(one.said),
        "rows": plural(one.rows, "record"),
        "tone": tone,
    }


# For machines.


def as_json(audit: CostAudit) -> str:
    """The object that docs/schemas/cost-1.json describes."""
    return json.dumps(
        {
            "version": VERSION,
            "status": audit.status,
            "deletes": audit.deletes,
            "models": [_as_plain(each) for each in audit.models],
            "faults": dict(audit.faults),
            "refused": dict(audit.outside.refused),
        },
        indent=2,
        ensure_ascii=False,
    )


def _as_plain(model: ModelCost) -> dict[str, Any]:
    counted = model.dearest
    return {
        "model": model.model._meta.label,
        "k": counted.k if counted is not None else None,
        "dearest": model.dearest_act,
        "acts": {name: _act_as_plain(act) for name, act in model.acts.items()},
        "statements": {str(each): statements_for(counted, each) for each in SIZES}
        if counted is not None
        else {},
        "slows_deletes": [each.name for each in model.slows_deletes],
        "referring": [*model.referring],
        "together": _together_as_plain(model.together),
        "why": model.why,
    }


def _act_as_plain(act: ActCost) -> dict[str, Any]:
    counted = act.dearest
    return {
        "records": len(act.samples),
        "classes": [
            {"has": each.said, "least": each.least, "most": each.most, "records": each.rows}
            for each in act.classes
        ],
        "own": counted.own if counted is not None else None,
        "savepoints": counted.savepoints if counted is not None else None,
        "callbacks": counted.callbacks if counted is not None else None,
        "seconds": act.seconds,
        "by_effect": _statements_by_effect(counted) if counted is not None else [],
        "protected": act.protected,
        "faults": dict(act.faults),
    }


def _together_as_plain(together: Together | None) -> dict[str, int] | None:
    if together is None:
        return None
    return {"records": together.rows, "statements": together.statements, "without": together.without}


def _statements_by_effect(counted: Counted) -> Sequence[dict[str, Any]]:
    return [
        {"effect": name, "statement": statement, "times": times}
        for (name, statement), times in counted.by_effect.items()
    ]
