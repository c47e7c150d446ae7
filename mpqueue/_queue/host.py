"""`QueueHost`: a queue as the rest of the package uses it; and its end."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from mpqueue._core.messages import FailedItemsReset, JobStartAsked, LanesWanted
from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneState
from mpqueue._options import GivenOptions, JobOptions, QueueOptions
from mpqueue._output.progress import Showing, ShowProgress, are_shown, in_notebook, make_displays
from mpqueue._parent.deliveries import Delivery
from mpqueue._parent.interpreter_exit import is_exiting
from mpqueue._parent.lane_protocol import Backend
from mpqueue._parent.queue_runtime import LISTENER_WAIT_S, QueueRuntime
from mpqueue._parent.replies import Bell, Reply, SafeFuture, runs_loop
from mpqueue._queue.announcer import OpenRuns, with_speech
from mpqueue._queue.arguments import make_job
from mpqueue._queue.job import Job
from mpqueue._queue.registry import Held, Registry
from mpqueue._queue.run import Ended, JobRun
from mpqueue._wire.pickling.packed_handler import pack_handler
from mpqueue._worker.handlers.called import run_call
from mpqueue.errors import QueueClosedError

if TYPE_CHECKING:
    from mpqueue._live_page.server import Page
    from mpqueue._queue.growing_jobs import Stage
    from mpqueue._queue.job_queue import JobQueue

T = TypeVar("T")
log = logging.getLogger("mpqueue")


class QueueHost:
    """The methods of a queue for runs, streams and the drop-ins, for internal use: ``queue._host``.

    Direct access to its threads and workers, and to jobs that are not among its `jobs`. It is reached through the
    queue, which the caller of a method holds meanwhile.
    """

    def __init__(
        self,
        queue: JobQueue,
        engine: QueueRuntime,
        backend: Backend,
        jobs: Registry,
        runs: OpenRuns,
        closer: Closer,
    ) -> None:
        self._queue = weakref.ref(queue)
        self.engine = engine
        self.jobs = jobs
        self.tell_failures = True  #: below a bar drawn by ``progress=True``; the command line does so itself
        self._backend = backend
        self._runs = runs
        self.closer = closer
        self._has_held_up = False  #: an event loop on whose thread a run was waited for

    # -- starts ----------------------------------------------------------------------------------------------

    def start(
        self,
        run: JobRun,
        showing: Showing,
        on_ended: Callable[[Ended], None] | None = None,
        *,
        waits_for_run: bool = False,
    ) -> None:
        """Start a run's pending job, and its stages; returns once its sink is open. Raises errors of `JobQueue.start`.

        ``on_ended`` is as in `start_table`. If the caller ``waits_for_run`` next, that may raise a failure to start.
        """
        coordinator, book = self.engine.coordinator(), run._book
        jobs = [book] if book.restored else book.family  # one that had ended before is only reported again
        messages = [JobStartAsked(job, self.engine.clock.wall()) for job in jobs]
        begin, delivery = self._beginning(run, messages, showing, on_ended), book.delivery
        if waits_for_run and delivery is None:
            coordinator.check_thread()
            coordinator.ask_later(begin, run._begun)
            return
        coordinator.ask(begin)
        if isinstance(delivery, Delivery):
            try:
                delivery.opened.result()
            except BaseException:
                run._cancel(kill=True)
                raise

    def start_again(self, run: JobRun, showing: Showing, indices: Sequence[int] | None = None) -> None:
        """Run a finished job's failed items again, all or these. Raises the errors of `JobQueue.retry_failed`."""
        message = FailedItemsReset(run._book, self.engine.clock.wall(), None, indices)
        self.engine.coordinator().ask(self._beginning(run, [message], showing))

    def _beginning(
        self,
        run: JobRun,
        asked: Sequence[JobStartAsked | FailedItemsReset],
        showing: Showing,
        on_ended: Callable[[Ended], None] | None = None,
    ) -> Callable[[], None]:
        engine, book = self.engine, run._book
        displays = run._displays = make_displays(
            showing, book, engine.listeners, engine.clock.now, failures=self.tell_failures
        )
        beside_bar = are_shown() or any(display.draws for display in displays)
        messages = [
            message._replace(handler=with_speech(message.job, beside_bar=beside_bar))
            if message.job.handler
            else message
            for message in asked
        ]

        def begin() -> None:
            self.closer.check_open("start a job")  # again: it can't be closed between this and the start
            if on_ended is not None:
                engine.coordinator().subscribe_early(book, on_ended)
            self.jobs.check_startable(book)
            engine.begin(asked[0])
            self._runs.add(book, run)  # first: a job without items ends while it starts
            try:
                for message in messages:
                    engine.handle(message)
            except BaseException:
                self._runs.take_back(book)
                raise
            for display in displays:
                display.begin()

        return begin

    # -- jobs of the drop-ins --------------------------------------------------------------------------------

    def start_table(
        self,
        table: ItemTable,
        options: JobOptions,
        handler: Callable[..., Any],
        on_ended: Callable[[Ended], None] | None = None,
        *,
        sealed: bool = True,
        showing: Showing,
        job_id: str | None = None,
        record: Callable[[JobBook], object] = lambda _: None,
    ) -> tuple[JobBook, JobRun]:
        """Start a job that is not among the queue's `jobs`; unless it is ``sealed``, more items may be added.

        ``on_ended`` gets the indices of items as they end, and None at the end, on the coordinator's thread. ``record``
        begins the job's record in a journal.
        """
        self.closer.check_open("start a job")
        number = self.jobs.next_number()
        name = job_id or f"call-{number}"
        transport = self._backend.capabilities.handler_transport
        packed = pack_handler(
            name,
            handler,
            None,
            table.rule,
            options.seed,
            transport=transport,
            script=self.engine.script,
            items=table.payloads if sealed else (),
        )
        if handler is run_call:  # each call has its own options
            packed = packed._replace(classes=None)
        book = JobBook(number, name, table, options, packed, sealed=sealed, listed=False)
        record(book)
        return book, self._start(Held(book, Job(book)), showing, on_ended)

    def start_recorded(
        self,
        job_id: str,
        table: ItemTable,
        options: JobOptions,
        handler: Callable[..., Any],
        asked: GivenOptions,
        *,
        names_one: bool,
        showing: Showing,
    ) -> JobRun:
        """Like `start_table`, for a job that the journal has, or will have, under this id. Raises `JournalError`.

        ``names_one`` is as for `JobRecord`.
        """
        self.closer.check_open("start a job")
        transport = self._backend.capabilities.handler_transport
        from mpqueue._queue.recorded.job_record import JobRecord  # only journals need it

        book = make_job(job_id, table, options, handler, asked, transport=transport)
        record = JobRecord(book, (handler, None), asked, names_one=names_one)
        return self._start(self.jobs.add(book, record), showing)

    def start_stages(
        self,
        items: Iterable[Any],
        stages: Sequence[Stage | Callable[..., Any]],
        asked: GivenOptions,
        defaults: QueueOptions,
        workers: int | None,
        *,
        progress: ShowProgress = False,
    ) -> JobRun:
        """Start a pipeline that is not among the queue's `jobs`; otherwise like `JobQueue.start_stages`.

        ``defaults`` apply to stages without their own. Items may need up to ``workers``, as the call asked for (None:
        all): the queue may have more, or have been made for fewer.
        """
        self.closer.check_open("start a job")
        from mpqueue._queue.growing_jobs import make_pipeline  # most programs have none

        number = self.jobs.next_number()
        queue = self._queue()
        assert queue is not None
        job_id = f"call-{number}"
        concurrency = workers or max(queue.concurrency, self.engine.count_lanes() or 0)
        head, _ = make_pipeline(job_id, items, stages, asked, defaults, self._backend, concurrency, listed=False)
        head.number, head.options = number, replace(head.options, stops_at_once=True)
        for job in head.family[1:]:
            job.number = self.jobs.next_number()
        return self._start(Held(head, Job(head)), Showing(progress))

    def _start(self, held: Held, showing: Showing, on_ended: Callable[[Ended], None] | None = None) -> JobRun:
        queue = self._queue()
        assert queue is not None
        run = JobRun(held, queue)
        self.start(run, showing, on_ended)
        return run

    # -- waits for a run -------------------------------------------------------------------------------------

    def subscribe(self, book: JobBook, put: Callable[[Ended], None]) -> Callable[[], None]:
        """Pass the indices of ended items to a function, those so far first; returns a function that ends this.

        Raises RuntimeError in the job's own sink: the last index comes once the sink is closed.
        """
        self._check_outside_sink("items of a run as they end", book)
        coordinator = self.engine.coordinator()
        coordinator.ask(partial(coordinator.subscribe, book, put))

        def unsubscribe() -> None:
            coordinator.ask_later(partial(coordinator.unsubscribe, book, put))

        return unsubscribe

    def check_waiting_allowed(self, what: str, job: JobBook | None = None, *, instead: str = "") -> None:
        """Raise RuntimeError if waiting for a run would wait for itself; QueueClosedError in a fork.

        ``job`` is the run's; None: it has not begun. ``instead`` names the call that does not block an event loop:
        blocking one is logged once, except in notebooks, whose cells all run in a loop.
        """
        self.engine.check_process()
        if self.engine.listeners.is_here:
            self._refuse_waiting(what, "listeners and done-callbacks")
        self._check_outside_sink(what, job)
        if instead and not self._has_held_up and runs_loop():
            self._has_held_up = True
            if not in_notebook():
                log.warning(
                    "%s holds up the event loop of this thread until the job has ended; %s does not", what, instead
                )

    def _check_outside_sink(self, what: str, job: JobBook | None) -> None:
        if job is not None and self.engine.job_here is job:
            self._refuse_waiting(what, "the sink of the job")

    def _refuse_waiting(self, what: str, where: str) -> NoReturn:
        raise RuntimeError(
            f"{what}: expected to be called outside {where}, which the run waits for; it would never return"
        )

    # -- the workers -----------------------------------------------------------------------------------------

    def want_workers(self, count: int) -> None:
        """Start workers until there are at least that many."""
        coordinator = self.engine.coordinator()
        books = coordinator.scheduler.books
        if books.opened and len(books.lanes) >= count:  # neither is ever undone
            return

        def want() -> None:
            self.engine.handle(LanesWanted(count))
            self.engine.open_pool()

        coordinator.ask(want)

    def worker_pids(self, timeout: float | None = None) -> list[int]:
        """The process ids of the present workers; waits up to ``timeout`` seconds for starting workers."""
        coordinator = self.engine.coordinator()
        lanes = coordinator.scheduler.books.lanes
        if timeout is not None:
            settled = Reply[None]()
            coordinator.ask(
                lambda: coordinator.when(lambda: all(lane.state is not LaneState.STARTING for lane in lanes), settled)
            )
            settled.result(timeout)
        return coordinator.ask(lambda: [lane.pid for lane in lanes if lane.pid is not None])


# -- The end of a queue, by `JobQueue.close` or by leaving a ``with`` block. -------------------------------------------


class Closer:
    """Knows whether the queue is open, and ends it once. Any thread may call any method."""

    def __init__(self, engine: QueueRuntime, runs: OpenRuns) -> None:
        self._engine = engine
        self._runs = runs
        self.pages: weakref.WeakSet[Page] = weakref.WeakSet()  #: closed with the queue; an open page's thread holds it
        self.closed = False
        self._ends_beside = False

    def check_open(self, what: str) -> None:
        """Raise `QueueClosedError` if the queue is closed, or belongs to another process."""
        self._engine.check_process()
        if self.closed:
            raise QueueClosedError(f"expected an open queue to {what}, got one that was closed; make a new one")
        if (broken := self._engine.broken) is not None:
            raise broken

    def close(self, owner: object, *, wait: bool, kill: bool) -> None:
        """End the queue, as `JobQueue.close` says.

        The ``owner``, the queue, is held until all has ended: a queue without references is killed.
        """
        self._engine.check_process()
        self.closed = True
        here = self._engine.is_awaited_here
        if kill and not here:
            self._end(owner, kill=True)
            return
        self._engine.close_jobs(cancel=here or not wait)
        self._finish(partial(self._end, owner, kill=kill), wait=wait and not here)

    def drain(self, owner: object, within: float) -> None:
        """Drain the queue, as `JobQueue.drain` says; ``owner`` as in `close`."""
        self._engine.check_process()
        self.closed = True
        by = self._engine.clock.now() + within
        self._engine.close_jobs(cancel=True, within=within)
        self._finish(partial(self._end, owner, by=by), wait=not self._engine.is_awaited_here)

    def _finish(self, end: Callable[[], None], *, wait: bool) -> None:
        if wait:
            end()
            self._engine.check_written()
        elif not (self._ends_beside or is_exiting()):
            self._ends_beside = True
            close_beside(end)

    def _end(self, _: object, *, kill: bool = False, by: float | None = None) -> None:
        """Wait for the runs and end everything, or wait until another thread has done so.

        ``by`` is the time by which the jobs of a draining queue should be over.
        """
        if not kill:
            now = self._engine.clock.now
            until = None if by is None else max(now(), by) + LISTENER_WAIT_S
            for run in self._runs:
                run._over.wait(None if until is None else max(0.0, until - now()), self._engine.cut_short)
            # The wait was cut short, or listeners take too long.
            kill = self._engine.cut_short.is_set() or not all(run.done() for run in self._runs)
        if kill:
            for run in self._runs:
                run._end_bar()
        self._engine.shutdown(kill=kill, wait_for_listeners=not kill, by=by)
        self._engine.await_end(by)
        for page in [*self.pages]:
            page.close()

    async def close_beside_loop(self, close: Callable[[], None]) -> None:
        """Call ``close`` on another thread and wait for it, while the event loop goes on.

        If the wait is interrupted, everything ends at once, as with ``kill``; the call waits for that too.
        """
        alarm, closed = Bell(), close_beside(close)
        closed.add_done_callback(lambda _: alarm.ring())
        try:
            await alarm.wait()
        except BaseException as interruption:
            self._engine.cut_short.set()
            if not isinstance(interruption, GeneratorExit):  # the coroutine was dropped, and can't await
                await alarm.wait_shielded()
            raise
        finally:
            closed.exception()
        closed.result()


def close_beside(close: Callable[[], object], *, is_awaited_at_exit: bool = False) -> SafeFuture[None]:
    """Call it on a thread of its own, which the program's end may await; returns the future of its end."""
    closed: SafeFuture[None] = SafeFuture()

    def run() -> None:
        try:
            close()
            closed.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised where the end is waited for
            closed.set_exception(error)

    threading.Thread(target=run, name="mpqueue-closer", daemon=not is_awaited_at_exit).start()
    return closed
