"""`ItemIterator`: what `imap` and `imap_unordered` return: the results, also for coroutines, and what ends the work.

The input is read on the consumer's thread, and only so far ahead as keeps the workers busy: an endless generator works,
memory stays constant, and when the consumer stops, so does the reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

from mpqueue._core.state.item_table import Failure
from mpqueue._dropin.lent_queues import LentQueue
from mpqueue._dropin.map_options import OnItemError
from mpqueue._dropin.stream_results import StreamResults
from mpqueue._output.progress import PATIENCE
from mpqueue._queue.growing.stream import Stream
from mpqueue._queue.mailbox import Turns
from mpqueue._queue.run import Ended
from mpqueue.errors import TooManyFailuresError

R = TypeVar("R")


class ItemIterator(StreamResults[R]):
    """The results of one `imap`, also for ``async for``. An item that failed raises in its place, and it goes on.

    ``close`` and ``aclose`` (by `contextlib.closing` and `contextlib.aclosing`), or dropping the last reference, end
    the work and its running items. Any number of threads may read, or one coroutine. The input is read there, by one
    of them at a time: while the input makes it wait, so do the results.
    """

    _lent: LentQueue

    def __init__(
        self,
        open_: Callable[[Callable[[Ended], None]], Stream],
        items: Iterator[Any],
        window: Callable[[Stream], int],
        lent: LentQueue,
        *,
        ordered: bool,
        on_error: OnItemError,
        max_failures: int | None,
    ) -> None:
        self._on_error = on_error
        self._max_failures = max_failures
        self._failed = 0
        self._one_too_many: Failure | None = None  #: with which it ends, as ``max_failures`` says
        super().__init__(open_, items, window, lent, ordered=ordered)
        self._turns = Turns(self._now)

    def _start(self) -> None:
        """Read the first items, so that the work begins before the first result is asked for."""
        while self._read() and self._arrivals.news.is_empty():
            pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        await self._turns.give()  # before an outcome is taken: what interrupts the turn loses none
        while True:
            for outcome in self._block:
                if type(outcome) is Failure:
                    error = self._taken_error(outcome)
                    try:
                        del self, outcome  # as in `__next__`
                        raise error
                    finally:
                        del error
                return outcome  # type: ignore[no-any-return]
            self._end_block()
            await self._turns.give()
            while not self._begin_block():
                if self._read():
                    await self._turns.give()
                else:
                    self._expect()
                    await self._arrivals.news.wait_later()
            if self._is_closed:
                if self._all_done:
                    await self._stream.run._await_last_call_later()
                await self._lent.await_end_later()
                self._raise_input_error()
                raise StopAsyncIteration

    # -- failures -----------------------------------------------------------------------------------------------

    def _treated(self, outcomes: list[Any]) -> list[Any]:
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

    def _error_of(self, failure: Failure) -> BaseException:
        if failure is self._one_too_many:  # the type does not tell: a handler may raise that, too
            self._one_too_many = None
            self._close()
        return failure.error

    def _too_many(self, last: Failure) -> TooManyFailuresError:
        error = TooManyFailuresError(
            f"{self._failed} items failed, which is more than max_failures={self._max_failures}; the last one: "
            f"{last.shown}. What had not run by then was not run."
        )
        error.__cause__ = last.error
        return error

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the work: what waits does not run, what runs is ended. Idempotent.

        Waits up to 1 s until a function given as ``progress`` has had the last state, and with a journal until that is
        closed. Raises `JournalError` where not all of it could be written.
        """
        self._close()
        self._stream.run._await_last_call(PATIENCE)
        self._lent.await_end()

    async def aclose(self) -> None:
        """`close`, for `contextlib.aclosing`: the event loop goes on meanwhile."""
        self._close()
        await self._stream.run._await_last_call_later(PATIENCE)
        await self._lent.await_end_later()
