"""What project code sends, as values: messages of Celery and mails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from django.core.mail.message import EmailMessage

__all__ = ["SentMail", "SentTask", "mail_of", "task_of"]


@dataclass(frozen=True, kw_only=True)
class SentTask:
    """A message of Celery. name: of the task. args, kwargs: what it is handed."""

    name: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SentMail:
    """A mail. to: all who get it, copies too."""

    subject: str
    to: tuple[str, ...]
    body: str


def task_of(name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> SentTask:
    """The message as a value. What it is handed may be changed before anybody looks at it, so it is copied where it can be."""
    found = tuple(args or ()), dict(kwargs or {})
    with suppress(Exception):
        found = deepcopy(found)
    return SentTask(name=name, args=found[0], kwargs=found[1])


def mail_of(message: EmailMessage) -> SentMail:
    """The mail as a value."""
    return SentMail(subject=str(message.subject), to=tuple(message.recipients()), body=str(message.body))
