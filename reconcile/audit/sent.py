"""What project code sends, as values: messages of Celery and mails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256
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
    """A mail. to: all who get it, copies too. headed: who sends it, and by which heading each gets it. alternatives, attachments: each with its kind; of what is attached the name and a digest."""

    subject: str
    to: tuple[str, ...]
    body: str
    headed: tuple[tuple[str, tuple[str, ...]], ...] = ()
    alternatives: tuple[str, ...] = ()
    attachments: tuple[str, ...] = ()


def task_of(name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> SentTask:
    """The message as a value. What it is handed may be changed before anybody looks at it, so it is copied where it can be."""
    found = tuple(args or ()), dict(kwargs or {})
    with suppress(Exception):
        found = deepcopy(found)
    return SentTask(name=name, args=found[0], kwargs=found[1])


def mail_of(message: EmailMessage) -> SentMail:
    """The mail as a value."""
    headings = {
        "from": [message.from_email],
        **{name: getattr(message, name) for name in ("to", "cc", "bcc", "reply_to")},
    }
    alternatives = getattr(message, "alternatives", ())
    return SentMail(
        subject=str(message.subject),
        to=tuple(message.recipients()),
        body=str(message.body),
        headed=tuple((name, tuple(sorted(map(str, people)))) for name, people in headings.items() if people),
        alternatives=tuple(f"{each[1]}: {each[0]}" for each in alternatives),
        attachments=tuple(map(_attached, message.attachments)),
    )


def _attached(each: Any) -> str:
    """What tells an attachment: a name, a kind and a digest of what it holds."""
    name, content, kind = (
        each if isinstance(each, tuple) else (each.get_filename(), each.as_bytes(), each.get_content_type())
    )
    held = content if isinstance(content, bytes) else str(content).encode()
    return f"{name} {kind} {sha256(held).hexdigest()}"
