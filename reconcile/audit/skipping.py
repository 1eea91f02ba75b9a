"""For rules that drift: the calls that may have caused it, and the columns that receivers write, which haven't."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from django.core.exceptions import FieldDoesNotExist
from django.db.models import Model

from reconcile.audit.bypasses import Bypass, Level
from reconcile.audit.listing import audit_signals
from reconcile.audit.searching import BypassAudit, Search, search_bypasses
from reconcile.core.declaration import shown_path
from reconcile.core.wording.names import plural
from reconcile.db.columns import concrete_model
from reconcile.db.expressions import Column
from reconcile.rules.rule import Rule

__all__ = ["SkippingCall", "Suspects", "columns_of_receivers", "suspects_of"]

MOST = 10
"""Calls that are named for one rule."""


@dataclass(frozen=True, kw_only=True)
class SkippingCall:
    """A call in the source that writes past what a rule covers. skips: the names of what it skips."""

    path: str
    line: int
    call: str
    model: str
    skips: tuple[str, ...]

    def __str__(self) -> str:
        """`imports/csv.py:88 Order.objects.bulk_create(...) writes shop.Order past handle_order_created`."""
        past = ", ".join(dict.fromkeys(each.rpartition(".")[2] for each in self.skips))
        return f"{self.path}:{self.line} {self.call} writes {self.model} past {past}"


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """The calls that skip what one rule covers. more: those that are not named here. why_none: why there are none, as a sentence."""

    calls: tuple[SkippingCall, ...] = ()
    more: int = 0
    why_none: str = ""

    @property
    def sentences(self) -> Iterator[str]:
        """What every report says of them."""
        yield from (f"{call}." for call in self.calls)
        if self.more:
            yield f"And {plural(self.more, 'call')} more: reconcile signals bypasses --show covered"
        if self.why_none:
            yield self.why_none


def suspects_of(
    drifted: Collection[Rule], rules: Mapping[str, Rule], exempt: Mapping[str, str]
) -> Mapping[str, Suspects]:
    """For the name of each rule the calls in the project's source that skip what it covers. Costs no statement."""
    covering = [rule for rule in drifted if rule.covers]
    audit = search_bypasses(rules, exempt, Search(use_cache=True)) if covering else None
    return {rule.name: _suspects(rule, audit) for rule in drifted}


def _suspects(rule: Rule, audit: BypassAudit | None) -> Suspects:
    if audit is None or not rule.covers:
        return Suspects(
            why_none="The rule covers no receiver (covers=), so nobody knows which calls skip what it stands for."
        )
    found = [*_calls(rule.name, audit.bypasses)]
    unread = len(audit.unreadable)
    if not found:
        unknown = sum(each.state is Level.UNKNOWN for each in audit.bypasses)
        parts = [
            f"No call in the source is known to skip what the rule covers ({plural(unknown, 'call')} can't be told)."
        ]
        if unread:
            parts.append(f"{plural(unread, 'file')} can't be read.")
        return Suspects(why_none=" ".join(parts))
    return Suspects(calls=tuple(found[:MOST]), more=max(len(found) - MOST, 0))


def _calls(rule: str, bypasses: Sequence[Bypass]) -> Iterator[SkippingCall]:
    for each in bypasses:
        skips = tuple(
            dict.fromkeys(
                skip.effect.name for skip in each.skips if skip.state is Level.COVERED and rule in skip.rules
            )
        )
        if skips and each.model:
            site = each.site
            yield SkippingCall(
                path=shown_path(site.path), line=site.line, call=site.call, model=each.model, skips=skips
            )


def columns_of_receivers(rules: Mapping[str, Rule], models: Collection[type[Model]]) -> frozenset[Column]:
    """The columns of their own record that the effects of these models set: they follow from what a save did, and cause no drift. Costs no statement."""
    audit = audit_signals(rules, models, follow=True, use_cache=True)
    return frozenset(
        column
        for audited in audit.models
        for each in audited.effects
        for name in (each.doing.sets if each.doing is not None else ())
        for column in _column(audited.model, name)
    )


def _column(model: type[Model], name: str) -> Iterator[Column]:
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return
    if attname := getattr(field, "attname", None):
        yield concrete_model(model), attname
