"""The frames under way in one lane, what gets their answers, and when the last one has got its own.

Callers get an answer also when the engine's thread is stuck, and none comes after the worker was said to be gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

#: Gets a frame's answer; or an exception, where its worker is gone and none comes.
Tell = Callable[[bytes | BaseException], object]


class Calls:
    """The calls of one lane. Any thread may call any method.

    A call is *open* until it is settled, and counts as under way until ``tell`` has returned as well. No lock: each
    step is one operation on a list or a set, and of several threads one gets what is removed.
    """

    def __init__(self) -> None:
        self._open: list[Tell] = []
        self._settling: set[object] = set()  #: a mark for each that is settled just now
        self._closed: BaseException | None = None
        self._when_empty: list[Callable[[], object]] = []

    def __len__(self) -> int:
        return len(self._open) + len(self._settling)

    @property
    def is_closed(self) -> bool:
        """True once `close` was called: the worker is known to be dead."""
        return self._closed is not None

    def begin(self, tell: Tell) -> bool:
        """Begin a call. False if `close` was called: then it has failed already."""
        self._open.append(tell)
        if self._closed is not None:
            self.settle(tell, self._closed)
            return False
        return True

    def settle(self, tell: Tell, answer: bytes | BaseException) -> None:
        """Tell what came of a call, here and now. Does nothing where it has been settled before."""
        mark = object()  # of this try alone: another thread may be telling it
        self._settling.add(mark)  # before it is not open any more: it is under way all the time
        try:
            self._open.remove(tell)
        except ValueError:
            pass
        else:
            tell(answer)
        finally:
            self._settling.discard(mark)  # unless it was abandoned
            if self._when_empty:
                self._tell_when_empty()

    def close(self, error: BaseException) -> None:
        """Fail all calls that begin from now on; those under way go on."""
        self._closed = error

    def fail_all(self, error: BaseException) -> None:
        """Fail the calls that are still open."""
        for tell in list(self._open):
            self.settle(tell, error)

    def abandon_settling(self) -> None:
        """Wait no more for a ``tell`` that runs now and may never return."""
        self._settling.clear()
        self._tell_when_empty()

    def when_empty(self, function: Callable[[], object]) -> None:
        """Call ``function`` once none is under way: here and now, or on the thread that settles the last."""
        self._when_empty[:] = [function]
        self._tell_when_empty()

    def _tell_when_empty(self) -> None:
        if not (self._open or self._settling):
            with contextlib.suppress(IndexError):  # another thread tells it
                self._when_empty.pop()()
