"""Which functions of the project are called while a block runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType, FrameType
from typing import Any

__all__ = ["noting_calls"]


@contextmanager
def noting_calls(codes: Container[CodeType], note: Callable[[CodeType], Any]) -> Iterator[None]:
    """Note each call of a function that runs one of these, in this thread and in those that begin meanwhile: receivers that are awaited run in such."""

    def called(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in codes:
            note(frame.f_code)

    with ExitStack() as stack:
        for module in (sys, threading):
            stack.callback(module.setprofile, module.getprofile())
            module.setprofile(called)
        yield
