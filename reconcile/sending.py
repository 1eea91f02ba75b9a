"""The act of sending: what a chunk hands to the world outside goes out after its commit, or is taken back.

Inside the transaction it could be handled before the data is there, or although the chunk was rolled back.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import structlog
from django.db import Error, transaction
from django.db.models import F

from reconcile.drift import Written
from reconcile.errors import GivenUpError
from reconcile.journal import ChunkJournal
from reconcile.models import Outcome, Shard
from reconcile.remedies import Sending
from reconcile.sql.dialects import dialect_of

__all__ = ["send"]

log = structlog.get_logger()

TRIES, PAUSE = 5, 0.05
"""How often to note what became of a message while other sessions are in the way, and the first pause in seconds."""


def send(
    sending: Sending,
    written: Written,
    journal: ChunkJournal,
    *,
    rule: str,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Send what a committed chunk hands over, and note it. One statement.

    Raises GivenUpError where it can't be sent or noted, since the next chunk's message would fare no better.
    What wasn't sent is taken back, journal and counts too, in one transaction of at most five statements.
    """
    try:
        sending.send()
    except Exception as error:
        log.exception("message_not_sent", rule=rule, what=sending.what, error=str(error))
        _patiently(lambda: _take_back(sending, written, journal), journal.using, pause)
        raise GivenUpError(
            f"The message with {sending.what} could not be sent ({type(error).__name__}: {error}). It was taken back. "
            "See that the broker answers and that the task works; then repair again."
        ) from error
    try:
        _patiently(sending.done, journal.using, pause)
    except Error as error:
        log.exception("message_not_noted", rule=rule, what=sending.what, error=str(error))
        raise GivenUpError(
            f"The message with {sending.what} was sent, and the database would not note that ({error}). It goes out "
            "again when its promises have expired."
        ) from error


def _take_back(sending: Sending, written: Written, journal: ChunkJournal) -> None:
    """Undo what the chunk had noted. Since keys are set aside, who resumes looks at all records again."""
    using, shard = journal.using, journal.shard
    with transaction.atomic(using=using):
        Shard._base_manager.using(using).filter(pk=shard.pk).update(
            written=F("written") - written.total, set_aside=F("set_aside") + written.total
        )
        outcome = Outcome._base_manager.using(using).filter(pk=shard.outcome_id)
        counts = {Outcome.COUNTED[verb]: rows for verb, rows in written.as_dict().items() if rows}
        outcome.update(**{column: F(column) - rows for column, rows in counts.items()})
        journal.take_back()
        sending.failed()


def _patiently(act: Callable[[], None], using: str, pause: Callable[[float], None]) -> None:
    for attempt in range(TRIES - 1):
        try:
            return act()
        except Error as error:
            if not dialect_of(using).is_transient(error):
                raise
        pause(random.uniform(0, PAUSE * 2**attempt))  # noqa: S311
    return act()
