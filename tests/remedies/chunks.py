"""What the one chunk of a repair sent to the database."""

import re


def between_fence_and_cursor(sent):
    """The statements of the chunk's steps 2 to 5, savepoints of the test's own transaction left out."""
    texts = [each["sql"] for each in sent]
    begun = next(
        at for at, text in enumerate(texts) if re.match("UPDATE .reconcile_workitem. SET .heartbeat.", text)
    )
    ended = next(
        at for at, text in enumerate(texts) if re.match("UPDATE .reconcile_workitem. SET .cursor.", text)
    )
    return [text for text in texts[begun + 1 : ended] if "SAVEPOINT" not in text]
