"""The quarantine: the keys of a work item that were passed over, for now or for good, each with its reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from reconcile.errors import HopelessError, NotRepairedError, first_line

__all__ = ["HOPELESS", "Quarantine", "with_more"]

log = structlog.get_logger()

HOPELESS = 50
"""If so many records failed, and more than were repaired, a few of the others are tried before the rule is given up."""

MOST_CONFLICTS = 10_000
"""Records that are kept to be tried again because another row has their unique value."""


@dataclass(kw_only=True)
class Quarantine:
    """What became of the keys of one work item: how many were mended, and which were passed over.

    hopeless: how many keys may fail, if more than were mended, before the work stops; None for any number. mended: keys that were
    written, or found right. failures: keys that can't be repaired, each with the reason. to_retry: keys to
    try again at the end, since other sessions have locked them. last_errors: the database's message for some of them. unverified:
    keys that drifted after their write. conflicts: keys whose unique value another row has, which may be free once that row is
    repaired, each with the database's message. trying: failures are counted, and stop nothing. forgiven: how many had failed and
    were repaired when it was begun to count anew.
    """

    rule: str
    hopeless: int | None = HOPELESS
    mended: int = 0
    failures: dict[Any, str] = field(default_factory=dict)
    to_retry: list[Any] = field(default_factory=list)
    last_errors: dict[Any, str] = field(default_factory=dict)
    unverified: set[Any] = field(default_factory=set)
    conflicts: dict[Any, str] = field(default_factory=dict)
    trying: bool = False
    forgiven: tuple[int, int] = (0, 0)

    @property
    def failed(self) -> int:
        """The number of keys that can't be repaired, or could not so far."""
        return len(self.failures.keys() | self.unverified)

    def fail_unverified(self) -> None:
        """Count what drifted after its write among the failures: it is not tried again."""
        self.failures |= {each: self.last_errors[each] for each in self.unverified}

    def forgive(self) -> None:
        """Begin to count anew: others than those that failed can be repaired."""
        self.forgiven = (self.failed, self.mended)

    def close_chunk(
        self,
        keys: Sequence[Any],
        *,
        locked: Collection[Any],
        refused: Mapping[Any, str],
        repaired: Iterable[Any],
    ) -> None:
        """Take over what became of the keys of a committed chunk. Raises HopelessError if most records fail."""
        self.mended += len(keys) - len({*locked, *refused})
        if self.unverified:
            self.unverified.difference_update(repaired)
        self.to_retry.extend(key for key in keys if key in locked)
        for key, why in refused.items():
            self.give_up(key, why)

    def add(self, keys: Sequence[Any], failure: Exception, *, contention: bool, holder: str = "") -> None:
        """Put the keys aside to be tried again at the end, or give up on them.

        contention: whether other sessions caused the failure. holder: which row is in the way, as a sentence. Raises HopelessError as `give_up` does.
        """
        message = with_more(first_line(failure), holder)
        is_unverified = isinstance(failure, NotRepairedError) and not self.unverified.issuperset(keys)
        if not (is_unverified or contention):
            for key in keys:
                self.give_up(key, message)
            return
        self.to_retry.extend(keys)
        self.last_errors |= dict.fromkeys(keys, message)
        log.warning("records_locked", rule=self.rule, key=str(keys[0]), keys=len(keys), error=message)
        if is_unverified:
            self.unverified.update(keys)
            self._stop_if_hopeless(keys[-1], message)

    def add_conflict(self, key: Any, failure: Exception) -> bool:
        """Keep a key whose unique value another row has. Returns whether there was room."""
        if len(self.conflicts) >= MOST_CONFLICTS:
            return False
        self.conflicts[key] = first_line(failure)
        return True

    def give_up(self, key: Any, why: str) -> None:
        """Record that a key can't be repaired. Raises HopelessError if most records fail."""
        self.unverified.discard(key)
        self.failures[key] = why
        log.error("record_quarantined", rule=self.rule, key=str(key), error=why)
        self._stop_if_hopeless(key, why)

    def set_aside(self, reasons: Mapping[Any, str]) -> None:
        """Record that these can't be evaluated. They were told apart before any write, so they say nothing of the others."""
        for key, why in reasons.items():
            if key not in self.failures:
                self.failures[key] = f"It can't be evaluated: {why}."
                log.error("record_quarantined", rule=self.rule, key=str(key), error=why)

    def take_locked(self) -> list[Any]:
        """Take out the keys that are to be tried again."""
        again, self.to_retry = self.to_retry, []
        return again

    def take_conflicts(self) -> dict[Any, str]:
        """Take out the keys whose unique value another row has."""
        waiting, self.conflicts = self.conflicts, {}
        return waiting

    def _stop_if_hopeless(self, key: Any, message: str) -> None:
        failed, (failed_before, mended_before) = self.failed, self.forgiven
        more = failed - failed_before
        if self.trying or self.hopeless is None:
            return
        if more >= self.hopeless and more > self.mended - mended_before:
            self.fail_unverified()
            raise HopelessError(failed=failed, mended=self.mended, last=f"{key}: {message}")


def with_more(message: str, more: str) -> str:
    """The database's message as a sentence, and after it a sentence that says more."""
    return f"{message.rstrip('.')}. {more}" if more else message
