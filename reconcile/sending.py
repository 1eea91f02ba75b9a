"""The act of sending: what a chunk hands to the world outside goes out after its commit, or is taken back.

Inside the transaction it could be handled before the data is there, or although the chunk was rolled back.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import structlog
from django.db import Error, transaction
from django.db.models import F

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
    messages: Sequence[Sending],
    journal: ChunkJournal,
    *,
    rule: str,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Send what a committed chunk hands over, and note it. One statement a message.

    Raises GivenUpError where one can't be sent or noted, since the next would fare no better. What wasn't sent is
    taken back, journal and counts too, in one transaction of at most two statements and three for each message.
    """
    for place, message in enumerate(messages):
        _send(message, messages[place + 1 :], journal, rule=rule, pause=pause)


def _send(
    sending: Sending,
    later: Sequence[Sending],
    journal: ChunkJournal,
    *,
    rule: str,
    pause: Callable[[float], None],
) -> None:
    try:
        sending.send()
    except Exception as error:
        log.exception("message_not_sent", rule=rule, what=sending.what, error=str(error))
        taken_back = _taken_back([sending, *later], journal, pause)
        raise GivenUpError(
            f"The message with {sending.what} could not be sent ({type(error).__name__}: {error}). {taken_back} "
            "See that the broker answers and that the task works; then repair again."
        ) from error
    try:
        _patiently(sending.done, journal.using, pause)
    except Error as error:
        log.exception("message_not_noted", rule=rule, what=sending.what, error=str(error))
        if later:
            _taken_back(later, journal, pause)
        raise GivenUpError(
            f"The message with {sending.what} was sent, and the database would not note that ({error}). It goes out "
            "again when its promises have expired."
        ) from error


def _taken_back(unsent: Sequence[Sending], journal: ChunkJournal, pause: Callable[[float], None]) -> str:
    """Take back what wasn't sent; what became of that, in words. An error here must not have the chunk tried again."""
    try:
        _patiently(lambda: _take_back(unsent, journal), journal.using, pause)
    except Error as error:
        log.exception("message_not_taken_back", what=unsent[0].what, error=str(error))
        return (
            f"It could not be taken back either ({error}); what was promised goes out when that has expired."
        )
    return "It was taken back."


def _take_back(unsent: Sequence[Sending], journal: ChunkJournal) -> None:
    """Undo what the chunk had noted. Since keys are set aside, who resumes looks at all records again."""
    using, shard = journal.using, journal.shard
    records = sum(len(each.keys.values) for each in unsent)
    with transaction.atomic(using=using):
        Shard._base_manager.using(using).filter(pk=shard.pk).update(
            written=F("written") - records, set_aside=F("set_aside") + records
        )
        outcome = Outcome._base_manager.using(using).filter(pk=shard.outcome_id)
        outcome.update(enqueued=F("enqueued") - records)
        for each in unsent:
            journal.take_back(each.model, each.keys)
            each.failed()


def _patiently(act: Callable[[], None], using: str, pause: Callable[[float], None]) -> None:
    for attempt in range(TRIES - 1):
        try:
            return act()
        except Error as error:
            if not dialect_of(using).is_transient(error):
                raise
        pause(random.uniform(0, PAUSE * 2**attempt))  # noqa: S311
    return act()
