"""Records that a repair passes over: kept for the end, where others are in the way, or given up, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from reconcile.errors import GivenUpError, NotMendedError

__all__ = ["HOPELESS", "SetAside"]

log = structlog.get_logger()

HOPELESS = 50
"""Failed records from which on a rule is given up, if more failed than were mended."""


@dataclass(kw_only=True)
class SetAside:
    """The records of one shard that were passed over.

    aside: keys to be tried again at the end, since others hold them; busy: what the database said of some of them.
    doubtful: those that drifted after their write. failures: keys that can't be repaired, each with the reason.
    """

    rule: str
    aside: list[Any] = field(default_factory=list)
    busy: dict[Any, str] = field(default_factory=dict)
    doubtful: set[Any] = field(default_factory=set)
    failures: dict[Any, str] = field(default_factory=dict)

    def leave(self, keys: Sequence[Any], failure: Exception, *, held: bool, mended: int) -> None:
        """Keep a record for the end, or a chunk whole, or note that it can't be repaired.

        held: whether others were in the way. mended: how many records were. Raises GivenUpError as `refuse` does.
        """
        said = _first_line(failure)
        doubted = isinstance(failure, NotMendedError) and not self.doubtful.issuperset(keys)
        if not (doubted or held):
            for key in keys:
                self.refuse(key, said, mended=mended)
            return
        self.aside.extend(keys)
        self.busy |= dict.fromkeys(keys, said)
        log.warning("records_held", rule=self.rule, key=str(keys[0]), keys=len(keys), error=said)
        if doubted:
            self.doubtful.update(keys)
            self._weigh(keys[-1], said, mended)

    def refuse(self, key: Any, why: str, *, mended: int) -> None:
        """Note that a record can't be repaired. Raises GivenUpError where that has become the normal case."""
        self.doubtful.discard(key)
        self.failures[key] = why
        log.error("record_set_aside", rule=self.rule, key=str(key), error=why)
        self._weigh(key, why, mended)

    def cleared(self, keys: Iterable[Any]) -> None:
        """These have been mended after all."""
        if self.doubtful:
            self.doubtful.difference_update(keys)

    def _weigh(self, key: Any, said: str, mended: int) -> None:
        failed = len(self.failures) + len(self.doubtful)
        if failed >= HOPELESS and failed > mended:
            self.failures |= {each: self.busy[each] for each in self.doubtful}
            raise GivenUpError(
                f"{failed} records failed and {mended} were mended; the rest were left alone. "
                f"The last one, {key}: {said}"
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
