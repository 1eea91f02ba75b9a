"""The retry policy: what fails because other sessions are in the way, or the server is away for a moment, is tried again.

Full jitter: each pause is a random part of a bound that doubles, so that two sessions that failed together don't meet
again. A chunk of a repair has a policy of its own, in `repair.retry_policy`, since it can be halved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reconcile.db.dialects import dialect_of
from reconcile.db.django_compat import in_transaction

if TYPE_CHECKING:
    from tenacity import Retrying

__all__ = ["RECONNECTING", "retry"]

TRIES, FIRST_PAUSE, LONGEST_PAUSE = 5, 0.05, 10.0
"""How often something is tried, and the bounds of the first pause and of any pause, in seconds."""

RECONNECTING: dict[str, Any] = {"tries": 6, "first_pause": 0.5}
"""For a server that has dropped the connection: pauses of up to 0.5, 1, 2, 4 and 8 s, time enough for a restart."""


def retry(
    using: str,
    *,
    when: Callable[[BaseException], bool] | None = None,
    tries: int = TRIES,
    first_pause: float = FIRST_PAUSE,
    pause: Callable[[float], None] = time.sleep,
) -> Retrying:
    """Return what calls a function until it succeeds: `retry(using)(function, *arguments)`.

    when: whether an error is worth another try. By default those that the dialect of the database `using` calls transient
        are, outside a transaction: inside one it is the caller's to try the whole of it again.
    tries: how often the function is called at most; the error of the last try is raised as it is.
    """
    # Imported when used: it costs 50 ms, which a process that only sets Django up needn't pay.
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    def is_transient(error: BaseException) -> bool:
        return not in_transaction(using) and dialect_of(using).is_transient(error)

    return Retrying(
        retry=retry_if_exception(when or is_transient),
        stop=stop_after_attempt(tries),
        wait=wait_random_exponential(multiplier=first_pause, max=LONGEST_PAUSE),
        sleep=pause,
        reraise=True,
    )
