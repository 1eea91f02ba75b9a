"""A child process that is killed, by SIGKILL, at the step of a chunk that a test names."""

import os
import signal
import sys
import traceback
from contextlib import contextmanager

from django.db import connections

from reconcile.repair.fault_injection import listen

NEVER_REACHED, RAISED = 3, 4
MOST_WAIT = 60
"""Seconds that a child may take."""


@contextmanager
def forked(act):
    """A child that does `act` with connections of its own; its process id. It never returns into the test."""
    # A connection that two processes share would be broken for both.
    connections.close_all()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        signal.alarm(MOST_WAIT)
        _act(act)
    yield child


def _act(act):
    code = RAISED
    try:
        act()
        code = NEVER_REACHED
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def kill(process):
    os.kill(process, signal.SIGKILL)


def assert_killed(child):
    """Wait until the child is dead, and see that it was SIGKILL that ended it."""
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the child ended by itself with {os.waitstatus_to_exitcode(status)}"
    assert os.WTERMSIG(status) == signal.SIGKILL, f"signal {os.WTERMSIG(status)}"


def killed_at(step, act, *, time=1):
    """Do `act` in a child that is killed when it reaches `step` for the `time`-th time."""
    times = []

    def listener(reached):
        if reached == step:
            times.append(reached)
        if len(times) == time:
            kill(os.getpid())

    def until_killed():
        with listen(listener):
            act()

    with forked(until_killed) as child:
        assert_killed(child)
