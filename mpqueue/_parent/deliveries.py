"""Deliveries: the results of a job's items on their way into a sink, on the job's own thread.

A sink is users' code and may be as slow as its disk. Only its job waits for it: no more of its items are sent while too
many results wait to be written, and the job ends once its sink has been closed. An error of a sink stops its job.

It comes after the journal: results are in the journal before they go into a sink.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from mpqueue._core.commands import AnnounceFinished, AnnounceItems
from mpqueue._core.messages import JobCancelled, JobHeldBack, Message
from mpqueue._core.state.job_book import JobBook
from mpqueue._parent.surroundings.replies import Reply
from mpqueue._parent.transport.kept_errors import text_of
from mpqueue._parent.users_threads import Errands
from mpqueue.errors import InternalError, SinkError
from mpqueue.status import OVER

log = logging.getLogger("mpqueue")

#: Bytes of results that may wait for a sink before no more items are sent.
MOST_WAITING = 64 << 20
#: Seconds between two looks whether there is room for a thread.
ROOM_LOOK = 1.0
#: Bytes of a result in memory beside its content.
OBJECT = 48


class Outlet(Protocol):
    """A sink with the maker of its rows. Used by one thread at a time; may raise anything."""

    def open(self) -> None:
        """Prepare for rows."""

    def put(self, indices: Sequence[int], size: int) -> None:
        """Write the rows of these ended items; ``size``: bytes of their results, as far as known."""

    def finish(self) -> None:
        """Complete the sink: all rows have come."""

    def leave(self) -> str:
        """End without the missing rows. Returns a text about the kept rows."""


class Delivery:
    """The way of one job's results. Made with the job."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.error: SinkError | None = None
        self.over = False  #: its sink has been closed, or is not waited for any more
        self.kept: str | None = None  #: a text about the kept rows of a job if some are missing
        #: Given once the sink is open, or could not be opened.
        self.opened: Reply[None] = Reply()
        # used on the coordinator's thread:
        self.errands: Errands | None = None
        self.waiting = 0  #: bytes that wait to be written
        self.holds_back = False
        self.lacks_room = False  #: there was no room for its thread; a look whether there is some is due
        self.then: Callable[[], object] | None = None  #: called once its sink has been closed
        self.broken_by: BaseException | None = None  #: or set here if it has no thread of its own
        # used on its own thread:
        self.is_open = False


class Deliveries:
    """The deliveries under way. On the coordinator's thread, unless a method says otherwise."""

    def __init__(
        self,
        name: str,
        wall: Callable[[], float],
        later: Callable[[Callable[[], object], JobBook], object],
        handle: Callable[[Message], object],
        let_go: Callable[[object], object],
        in_a_while: Callable[[float, Callable[[], object]], object],
    ) -> None:
        self._name = name
        self._wall = wall
        self._later = later  #: on any thread
        self._handle = handle
        self._let_go = let_go
        self._in_a_while = in_a_while  #: on the coordinator's thread only
        self._under_way: dict[int, tuple[JobBook, Delivery]] = {}
        self._own = threading.local()  #: on each job's own thread: the job

    @property
    def all_done(self) -> bool:
        """True if nothing is under way."""
        return not self._under_way

    @property
    def job_here(self) -> JobBook | None:
        """The job whose sink calls this, on the job's own thread. On any thread."""
        job: JobBook | None = getattr(self._own, "job", None)
        return job

    def is_under_way(self, job: JobBook) -> bool:
        """True from the job's start until its sink has been closed."""
        return job.number in self._under_way

    def start(self, job: JobBook, ended: Sequence[range]) -> None:
        """Start the delivery of a job that starts: its sink is opened, and gets the rows of ``ended`` items.

        Until the sink is open, the scheduler holds the job back.
        """
        delivery = job.delivery
        if not isinstance(delivery, Delivery) or delivery.over:
            return
        self._under_way[job.number] = job, delivery
        delivery.errands = Errands(f"mpqueue-{self._name}-{job.number}", _tell_fault)
        delivery.errands.put(partial(self._open, job, delivery))
        if delivery.errands.thread is None:
            self._refuse(job, delivery, RuntimeError("there is no room for the thread that writes results"))
        for stretch in ended:
            self._put(delivery, partial(self._write, job, delivery, stretch, 0))

    def put(self, announced: AnnounceItems) -> None:
        """Write the rows of items that have ended, except those that are tried again."""
        job, (_, delivery) = announced.job, self._under_way.get(announced.job.number, (None, None))
        if delivery is None or delivery.errands is None or delivery.error is not None or job.fault is not None:
            return
        ended, again = announced.indices, announced.retrying
        if again:
            ended = [index for index in ended if index not in again]
        if not ended:
            return
        size = announced.size + OBJECT * len(ended)
        delivery.waiting += size
        self._put(delivery, partial(self._write, job, delivery, ended, size))
        if delivery.waiting > MOST_WAITING and not delivery.holds_back:
            self._hold_back(job, delivery, held=True)

    def _put(self, delivery: Delivery, errand: Callable[[], object]) -> None:
        assert delivery.errands is not None
        delivery.errands.put(errand)
        if delivery.errands.thread is None and not delivery.lacks_room:
            self._find_room(delivery, delivery.errands)

    def _find_room(self, delivery: Delivery, errands: Errands) -> None:
        """Start the job's own thread, now or once there is room for it."""
        errands.go_on()
        delivery.lacks_room = errands.busy and errands.thread is None and not delivery.over
        if delivery.lacks_room:
            self._in_a_while(ROOM_LOOK, partial(self._find_room, delivery, errands))

    def end(self, announced: AnnounceFinished, then: Callable[[], object]) -> None:
        """End the delivery of an ended job: once all rows are written and the sink is closed, ``then`` is called."""
        job, delivery = self._under_way[announced.job.number]
        assert delivery.errands is not None
        delivery.then = then
        is_whole = announced.status in OVER and job.fault is None
        self._put(delivery, partial(self._close, job, delivery, is_whole))

    def drop(self, job: JobBook) -> None:
        """End the delivery of a job that an internal error has ended; no caller waits for its sink."""
        if job.number in self._under_way:
            _, delivery = self._under_way[job.number]
            delivery.then = None
            assert delivery.errands is not None
            self._put(delivery, partial(self._close, job, delivery, False))

    def abandon(self) -> None:
        """Go on without unfinished deliveries: their threads are left behind."""
        for job, delivery in list(self._under_way.values()):
            assert delivery.errands is not None
            delivery.errands.abandon()
            error = _sink_error(job, TimeoutError("it takes too long"), "what it has written by now")
            delivery.opened.set_exception(error)  # it may hang in `open`
            self._ended(job, delivery, error)

    # -- on the job's own thread -----------------------------------------------------------------------------

    def _open(self, job: JobBook, delivery: Delivery) -> None:
        self._own.job = job
        if delivery.broken_by is not None:
            return
        try:
            delivery.outlet.open()
        except BaseException as error:
            self._refuse(job, delivery, error)
        else:
            delivery.is_open = True
            self._later(partial(self._handle, JobHeldBack(job, held=False)), job)
            delivery.opened.set_result(None)

    def _refuse(self, job: JobBook, delivery: Delivery, error: BaseException) -> None:
        delivery.broken_by = error
        self._later(partial(self._stop, job, error), job)
        delivery.opened.set_exception(error)

    def _write(self, job: JobBook, delivery: Delivery, indices: Sequence[int], size: int) -> None:
        self._own.job = job
        if delivery.broken_by is not None or delivery.over:
            return
        try:
            delivery.outlet.put(indices, size)
        except BaseException as error:
            delivery.broken_by = error
            self._later(partial(self._stop, job, error), job)
        else:
            self._later(partial(self._written, job, delivery, indices, size), job)

    def _close(self, job: JobBook, delivery: Delivery, is_whole: bool) -> None:
        self._own.job = job
        if delivery.over:
            return
        if is_whole and delivery.broken_by is None:
            try:
                delivery.outlet.finish()
            except BaseException as error:
                delivery.broken_by = error
        failure = None
        if not is_whole or delivery.broken_by is not None:
            kept = _leave(delivery)
            if delivery.broken_by is not None:
                failure = _sink_error(job, delivery.broken_by, kept)
        self._later(partial(self._ended, job, delivery, failure), job)

    # -- on the coordinator's thread -------------------------------------------------------------------------

    def _written(self, job: JobBook, delivery: Delivery, indices: Sequence[int], size: int) -> None:
        table = job.table
        if table.source is None:  # otherwise the journal's results, which it frees itself
            results = table.release(indices)
            if table.live.foreign:
                self._let_go(results)
        delivery.waiting -= size
        if delivery.holds_back and delivery.waiting <= MOST_WAITING // 2:
            self._hold_back(job, delivery, held=False)

    def _hold_back(self, job: JobBook, delivery: Delivery, *, held: bool) -> None:
        delivery.holds_back = held
        self._later(partial(self._handle, JobHeldBack(job, held)), job)

    def _stop(self, job: JobBook, reason: BaseException) -> None:
        why = f"its results can't be written: {text_of(reason)}"
        self._handle(JobCancelled(job, self._wall(), kill=True, why=why))

    def _ended(self, job: JobBook, delivery: Delivery, error: SinkError | None) -> None:
        if delivery.over:
            return
        delivery.error, delivery.over = error, True
        if error is not None and error.__cause__ is not None:
            with contextlib.suppress(InternalError):  # it has ended the job
                self._stop(job, error.__cause__)
        if delivery.holds_back:
            self._hold_back(job, delivery, held=False)
        if delivery.errands is not None:
            delivery.errands.end()
        del self._under_way[job.number]
        then, delivery.then = delivery.then, None
        if then is not None:
            then()


def _leave(delivery: Delivery) -> str:
    """Leave the outlet, and return a text about the kept rows."""
    if not delivery.is_open:
        return "nothing"
    try:
        delivery.kept = delivery.outlet.leave()
    except BaseException as error:
        delivery.kept = "what it had written before"
        delivery.broken_by = delivery.broken_by or error
    return delivery.kept


def _sink_error(job: JobBook, reason: BaseException, kept: str) -> SinkError:
    error = SinkError(f"job {job.id!r}: its results can't be written: {text_of(reason)}; kept: {kept}")
    error.__cause__ = reason
    return error


def _tell_fault(error: BaseException) -> None:
    log.critical("mpqueue made a mistake while it wrote results; please report it", exc_info=error)
