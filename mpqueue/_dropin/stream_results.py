"""`StreamResults`: the results of a stream, one by one. `mpqueue.imap` and the `imap` of `Pool` are made of it.

It takes outcomes in blocks, so a tiny item costs little more than its place in a list. It takes them from `Arrivals`,
and so does `Executor.map`.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Self, TypeVar

from mpqueue._core.state.item_table import Failure
from mpqueue._dropin.lent_queues import Loan
from mpqueue._parent.replies import Mailbox, SafeEvent
from mpqueue._queue.growing_jobs import Stream
from mpqueue._queue.run import Ended
from mpqueue.errors import QueueClosedError

R = TypeVar("R")


class StreamResults(Generic[R]):
    """An iterator over a stream's results, for any number of threads. A failed item raises in its place.

    It then goes on. ``close``, or dropping the last reference, ends the work and its running items.
    """

    _timed_out: type[Exception] = TimeoutError  #: the error if no result comes in time

    def __init__(
        self,
        stream: Stream,
        arrivals: Arrivals,
        items: Iterator[Any],
        window: Callable[[], int],
        lent: Loan,
    ) -> None:
        self._lent = lent
        self._now = lent.queue._host.engine.clock.now
        self._stream = stream
        self._arrivals = arrivals
        self._window = window
        self._input = InputReader(items, stream, window, self._now)
        self._block: Iterator[Any] = iter(())  #: results at hand, or one error, see `ToRaise`
        self._next_blocks: deque[list[Any]] = deque()  #: a failure is alone in its block
        self._taken = 0  #: outcomes up to the last of these
        #: True while outcomes or items are moved. A Ctrl-C then leaves it True: some may be lost, which ends the
        #: iterator. While it waits for outcomes, nothing is moved.
        self._is_torn = False
        self._reading = threading.RLock()  #: held by the thread that waits for more
        self._is_closed = False
        self._lent_has_ended = False
        self._all_done = False  #: True once it has ended with the last result

    def __iter__(self) -> Self:
        return self

    def __next__(self, timeout: float | None = None) -> R:
        while True:
            block = self._block
            for outcome in block:
                if type(outcome) is ToRaise:
                    # No call is between taking it and raising it, so that no Ctrl-C comes there.
                    error, outcome.error = outcome.error, None
                    try:
                        del self, block, outcome  # else the error's traceback, which has this frame, keeps the iterator
                        raise error
                    finally:
                        del error
                return outcome  # type: ignore[no-any-return]
            if timeout is None:
                with self._reading:
                    self._go_on(block, None)
            else:
                self._go_on_within(block, timeout)

    def _go_on_within(self, block: Iterator[Any], timeout: float) -> None:
        deadline = self._now() + timeout
        try:
            if not self._reading.acquire(timeout=max(0.0, timeout)):
                raise self._timed_out
            self._go_on(block, deadline)
        finally:
            if self._reading._is_owned():  # type: ignore[attr-defined]
                self._reading.release()

    def _go_on(self, block: Iterator[Any], deadline: float | None) -> None:
        """Begin the next block after this one, unless another thread has. Raises the loop's end at the end."""
        if self._block is block:
            self._end_block()
            while not self._begin_block():
                if self._is_closed:
                    break
                if not self._read():
                    self._await_news(deadline)
            else:
                return
        if self._is_closed:
            if self._all_done:
                self._stream.run._await_last_call(self._left(deadline))
            self._lent.await_end()
            self._raise_input_error()
            raise StopIteration

    def _await_news(self, deadline: float | None) -> None:
        self._expect()
        try:
            self._arrivals.news.wait(self._left(deadline))
        except TimeoutError:
            raise self._timed_out from None

    def _expect(self) -> None:
        """Prepare to wait for the next outcome. Raises the error that keeps it from coming."""
        self._stream.check()
        self._stream.expect()

    def _left(self, deadline: float | None) -> float | None:
        return None if deadline is None else max(0.0, deadline - self._now())

    # -- errors ----------------------------------------------------------------------------------------------

    def _error_of(self, failure: Failure) -> BaseException:
        return failure.error

    def _raise_input_error(self) -> None:
        error = self._input.error
        if error is not None:  # it may be false: some exceptions have a length
            error = _not_an_end(error, "the input")
            self._input.error = None
            raise error

    # -- by the block ----------------------------------------------------------------------------------------

    def _end_block(self) -> None:
        """Make room for more of the input, if the consumer has taken all outcomes at hand."""
        if self._is_torn:
            self._close()
            raise QueueClosedError(
                "an interruption, such as a Ctrl-C, came while items were read or results taken, and some may be lost: "
                "this iterator is closed; for all results, make a new one"
            )
        if not self._next_blocks:
            self._input.took(self._taken)
            self._read()

    def _begin_block(self) -> bool:
        """Begin the next block; False if its outcomes are still to come, or at the end, which closes the iterator."""
        if self._is_closed:
            self._close()  # the part that an interruption left undone
            return False
        self._is_torn = True
        if not self._next_blocks:
            self._take()
        found = bool(self._next_blocks)
        if found:
            block = self._next_blocks.popleft()
            if len(block) == 1 and type(block[0]) is Failure:
                block = [ToRaise(_not_an_end(self._error_of(block[0]), "an item"))]
            self._block = iter(block)
        self._is_torn = False
        if not found and self._input.drained:
            self._close()
        elif not found and self._arrivals.are_over:
            self._close()
            raise self._stream.fault or ended_error()
        return found

    def _take(self) -> None:
        """Take the next outcomes, if they have come."""
        indices = self._arrivals.take(max(1, self._window() // PARTS))
        if indices:
            outcomes = self._treated(self._stream.take_all(indices))
            self._taken += len(indices)
            has_failure = Failure in map(type, outcomes)
            self._next_blocks.extend([[one] for one in outcomes] if has_failure else [outcomes])

    def _treated(self, outcomes: list[Any]) -> list[Any]:
        """The outcomes in the consumer's form."""
        return outcomes

    def _read(self) -> bool:
        """Read some of the input; False if there is no room for it, or all was read."""
        if self._is_closed:
            return False
        self._is_torn = True
        try:
            has_read = self._input.read()
        except BaseException:
            self._close()
            raise
        self._is_torn = False
        return has_read

    # -- the end ---------------------------------------------------------------------------------------------

    def _close(self) -> None:
        if self._lent_has_ended:
            return
        self._is_closed = True
        self._all_done = self._input.drained
        self._input.stop()
        self._block = iter(())
        self._next_blocks.clear()
        stream = self._stream
        stream.run._end_bar()
        with contextlib.suppress(QueueClosedError):  # or this is a fork, which has none of it
            if self._all_done:
                stream.seal()
            else:
                stream.cancel()
        self._lent_has_ended = True
        self._lent.end(kill=not self._all_done)

    def __del__(self) -> None:
        if hasattr(self, "_all_done"):  # the iterator was made
            self._close()


class ToRaise:
    """The error of a failed item. Taking it empties this: a raised error holds the consumer's frame."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error: Any = error


def _not_an_end(error: BaseException, what: str) -> BaseException:
    """Return the error of an item or the input as ``next`` may raise it: a StopIteration looks like the end."""
    if not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    wrapped = RuntimeError(f"{what} raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def ended_error() -> QueueClosedError:
    """Return the error of a call that the pool's end cut off. `multiprocessing.Pool` would wait for ever."""
    return QueueClosedError("the pool was closed or terminated before this call ended")


class Arrivals:
    """The items that have ended and were not taken yet, in the order of the input, or of their ends."""

    def __init__(self, ordered: bool, first: int = 0) -> None:
        self.news: Mailbox[Ended] = Mailbox()  #: any thread puts ended items; None: no more come
        self.are_over = False
        self._ordered = ordered
        self._next = first
        self._stretches: dict[int, range] = {}  #: ordered: by their first item
        self._line: deque[Sequence[int]] = deque()  #: unordered

    def take(self, most: int) -> Sequence[int]:
        """Take the next items, at most ``most``; none if the next is still to come. One consumer at a time."""
        while not self.news.is_empty():
            indices = self.news.take()
            if indices is None:
                self.are_over = True
            elif indices:  # an empty notice, which only wakes the consumer, would hide later ones
                self._add(indices)
        return self._take_ordered(most) if self._ordered else self._take_first(most)

    def _add(self, indices: Sequence[int]) -> None:
        if not self._ordered:
            self._line.append(indices)
        elif isinstance(indices, range):
            self._stretches[indices.start] = indices
        else:
            self._stretches.update((index, range(index, index + 1)) for index in indices)

    def _take_first(self, most: int) -> Sequence[int]:
        indices: Sequence[int] = self._line.popleft() if self._line else ()
        if len(indices) > most:
            self._line.appendleft(indices[most:])
        return indices[:most]

    def _take_ordered(self, most: int) -> Sequence[int]:
        lo = hi = self._next
        while hi - lo < most and (stretch := self._stretches.pop(hi, None)) is not None:
            hi = min(stretch.stop, lo + most)
            if hi < stretch.stop:
                self._stretches[hi] = range(hi, stretch.stop)
        self._next = hi
        return range(lo, hi)


# -- `InputReader`: reads the input of a stream, ahead of its results by the window at most. ---------------------------
#
# mpqueue's own functions read on the consumer's thread: when the consumer stops, reading stops. `Pool` reads on a
# thread of its own, as `multiprocessing.Pool` does: an input may depend on the consumer's use of earlier results (a
# crawler's queue), and results never wait for a slow input.

#: Outcomes are taken, and the window of a reader at its limit is filled, by at least this fraction (1/n).
PARTS = 4
#: The target of one reading, in seconds: results that come meanwhile wait. A slow input is read item by item.
READ_SECONDS = 0.002
#: One reading is at most this many times as long as the one before.
GROWTH = 8


class InputReader:
    """The reader of a stream's input. ``window`` is how many items may be under way or untaken.

    An error of the input is kept for its place.
    """

    def __init__(
        self, items: Iterator[Any], stream: Stream, window: Callable[[], int], now: Callable[[], float]
    ) -> None:
        self._items = items
        self._stream = stream
        self._window = window
        self._now = now
        self._stride = 1
        self._room = SafeEvent()  #: for the thread: there may be room
        self._has_thread = False
        self.added = 0  #: written only by the reading thread
        self.taken = 0  #: written only by the consumer
        self.exhausted = False  #: True once nothing more is read
        self._is_stopped = False
        self.error: BaseException | None = None  #: the input's error, for its place behind the last item

    @property
    def drained(self) -> bool:
        """True if all of the input was read, and all of its outcomes were taken."""
        return self.exhausted and not self._is_stopped and self.taken == self.added

    def took(self, count: int) -> None:
        """Note that the consumer has taken that many outcomes in total."""
        self.taken = count
        self._room.set()

    def stop(self) -> None:
        """Read no more; a generator is closed, unless it is referenced elsewhere."""
        self._is_stopped = True
        self._close()
        self._room.set()

    def _close(self) -> None:
        self.exhausted = True
        self._items = iter(())

    def _room_now(self) -> int:
        """Return how many items the window has room for; 0 if only a few, since each addition is a message."""
        window = self._window()
        room = window - (self.added - self.taken)
        return room if room >= max(1, window // PARTS) else 0

    # -- on the consumer's thread ----------------------------------------------------------------------------

    def read(self) -> bool:
        """Give the stream as many items as the window has room for; False if that is none, or all was read.

        If it raises, it is not known which items the stream has.
        """
        if self._has_thread or self.exhausted:
            return False
        count = min(self._room_now(), self._stride)
        if not count:
            return False
        started = self._now()
        batch: list[Any] = []
        try:
            batch.extend(itertools.islice(self._items, count))
            if len(batch) < count:
                self._close()
        except Exception as error:  # noqa: BLE001 - the input's own, to be raised in its place
            self._close()
            self.error = error
        items, good, fault = self._stream.look_at(batch)
        if fault is not None:
            self._close()
            self.error = fault
        seconds = self._now() - started
        if count == self._stride or seconds > READ_SECONDS:
            self._stride = max(1, int(count * READ_SECONDS / max(seconds, READ_SECONDS / GROWTH)))
        if good:
            self.added += good
            self._stream.add(items)
        return True

    # -- on a thread of its own ------------------------------------------------------------------------------

    def start(self) -> None:
        """Read on a new thread from now on, until the input ends, or `stop`; then the stream is sealed.

        Items are added one by one, since the next one may take long.
        """
        self._has_thread = True
        threading.Thread(target=self._run, name="mpqueue-input-reader", daemon=True).start()

    def lift_window(self) -> None:
        """Let the thread read all of the input, even if outcomes are not taken."""
        self._window = lambda: sys.maxsize
        self._room.set()

    def _run(self) -> None:
        try:
            while self._may_read():
                item = next(self._items)
                if self._is_stopped:
                    break
                self._stream.add([item])
                self.added += 1
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - the input's own, to be raised in its place
            self.error = error
        self._close()
        with contextlib.suppress(QueueClosedError):
            self._stream.seal()

    def _may_read(self) -> bool:
        """Wait until there is room in the window; False if no more is to be read."""
        if self.added - self.taken >= self._window():
            self._room.clear()  # before looking: the consumer counts before it sets this
            while not self.exhausted and not self._room_now():
                self._room.wait()
                self._room.clear()
        return not self.exhausted


def read_whole_chunks(items: Iterator[Any], size: int) -> Iterator[Any]:
    """Yield the items, read ``size`` at a time; if the input raises, the incomplete chunk is dropped."""
    while chunk := [*itertools.islice(items, size)]:
        yield from chunk
