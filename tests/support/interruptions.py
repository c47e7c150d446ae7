"""A Ctrl-C at each moment at which Python calls a signal's handler, and signals to this process's main thread.

These moments are where a function begins, and after a call.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from mpqueue import QueueClosedError


class Interruption:
    """Raises KeyboardInterrupt once, at the moment of this number, in code of the package that `run` calls.

    Or in other modules: ``where`` is how their names begin.
    """

    def __init__(self, number: int, where: tuple[str, ...] = ("mpqueue.",)) -> None:
        self._left = number
        self._where = where

    @property
    def came(self) -> bool:
        """True once it was raised."""
        return self._left < 0

    def run(self, call: Callable[[], Any]) -> Any:
        """What the call returns; KeyboardInterrupt where its moment came meanwhile."""
        if self.came:
            return call()
        sys.setprofile(self._look)
        try:
            return call()
        finally:
            sys.setprofile(None)

    def read(self, results: Iterator[Any]) -> list[Any] | None:
        """All of them, and what the errors among them say; None where the iterator says that some may be lost."""
        found = list[Any]()
        while True:
            try:
                found.append(self.run(results.__next__))
            except KeyboardInterrupt:
                continue
            except ValueError as error:
                found.append(str(error))
            except QueueClosedError as error:
                assert "this iterator is closed" in str(error)  # noqa: PT017 - one of two good ends
                return None
            except StopIteration:
                return found

    def _look(self, frame: FrameType, event: str, argument: object) -> None:
        if self.came or event not in ("call", "c_return"):
            return
        if not frame.f_globals.get("__name__", "").startswith(self._where):
            return
        # Only then: what looks at all frames at each event has crashed CPython 3.11, once in 5,000 interruptions.
        if self._left > 0 or not _is_in_destructor(frame):
            self._left -= 1
            if self.came:
                raise KeyboardInterrupt


def _is_in_destructor(frame: FrameType | None) -> bool:
    """There Python ignores it, and only says so."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def send_to_main_thread(number: int) -> None:
    """Send a signal to the main thread of this process, from another one."""
    if sys.platform == "win32":
        signal.raise_signal(number)  # Python calls its handler on the main thread in any case
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)
