"""The states of runs and of their parts, and every arrow from one to another, with the event that leads along it.

A run, an outcome and a work item change their state by `transition` of `reconcile.models` alone, which goes along these arrows.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.db.models import TextChoices

__all__ = ["ARROWS", "OutcomeState", "RunState", "WorkItemState", "states_before"]


class RunState(TextChoices):
    """Of a run."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class OutcomeState(TextChoices):
    """Of one rule in a run."""

    WAITING = "waiting"
    REPAIRING = "repairing"
    DONE = "done"


class WorkItemState(TextChoices):
    """Of one work item."""

    RUNNING = "running"
    DONE = "done"


_R, _O, _W = RunState, OutcomeState, WorkItemState

Arrows = Mapping[tuple[TextChoices, TextChoices], str]

_RUN: Arrows = {
    (_R.RUNNING, _R.FINISHED): "Each of its rules is done.",
    (_R.RUNNING, _R.STOPPED): "An error has ended it; or its worker is dead, and another run has taken over a rule, or the night.",
    (_R.STOPPED, _R.RUNNING): "It is resumed.",
    (_R.RUNNING, _R.RUNNING): "It is resumed after its worker was killed.",
    (_R.RUNNING, _R.PAUSING): "Somebody asks for a pause; the worker finds out before its next chunk.",
    (_R.PAUSING, _R.PAUSED): "The worker has stopped there.",
    (_R.RUNNING, _R.PAUSED): "Somebody asks for a pause, and no worker is at work.",
    (_R.PAUSING, _R.RUNNING): "It is resumed before its worker has stopped, or after that was killed.",
    (_R.PAUSED, _R.RUNNING): "It is resumed.",
    (_R.PAUSING, _R.FINISHED): "Its last rule was done before the worker found out.",
    (_R.PAUSING, _R.STOPPED): "An error has ended it before the worker found out.",
    (_R.RUNNING, _R.CANCELLING): "Somebody ends it for good; the worker finds out before its next chunk.",
    (_R.PAUSING, _R.CANCELLING): "Somebody ends it for good while its worker is about to pause.",
    (_R.CANCELLING, _R.CANCELLING): "Somebody asks once more.",
    (_R.CANCELLING, _R.CANCELLED): "The worker has stopped there, or none is at work. What was written stands.",
    (_R.CANCELLING, _R.FINISHED): "Its last rule was done before the worker found out.",
    (_R.CANCELLING, _R.STOPPED): "An error has ended it before the worker found out.",
    (_R.RUNNING, _R.CANCELLED): "Somebody ends it for good, and no worker is at work; or it is undone.",
    (_R.PAUSING, _R.CANCELLED): "Somebody ends it for good, and no worker is at work; or it is undone.",
    (_R.PAUSED, _R.CANCELLED): "Somebody ends it for good, or it is undone.",
    (_R.STOPPED, _R.CANCELLED): "Somebody ends it for good, or it is undone.",
}  # fmt: skip

_OUTCOME: Arrows = {
    (_O.WAITING, _O.REPAIRING): "The run has come to the rule, may repair it, and has leased it.",
    (_O.REPAIRING, _O.REPAIRING): "It is leased again, by another worker or by this one; or an error has ended it, and it stays open.",
    (_O.WAITING, _O.DONE): "The rule was checked, and there was nothing to repair, or a guard has refused it.",
    (_O.REPAIRING, _O.DONE): "The rule was repaired and verified.",
    (_O.WAITING, _O.WAITING): "It is to be repaired once more before it was, in a circle of rules.",
    (_O.REPAIRING, _O.WAITING): "It is to be repaired once more though it is still open, in a circle of rules.",
    (_O.DONE, _O.WAITING): "Another rule has since written what this one reads.",
}  # fmt: skip

_WORK_ITEM: Arrows = {
    (_W.RUNNING, _W.DONE): "The cursor has passed the last key.",
    (_W.DONE, _W.RUNNING): "It begins anew: its rule is repaired once more, or only a killed worker knew what was left.",
    (_W.RUNNING, _W.RUNNING): "It begins anew before its end.",
}  # fmt: skip


ARROWS: Mapping[type[TextChoices], Arrows] = {
    RunState: _RUN,
    OutcomeState: _OUTCOME,
    WorkItemState: _WORK_ITEM,
}
"""The arrows of each kind of state, with the event that leads along it. A table for each, since states of two kinds may be equal texts."""


def states_before(state: TextChoices) -> frozenset[TextChoices]:
    """The states from which an arrow leads to `state`."""
    return frozenset(one for one, other in ARROWS[type(state)] if other is state)
