"""The outbox: messages to the world outside the database, sent after the commit of their chunk or taken back.

Inside the transaction it could be handled before the data is there, or although the chunk was rolled back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog
from django.db import Error, transaction
from django.db.models import F

from reconcile.core.verbs import ENQUEUED
from reconcile.db.retry import retry
from reconcile.errors import GivenUpError
from reconcile.models import WorkItem, WrittenRows
from reconcile.remedies import Message
from reconcile.repair.journal import ChunkJournal

__all__ = ["send_messages"]

log = structlog.get_logger()


def send_messages(
    messages: Sequence[Message],
    journal: ChunkJournal,
    *,
    rule: str,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Send the messages of a committed chunk, and record each as sent. One statement for each message.

    Raises GivenUpError if a message can't be sent or recorded, since the next one would fail as well. Messages that were not
    sent are taken back, with journal and counts, in one transaction: two statements, and three for each message.
    """
    for place, message in enumerate(messages):
        _send(message, messages[place + 1 :], journal, rule=rule, pause=pause)


def _send(
    message: Message,
    later: Sequence[Message],
    journal: ChunkJournal,
    *,
    rule: str,
    pause: Callable[[float], None],
) -> None:
    try:
        message.send()
    except Exception as error:
        log.exception("message_not_sent", rule=rule, what=message.what, error=str(error))
        taken_back = _take_back_in_words([message, *later], journal, pause)
        raise GivenUpError(
            f"The message with {message.what} could not be sent ({type(error).__name__}: {error}). {taken_back} "
            "See that the broker answers and that the task works; then repair again."
        ) from error
    try:
        retry(journal.using, pause=pause)(message.done)
    except Error as error:
        log.exception("message_not_noted", rule=rule, what=message.what, error=str(error))
        if later:
            _take_back_in_words(later, journal, pause)
        raise GivenUpError(
            f"The message with {message.what} was sent, and the database would not note that ({error}). It goes out "
            "again when its promises have expired."
        ) from error


def _take_back_in_words(
    unsent: Sequence[Message], journal: ChunkJournal, pause: Callable[[float], None]
) -> str:
    """Take back messages that were not sent. Returns the outcome in words: an error here must not repeat the chunk."""
    try:
        retry(journal.using, pause=pause)(_take_back, unsent, journal)
    except Error as error:
        log.exception("message_not_taken_back", what=unsent[0].what, error=str(error))
        return (
            f"It could not be taken back either ({error}); what was promised goes out when that has expired."
        )
    return "It was taken back."


def _take_back(unsent: Sequence[Message], journal: ChunkJournal) -> None:
    """Undo the counts and journal rows of the chunk. They count as quarantined, so a resumed run looks at all records."""
    using, work_item = journal.using, journal.work_item
    records = sum(len(each.keys.values) for each in unsent)
    with transaction.atomic(using=using):
        own = WorkItem._base_manager.using(using).filter(pk=work_item.pk)
        own.update(quarantined=F("quarantined") + records)
        handed = WrittenRows._base_manager.using(using).filter(work_item=work_item, verb=ENQUEUED)
        handed.update(rows=F("rows") - records)
        for each in unsent:
            journal.remove_handover(each.model, each.keys)
            each.failed()
