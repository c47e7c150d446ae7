"""`CallBlock`: the calls of one `Executor.map`, whose results are taken in order. Spares what a future each would cost.

Filled on the queue's listener thread, read by one consumer at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mpqueue._core.state.item_table import Failure
from mpqueue._dropin.stream_results import Arrivals
from mpqueue._parent.surroundings.replies import SafeEvent
from mpqueue.errors import InternalError, ItemCancelledError

if TYPE_CHECKING:
    from mpqueue._dropin.executor.call_stream import CallStream

R = TypeVar("R")


class CallBlock(Generic[R]):
    """The calls at these indices of a stream."""

    def __init__(self, owner: CallStream, indices: range, error_of: Callable[[Failure], BaseException]) -> None:
        self.indices = indices
        self._owner = owner
        self._error_of = error_of
        self._missing = len(indices)  #: calls without an outcome
        self._taken = 0
        self._outcomes: dict[int, Any] = {}
        self._arrivals = Arrivals(ordered=True, first=indices.start)
        self._lock = threading.RLock()  #: of all these; a garbage collection that holds it may drop the consumer
        self._changed = SafeEvent()
        self._is_over = False  #: nothing more will come
        self._fault: InternalError | None = None
        self._is_closed = False  #: no results are taken any more

    # -- for the stream, on the listener thread --------------------------------------------------------------

    def put(self, indices: Sequence[int], outcomes: list[Any]) -> bool:
        """These calls have ended: a result each, or its `Failure`. True where they were the last."""
        with self._lock:
            if not self._is_closed:
                self._outcomes.update(zip(indices, outcomes, strict=True))
                outcomes.clear()  # a consumer that takes one is the last to hold it
                self._arrivals.add(indices)
            self._missing -= len(indices)
            is_last = not self._missing
        self._changed.set()
        return is_last

    def give_up(self, fault: InternalError | None) -> None:
        """What has no outcome now will never have one, because of a mistake of mpqueue's own where that is given."""
        with self._lock:
            self._fault = fault
            self._is_over = True
        self._changed.set()

    # -- for the consumer ------------------------------------------------------------------------------------

    def results(self, time_left: Callable[[], float | None]) -> Iterator[R]:
        """The results in order. Raises what a call raised in its place, TimeoutError where no time is left.

        Whenever it ends, the calls that have not started are cancelled. Holds no result that was taken.
        """
        try:
            while self._taken < len(self.indices):
                outcomes = self._take(time_left)
                while outcomes:
                    self._taken += 1
                    if type(outcomes[0]) is Failure:
                        raise self._raised(outcomes[0])
                    yield outcomes.popleft()
        finally:
            self._close()

    def _take(self, time_left: Callable[[], float | None]) -> deque[Any]:
        """The outcomes that come next, at least one."""
        if time_left() is None and not self._outcomes and not self._is_over:
            self._owner.check_waiting_allowed()
        while True:
            self._changed.clear()  # before looking
            with self._lock:
                if indices := self._arrivals.take(len(self.indices)):
                    return deque(map(self._outcomes.pop, indices))
                if self._is_over:
                    raise self._fault or CancelledError
            if not self._changed.wait(time_left()):
                raise TimeoutError

    def _raised(self, failure: Failure) -> BaseException:
        return CancelledError() if isinstance(failure.own, ItemCancelledError) else self._error_of(failure)

    def _close(self) -> None:
        with self._lock:
            self._is_closed = True
            waiting = self._missing and not self._is_over
            self._outcomes.clear()
        if waiting:
            self._owner.drop_later(self.indices)
