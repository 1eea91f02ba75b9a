"""What writing a record sets off, model by model, for people, for machines, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from reconcile.audit.accepted import Accepted
from reconcile.audit.coverage import Coverage, EffectCoverage, State
from reconcile.audit.listing import Audited, ModelSignals, SignalsAudit
from reconcile.core.declaration import shown_path
from reconcile.reports.facts import plural
from reconcile.reports.findings import plain
from reconcile.reports.graph import escaped
from reconcile.reports.layout import indented
from reconcile.reports.signals_run import (
    effect_run_as_dict,
    effect_run_lines,
    model_run_as_dict,
    model_run_lines,
    sum_of_run,
)

__all__ = [
    "accepted_as_json",
    "accepted_as_text",
    "as_json",
    "as_mermaid",
    "as_text",
    "coverage_as_json",
    "coverage_as_text",
]

VERSION = 1
"""The version of the JSON."""


def as_text(audit: SignalsAudit, exempt: Mapping[str, str], *, third_party: bool) -> RenderableType:
    """A paragraph for each model that sets anything off, then the dead receivers, then the sum."""
    said = [each for each in audit.models if not _shown(each, third_party=third_party).is_quiet]
    parts: list[RenderableType] = [""]
    for each in said:
        parts += [*_model(_shown(each, third_party=third_party), exempt), ""]
    parts += _dead(audit)
    return Group(*parts, *_sum(audit, exempt, third_party=third_party))


def _shown(found: ModelSignals, *, third_party: bool) -> ModelSignals:
    """The model without the effects of others' code, unless they are asked for."""
    if third_party:
        return found
    return replace(
        found,
        effects=[each for each in found.effects if not each.effect.third_party],
        deaf=[each for each in found.deaf if not each.third_party],
    )


def _model(found: ModelSignals, exempt: Mapping[str, str]) -> Iterator[RenderableType]:
    kind = " (proxy)" if found.model._meta.proxy else ""
    yield Text(f"{found.model._meta.label}{kind}", style="bold")
    for each in found.effects:
        yield indented(Text.assemble((f"{each.effect.on:<12} ", "cyan"), plain(each.effect.name)))
        yield indented(Text(_facts(each), style="dim"), 15)
        yield from (indented(Text(plain(said)), 15) for said in _doing(each))
        yield from (indented(said, 15) for said in effect_run_lines(found, each))
        yield indented(_covered(each, exempt), 15)
    for cascade in found.cascades:
        does = f"a delete {cascade.does} {cascade.model._meta.label} by its {cascade.column}"
        yield indented(Text.assemble(("delete       ", "cyan"), does))
        yield indented(Text(f"past {', '.join(cascade.past)}", style="dim"), 15)
    yield from (indented(said) for said in model_run_lines(found))
    if found.deaf:
        names = ", ".join(dict.fromkeys(each.name.rpartition(".")[2] for each in found.deaf))
        yield indented(Text(f"Saving it calls none of: {names}", style="yellow"))


def _facts(each: Audited) -> str:
    place = str(each.effect.place) if each.effect.place else "no source"
    facts = [place]
    if each.handler.honours_raw is not None:
        facts.append("minds raw" if each.handler.honours_raw else "runs for fixtures, too")
    if each.handler.is_thin:
        facts.append(f"calls {each.handler.calls}() alone")
    facts += ["async"] * each.effect.is_async + ["of every model"] * each.effect.of_all
    return " · ".join(map(plain, facts))


def _doing(each: Audited) -> Iterator[str]:
    """What the effect sets, writes and calls, then what follows from that, a line each."""
    if each.doing is None:
        return
    if each.doing.sets:
        yield f"sets {', '.join(each.doing.sets)}"
    own = dict.fromkeys(one.model for one in each.doing.writes if not one.through)
    if own:
        yield f"writes {', '.join(own)}"
    if each.doing.calls:
        yield f"calls {', '.join(each.doing.calls)}"
    further = {
        one.model: one.through for one in reversed(each.doing.writes) if one.through and one.model not in own
    }
    for model, through in reversed(further.items()):
        yield f"and so {model}, by {' and '.join(name.rpartition('.')[2] for name in through)}"


def _covered(each: Audited, exempt: Mapping[str, str]) -> Text:
    if each.rules:
        return Text(f"covered by {', '.join(each.rules)}", style="green")
    if each.effect.third_party:
        return Text("third party", style="dim")
    if each.effect.name in exempt:
        return Text(f"exempt: {plain(exempt[each.effect.name])}", style="dim")
    return Text("no rule covers it", style="yellow")


def _dead(audit: SignalsAudit) -> Iterator[RenderableType]:
    for each in audit.dead:
        yield Text.assemble(("dead  ", "red"), plain(each.name), (f"  {each.place}", "dim"))
        yield indented(Text(f"Nothing connects it. In ready() of {shown_path(each.config)}: {each.ready}"), 6)
    if audit.dead:
        yield ""


def _sum(audit: SignalsAudit, exempt: Mapping[str, str], *, third_party: bool) -> Iterator[RenderableType]:
    effects = [each for found in audit.models for each in found.effects]
    own = [each for each in effects if not each.effect.third_party]
    spared = sum(not each.rules and each.effect.name in exempt for each in own)
    uncovered = sum(not each.rules for each in own) - spared
    text = Text(f"{plural(len(own), 'effect')} of {plural(len(audit.models), 'model')}: ")
    text.append(
        f"{len(own) - uncovered - spared:,} covered by rules, {uncovered:,} by none{f', {spared:,} exempt' if spared else ''}.",
        style="yellow" if uncovered else "green",
    )
    if audit.dead:
        text.append(
            f" {plural(len(audit.dead), 'receiver')} {'is' if len(audit.dead) == 1 else 'are'} dead.",
            style="red",
        )
    others = len(effects) - len(own)
    if others:
        text.append(
            f" {plural(others, 'effect')} of third parties{'' if third_party else ': --third-party shows them'}."
        )
    yield text
    yield from sum_of_run(audit)
    for each in audit.unreadable:
        yield Text(f"{shown_path(each.path)} can't be read: {plain(each.why)}", style="red")


def as_json(audit: SignalsAudit) -> str:
    """The same for machines, third parties' effects too: `third_party` tells them apart."""
    return json.dumps(
        {
            "version": VERSION,
            "models": [_model_as_dict(each) for each in audit.models],
            "dead": [
                {
                    "effect": each.name,
                    "path": each.place.path,
                    "line": each.place.line,
                    "ready": each.ready,
                }
                for each in audit.dead
            ],
            "unreadable": [{"path": shown_path(each.path), "why": each.why} for each in audit.unreadable],
        },
        indent=2,
    )


def _model_as_dict(found: ModelSignals) -> dict[str, Any]:
    return {
        "model": found.model._meta.label,
        "proxy": bool(found.model._meta.proxy),
        "effects": [_effect_as_dict(found, each) for each in found.effects],
        "cascades": [
            {
                "model": each.model._meta.label,
                "column": each.column,
                "does": each.does,
                "past": list(each.past),
            }
            for each in found.cascades
        ],
        "deaf": sorted({each.name for each in found.deaf}),
        "run": model_run_as_dict(found),
    }


def _effect_as_dict(found: ModelSignals, each: Audited) -> dict[str, Any]:
    place = each.effect.place
    return {
        "effect": each.effect.name,
        "on": str(each.effect.on),
        "path": place.path if place else None,
        "line": place.line if place else None,
        "raw": each.handler.honours_raw,
        "async": each.effect.is_async,
        "weak": each.effect.weak,
        "thin": each.handler.is_thin,
        "third_party": each.effect.third_party,
        "sets": list(each.doing.sets) if each.doing else [],
        "writes": [
            {"model": one.model, "how": one.how, "through": list(one.through)}
            for one in (each.doing.writes if each.doing else ())
        ],
        "calls": list(each.doing.calls) if each.doing else [],
        "rules": list(each.rules),
        "run": effect_run_as_dict(found, each),
    }


def as_mermaid(audit: SignalsAudit, *, third_party: bool) -> str:
    """A flowchart: each model, what it sets off, and the rules that cover that; what none covers is dashed."""
    lines, number = ["flowchart LR"], 0
    rules: dict[str, str] = {}
    for at, model in enumerate(_shown(each, third_party=third_party) for each in audit.models):
        if not model.effects:
            continue
        lines.append(f'    m{at}["{escaped(model.model._meta.label)}"]')
        for each in model.effects:
            number += 1
            name = each.effect.name.rpartition(".")[2]
            lines.append(f'    m{at} -->|"{escaped(str(each.effect.on))}"| e{number}(["{escaped(name)}"])')
            lines += _covering(number, each.rules, rules)
    lines += [f'    {rule}[["{escaped(name)}"]]' for name, rule in rules.items()]
    return "\n".join(lines)


def _covering(number: int, names: Sequence[str], rules: dict[str, str]) -> Iterator[str]:
    for name in names:
        yield f"    e{number} --- {rules.setdefault(name, f'r{len(rules)}')}"
    if not names:
        yield f"    style e{number} stroke-dasharray: 4 4"


_STATES = {State.UNCOVERED: "yellow", State.EXEMPT: "dim", State.COVERED: "green"}


def coverage_as_text(coverage: Coverage) -> RenderableType:
    """A line or two for each effect that no rule covers, then what rules and settings name wrongly, then the sum."""
    parts: list[RenderableType] = [""]
    for each in coverage.effects:
        if each.state is not State.COVERED:
            parts += [*_uncovered(each), ""]
    parts += [Text(fault, style="red") for fault in (*coverage.faults, *map(str, coverage.changed))]
    return Group(*parts, _coverage_sum(coverage))


def _uncovered(each: EffectCoverage) -> Iterator[RenderableType]:
    style = "red" if each.is_error else _STATES[each.state]
    label = each.effect.model._meta.label
    yield Text.assemble((f"{each.state:<10} ", style), (plain(each.effect.name), "bold"))
    place = f" · {each.effect.place}" if each.effect.place else ""
    yield indented(Text(f"{each.effect.on} of {label}{place}", style="dim"), 11)
    if each.reason:
        yield indented(Text(plain(each.reason)), 11)
    elif each.is_error:
        yield indented(
            Text("It decides what is written: where it is skipped, wrong data stands in the record."), 11
        )


def _coverage_sum(coverage: Coverage) -> Text:
    exempt = len(coverage.effects) - coverage.total
    colours = {"clean": "green", "warn": "yellow", "error": "red"}
    text = Text(style=colours[coverage.status])
    covered = f"{coverage.covered:,} of {plural(coverage.total, 'effect')} covered by rules, {coverage.percent:.0f} %."
    text.append(covered if coverage.total else "No effect that a rule would have to cover.")
    if exempt:
        text.append(f" {exempt:,} exempt.", style="default")
    if coverage.changed:
        text.append(f" {plural(len(coverage.changed), 'function')} changed since they were accepted.")
    if coverage.faults:
        text.append(
            f" {plural(len(coverage.faults), 'name')} {'is' if len(coverage.faults) == 1 else 'are'} wrong."
        )
    return text


def coverage_as_json(coverage: Coverage) -> str:
    """The same for machines."""
    return json.dumps(
        {
            "version": VERSION,
            "status": coverage.status,
            "covered": coverage.covered,
            "total": coverage.total,
            "faults": list(coverage.faults),
            "changed": [
                {"rule": each.rule, "function": each.function, "how": each.how} for each in coverage.changed
            ],
            "effects": [
                {
                    "effect": each.effect.name,
                    "model": each.effect.model._meta.label,
                    "on": str(each.effect.on),
                    "state": str(each.state),
                    "rules": list(each.rules),
                    "reason": each.reason or None,
                }
                for each in coverage.effects
            ],
        },
        indent=2,
    )


def accepted_as_text(accepted: Accepted, file: str) -> RenderableType:
    """The functions that each rule was accepted to cover, then where that is kept."""
    lines = [
        Text(f"{plain(name)}: {', '.join(map(plain, functions))}") for name, functions in accepted.items()
    ]
    return Group(
        "", *lines, "", Text(f"{plural(len(accepted), 'rule')} accepted in {plain(file)}.", style="green")
    )


def accepted_as_json(accepted: Accepted) -> str:
    """The same for machines, with the fingerprints."""
    return json.dumps(
        {"version": VERSION, "accepted": {name: dict(functions) for name, functions in accepted.items()}},
        indent=2,
    )
