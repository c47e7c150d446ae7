"""The coordinator's inbox: all that happens to a queue passes through here, one thing at a time."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from mpqueue._core.messages import Message


class Request(NamedTuple):
    """A call that waits for its answer: run on the coordinator's thread, between two messages."""

    call: Callable[[], Any]
    answer: Future[Any]


class Inbox:
    """Any thread posts, also one inside a signal handler or a garbage collection; the coordinator alone takes."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Message | Request] = queue.SimpleQueue()

    def post(self, message: Message | Request) -> None:
        """Put something in. Never blocks."""
        self._queue.put(message)

    def take(self, timeout: float | None) -> Message | Request | None:
        """The next thing, None after ``timeout`` seconds without one."""
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
