"""`Watch`: the drift that comes to be while something runs, whichever path wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from django.db import DEFAULT_DB_ALIAS

from reconcile.baseline import Rows
from reconcile.drift import Drift
from reconcile.rules import Rule
from reconcile.testing._choosing import chosen
from reconcile.testing._looking import Found, look
from reconcile.testing._telling import raise_if_drifted

__all__ = ["Watch"]


@dataclass(frozen=True)
class Watch:
    """The drift of some rules as it was at one moment; lives as long as what is watched."""

    before: Sequence[Found]

    @classmethod
    def begin(
        cls, rules: Iterable[str | Rule] | None = None, *, using: str = DEFAULT_DB_ALIAS, settled: bool = True
    ) -> Watch:
        """Check the rules, all of the project unless some are given. Costs a check, and so does the end."""
        return cls([look(rule, using=using) for rule in chosen(rules, using=using, settled=settled)])

    def end(self) -> None:
        """Check again; raise AssertionError where there is drift that wasn't there at the beginning."""
        __tracebackhide__ = True
        raise_if_drifted([_new(before) for before in self.before], "new drifted row")


def _new(before: Found) -> Found:
    after = look(before.rule, using=before.using)
    new: Mapping[Drift, Rows] = {
        drift: rows.without(before.drifted.get(drift, Rows())) for drift, rows in after.drifted.items()
    }
    return replace(after, drifted={drift: rows for drift, rows in new.items() if rows.number})
