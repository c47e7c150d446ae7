"""`ItemIterator`: the results of a stream, one by one, while its input is read.

The input is read on the consumer's thread, and only so far ahead as keeps the workers busy: an endless generator works,
memory stays constant, and when the consumer stops, so does the reading.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

from mpqueue._core.state.item_table import Failure
from mpqueue._dropin.map.input_reader import InputReader
from mpqueue._dropin.map.lent_queues import LentQueue
from mpqueue._dropin.map.map_options import OnItemError
from mpqueue._dropin.stream_results import PARTS, StreamResults, not_an_end, torn_error
from mpqueue._output.progress import PATIENCE
from mpqueue._queue.growing.stream import Stream
from mpqueue._queue.mailbox import Turns
from mpqueue._queue.run import Ended
from mpqueue.errors import QueueClosedError, TooManyFailuresError

R = TypeVar("R")


class ItemIterator(Generic[R]):
    """The results of one `imap`, also for ``async for``. An item that failed raises in its place, and it goes on.

    ``close`` and ``aclose`` (by `contextlib.closing` and `contextlib.aclosing`), or dropping the last reference, end
    the work and its running items. Any number of threads may read, or one coroutine. The input is read there, by one
    of them at a time: while the input makes it wait, so do the results.
    """

    def __init__(
        self,
        open_: Callable[[Callable[[Ended], None]], Stream],
        reader: InputReader,
        lent: LentQueue,
        *,
        ordered: bool,
        on_error: OnItemError,
        window: Callable[[Stream], int],
        max_failures: int | None,
    ) -> None:
        self._reader = reader
        self._on_error = on_error
        self._max_failures = max_failures
        self._failed = 0
        self._one_too_many: Failure | None = None  #: with which it ends, as ``max_failures`` says
        self._lent = lent
        self._spoke = False
        self._added = self._taken = 0  #: items: read, and given to the consumer
        self._block: Iterator[Any] = iter(())  #: outcomes that are there; a `Failure` is to be raised
        self._block_size = 0
        self._results = StreamResults(open_, window, ordered=ordered)
        self._is_closed = False
        self._reading = threading.RLock()  #: held by the thread that waits for more
        self._lent_has_ended = False
        self._all_done = False  #: it has ended with the last result
        self._turns = Turns(lent.queue._host.engine.clock.now)

    def _start(self) -> None:
        """Read the first items, so that the work begins before the first result is asked for."""
        while self._read() and self._results.news.is_empty():
            pass

    # -- one by one ------------------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        while True:
            block = self._block
            for outcome in block:
                if type(outcome) is Failure:
                    with self._reading:
                        was_torn, self._results.is_torn = self._results.is_torn, True
                        error = self._error_of(outcome, was_torn=was_torn)
                    try:
                        del (
                            self,
                            block,
                            outcome,
                        )  # the error's traceback has this frame: it would keep the iterator alive
                        raise error
                    finally:
                        del error
                return outcome  # type: ignore[no-any-return]
            with self._reading:
                if self._block is block:  # else another thread has begun the next one
                    self._begin_next_block()
                if self._is_closed:
                    if self._all_done:
                        self._results.stream.run._await_last_call()
                    if self._spoke:  # what was logged is delivered before the loop is over
                        self._lent.queue._host.await_told()
                    self._lent.await_end()
                    self._raise_input_error()
                    raise StopIteration

    def _begin_next_block(self) -> None:
        """Wait for the next outcomes, or close at the end."""
        self._check_whole()
        self._end_block()
        while not self._begin_block():
            if not self._read():
                self._results.check()
                self._results.stream.expect()
                self._results.news.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        await self._turns.give()  # before an outcome is taken: what interrupts the turn loses none
        while True:
            for outcome in self._block:
                if type(outcome) is Failure:
                    was_torn, self._results.is_torn = self._results.is_torn, True
                    error = self._error_of(outcome, was_torn=was_torn)
                    try:
                        del self, outcome  # the error's traceback has this frame, and would keep the iterator alive
                        raise error
                    finally:
                        del error
                return outcome  # type: ignore[no-any-return]
            self._check_whole()
            self._end_block()
            await self._turns.give()
            while not self._begin_block():
                if self._read():
                    await self._turns.give()
                else:
                    self._results.check()
                    self._results.stream.expect()
                    await self._results.news.wait_later()
            if self._is_closed:
                if self._all_done:
                    await self._results.stream.run._await_last_call_later()
                await self._lent.await_end_later()
                self._raise_input_error()
                raise StopAsyncIteration

    def _error_of(self, failure: Failure, *, was_torn: bool) -> BaseException:
        self._block = iter([*self._block])  # without it, whose error is about to have the consumer's frame
        if failure is self._one_too_many:  # the type does not tell: a handler may raise that, too
            self._one_too_many = None
            self._close()
        error = not_an_end(failure.error, "an item")
        self._results.is_torn = was_torn
        return error

    def _raise_input_error(self) -> None:
        error = self._reader.error
        if error is not None:  # which may be false: there are exceptions that have a length
            error = not_an_end(error, "the input")
            self._reader.error = None
            raise error

    def _check_whole(self) -> None:
        if self._results.is_torn:
            self._close()
            raise torn_error()

    # -- by the block ----------------------------------------------------------------------------------------

    def _end_block(self) -> None:
        """The consumer has had it all, which makes room for more of the input."""
        self._taken += self._block_size
        self._block_size = 0
        self._read()

    def _begin_block(self) -> bool:
        """Take the next outcomes, or close at the end; False where the next one is still to come."""
        if self._is_closed:
            self._close()  # what an interruption left undone of it
            return True
        outcomes = self._results.take_block()
        if self._results.is_over:
            self._close()
            self._results.is_torn = False
            raise self._results.stream.fault or QueueClosedError("the pool was closed while results were still to come")
        if outcomes:
            self._block, self._block_size = iter(self._treated(outcomes)), len(outcomes)
        self._results.is_torn = False
        if not outcomes and self._taken == self._added and self._reader.is_over:
            self._close()
        return bool(outcomes) or self._is_closed

    def _treated(self, outcomes: list[Any]) -> list[Any]:
        """The outcomes with their failures as ``on_error`` and ``max_failures`` say."""
        if Failure not in map(type, outcomes):
            return outcomes
        treated = []
        for outcome in outcomes:
            if type(outcome) is not Failure:
                treated.append(outcome)
                continue
            self._failed += 1
            if self._max_failures is not None and self._failed > self._max_failures:
                self._one_too_many = Failure(self._too_many(outcome))
                return [*treated, self._one_too_many]
            if self._on_error == "raise":
                treated.append(outcome)
            elif self._on_error == "collect":
                treated.append(outcome.error)
        return treated

    def _too_many(self, last: Failure) -> TooManyFailuresError:
        error = TooManyFailuresError(
            f"{self._failed} items failed, which is more than max_failures={self._max_failures}; the last one: "
            f"{last.shown}. What had not run by then was not run."
        )
        error.__cause__ = last.error
        return error

    def _read(self) -> bool:
        """Read some of the input, where the window has room for it; False where it has not, or all was read."""
        if self._is_closed or self._reader.is_over:
            return False
        window, under_way = self._results.window(), self._added - self._taken
        room = window - under_way
        if room <= 0 or (under_way and room < window // PARTS):
            return False  # a few at a time would be many messages
        batch = self._reader.read(room)
        if batch:
            self._results.is_torn = True
            self._added += len(batch)
            try:
                self._results.stream.add(batch)
            except BaseException:  # which of these were added is unknown
                self._close()
                raise
            self._reader.kept()
            self._results.is_torn = False
        return True

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the work: what waits does not run, what runs is ended. Idempotent.

        Waits up to 1 s until a function given as ``progress`` has had the last state, and with a journal until that is
        closed. Raises `JournalError` where not all of it could be written.
        """
        self._close()
        self._results.stream.run._await_last_call(PATIENCE)
        self._lent.await_end()

    def _close(self) -> None:
        if self._lent_has_ended:
            return
        self._is_closed = True
        self._all_done = self._reader.is_over and self._taken == self._added
        self._reader.close()
        self._block = iter(())
        stream = self._results.stream
        self._spoke = stream.run._spoke
        stream.run._end_bar()
        with contextlib.suppress(QueueClosedError):  # or this is a fork, which has none of it
            if self._all_done:
                stream.seal()
            else:
                stream.cancel(kill=True)
        self._lent_has_ended = True
        self._lent.end(kill=not self._all_done)

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing`: the event loop goes on meanwhile."""
        self._close()
        await self._results.stream.run._await_last_call_later(PATIENCE)
        await self._lent.await_end_later()

    def __del__(self) -> None:
        if hasattr(self, "_is_closed"):  # it was made
            self._close()
