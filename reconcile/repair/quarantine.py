"""The quarantine: records that a repair passes over, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from reconcile.errors import HopelessError, NotRepairedError, first_line

__all__ = ["HOPELESS", "Quarantine"]

log = structlog.get_logger()

HOPELESS = 50
"""If so many records failed, and more than were repaired, a few of the others are tried before the rule is given up."""


@dataclass(kw_only=True)
class Quarantine:
    """The records of one work item that a repair has skipped.

    to_retry: keys to try again at the end, since other sessions have locked them. last_errors: the database's message for some of
    them. unverified: keys that drifted after their write. conflicts: keys whose unique value another row has, which may be free
    once that row is repaired, each with the database's message. trying: failures are counted, and stop nothing. forgiven: how many
    had failed and were repaired when it was begun to count anew. failures: keys that can't be repaired, each with the reason.
    """

    rule: str
    to_retry: list[Any] = field(default_factory=list)
    last_errors: dict[Any, str] = field(default_factory=dict)
    unverified: set[Any] = field(default_factory=set)
    conflicts: dict[Any, str] = field(default_factory=dict)
    failures: dict[Any, str] = field(default_factory=dict)
    trying: bool = False
    forgiven: tuple[int, int] = (0, 0)

    @property
    def failed(self) -> int:
        return len(self.failures.keys() | self.unverified)

    def fail_unverified(self) -> None:
        """Count what drifted after its write among the failures: it is not tried again."""
        self.failures |= {each: self.last_errors[each] for each in self.unverified}

    def forgive(self, *, mended: int) -> None:
        """Begin to count anew: others than those that failed can be repaired."""
        self.forgiven = (self.failed, mended)

    def add(self, keys: Sequence[Any], failure: Exception, *, contention: bool, mended: int) -> None:
        """Put the records aside to be tried again at the end, or give up on them.

        contention: whether other sessions caused the failure. mended: records repaired so far. Raises HopelessError as `give_up`
        does.
        """
        message = first_line(failure)
        is_unverified = isinstance(failure, NotRepairedError) and not self.unverified.issuperset(keys)
        if not (is_unverified or contention):
            for key in keys:
                self.give_up(key, message, mended=mended)
            return
        self.to_retry.extend(keys)
        self.last_errors |= dict.fromkeys(keys, message)
        log.warning("records_locked", rule=self.rule, key=str(keys[0]), keys=len(keys), error=message)
        if is_unverified:
            self.unverified.update(keys)
            self._stop_if_hopeless(keys[-1], message, mended)

    def give_up(self, key: Any, why: str, *, mended: int) -> None:
        """Record that a record can't be repaired. Raises HopelessError if most records fail."""
        self.unverified.discard(key)
        self.failures[key] = why
        log.error("record_quarantined", rule=self.rule, key=str(key), error=why)
        self._stop_if_hopeless(key, why, mended)

    def set_aside(self, reasons: Mapping[Any, str]) -> None:
        """Record that these can't be evaluated. They were told apart before any write, so they say nothing of the others."""
        for key, why in reasons.items():
            if key not in self.failures:
                self.failures[key] = f"It can't be evaluated: {why}."
                log.error("record_quarantined", rule=self.rule, key=str(key), error=why)

    def remove(self, keys: Iterable[Any]) -> None:
        """Take out records that were repaired after all."""
        if self.unverified:
            self.unverified.difference_update(keys)

    def _stop_if_hopeless(self, key: Any, message: str, mended: int) -> None:
        failed, before = self.failed, self.forgiven
        if not self.trying and failed - before[0] >= HOPELESS and failed - before[0] > mended - before[1]:
            self.fail_unverified()
            raise HopelessError(failed=failed, mended=mended, last=f"{key}: {message}")
