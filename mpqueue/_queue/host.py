"""`QueueHost`: a queue as the rest of the package uses it."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from mpqueue._core.messages import LanesWanted, Message
from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneState
from mpqueue._options import GivenOptions, JobOptions, QueueOptions
from mpqueue._output.progress import Showing, ShowProgress
from mpqueue._parent.lane_protocol import Backend
from mpqueue._parent.machinery import Engine
from mpqueue._parent.surroundings.replies import Reply, SafeEvent
from mpqueue._queue.closer import Closer
from mpqueue._queue.job import Job
from mpqueue._queue.mailbox import runs_loop
from mpqueue._queue.new_job import make_job
from mpqueue._queue.open_runs import JobStarter
from mpqueue._queue.recorded.record_options import RecordOptions
from mpqueue._queue.registry import Held, Registry
from mpqueue._queue.run import Ended, JobRun
from mpqueue._wire.pickling.packed_handler import pack_handler
from mpqueue._worker.handlers.called import run_call
from mpqueue.errors import JournalError, QueueClosedError

if TYPE_CHECKING:
    from mpqueue._queue.growing.stages import Stage
    from mpqueue._queue.job_queue import JobQueue

T = TypeVar("T")
log = logging.getLogger("mpqueue")


#: Seconds after which a thread that waits for the listener thread checks that it is alive.
LOOK_AGAIN = 1.0


class QueueHost:
    """The methods of a queue for runs, streams and the drop-ins, for internal use: ``queue._host``.

    Direct access to its threads and workers, and to jobs that are not among its `jobs`. It is reached through the
    queue, which the caller of a method holds meanwhile.
    """

    def __init__(
        self,
        queue: JobQueue,
        engine: Engine,
        backend: Backend,
        jobs: Registry,
        starter: JobStarter,
        closer: Closer,
    ) -> None:
        self._queue = weakref.ref(queue)
        self.engine = engine
        self.jobs = jobs
        self._backend = backend
        self._starter = starter
        self.closer = closer
        self._has_held_up = False  #: an event loop on whose thread a run was waited for

    # -- jobs of the drop-ins --------------------------------------------------------------------------------

    def start_table(
        self,
        table: ItemTable,
        options: JobOptions,
        handler: Callable[..., Any],
        on_ended: Callable[[Ended], None] | None = None,
        *,
        sealed: bool = True,
        showing: Showing = Showing(),  # noqa: B008 - frozen
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
        return book, self._start(Held(book, Job(book)), on_ended, showing)

    def start_recorded(
        self,
        job_id: str,
        table: ItemTable,
        options: JobOptions,
        handler: Callable[..., Any],
        on_ended: Callable[[Ended], None] | None = None,
        *,
        seed_given: bool = False,
        record: RecordOptions = RecordOptions(),  # noqa: B008 - frozen
        showing: Showing = Showing(),  # noqa: B008 - frozen
    ) -> JobRun:
        """Like `start_table`, for a job that the journal has, or will have, under this id. Raises `JournalError`."""
        self.closer.check_open("start a job")
        transport = self._backend.capabilities.handler_transport
        asked = GivenOptions(seed=options.seed if seed_given else None)
        from mpqueue._queue.recorded.job_record import JobRecord  # only journals need it

        book = make_job(job_id, table, options, handler, asked, transport=transport)
        return self._start(self.jobs.add(book, JobRecord(book, (handler, None), asked), record), on_ended, showing)

    def start_stages(
        self,
        items: Iterable[Any],
        stages: Sequence[Stage | Callable[..., Any]],
        asked: GivenOptions,
        defaults: QueueOptions,
        workers: int | None,
        *,
        progress: ShowProgress = False,
        on_ended: Callable[[Ended], None] | None = None,
    ) -> JobRun:
        """Start a pipeline that is not among the queue's `jobs`; otherwise like `JobQueue.start_stages`.

        ``defaults`` apply to stages without their own. Items may need up to ``workers``, as the call asked for (None:
        all): the queue may have more, or have been made for fewer.
        """
        self.closer.check_open("start a job")
        from mpqueue._queue.growing.stages import make_pipeline  # most programs have none

        number = self.jobs.next_number()
        queue = self._queue()
        assert queue is not None
        job_id = f"call-{number}"
        concurrency = workers or max(queue.concurrency, self.engine.count_lanes() or 0)
        head, _ = make_pipeline(job_id, items, stages, asked, defaults, self._backend, concurrency, listed=False)
        head.number = number
        for job in head.family[1:]:
            job.number = self.jobs.next_number()
        run = JobRun(Held(head, Job(head)), queue)
        self._starter.start_pipeline(head, run, progress, on_ended)
        return run

    def _start(self, held: Held, on_ended: Callable[[Ended], None] | None, showing: Showing) -> JobRun:
        queue = self._queue()
        assert queue is not None
        run = JobRun(held, queue)
        self._starter.start(held.book, run, showing, on_ended)
        return run

    def take_up(self, job_id: str, what: str, *, unfinished: bool = False) -> Held:
        """Take up a job to be run again, see `Registry.take_up`. Raises `QueueClosedError` after the end."""
        self.closer.check_open(what)
        return self.jobs.take_up(job_id, what, unfinished=unfinished)

    @property
    def is_broken(self) -> bool:
        """True if an internal error of mpqueue has ended the queue."""
        return self.engine.broken is not None

    # -- the coordinator's thread ----------------------------------------------------------------------------

    def ask(self, call: Callable[[], T]) -> T:
        """Run something on the coordinator's thread and wait for its value."""
        return self.engine.coordinator().ask(call)

    def ask_later(self, call: Callable[[], T]) -> Reply[T]:
        """Run a function on the coordinator's thread, between two messages. Does not wait."""
        return self.engine.coordinator().ask_later(call)

    def do_later(self, call: Callable[[], object], job: JobBook) -> None:
        """Run a function on the coordinator's thread. Its errors are internal errors, which end the job."""
        self.engine.coordinator().do_later(call, job)

    def post(self, message: Message) -> None:
        """Post a message to the coordinator. Does not wait."""
        self.engine.coordinator().post(message)

    def handle(self, message: Message) -> None:
        """Handle a message now. To be called inside `ask`."""
        self.engine.handle(message)

    def items_added(self, book: JobBook, posted: Reply[None] | None) -> None:
        """Note, inside `ask`, that an open job has got items from its user. ``posted`` is for `await_written`."""
        recorder = self.engine.recorder
        if recorder is not None:
            recorder.items_added(book)
            if posted is not None:
                self.engine.coordinator().when(recorder.keepers.caught_up(book.number), posted)

    def await_written(self, posted: Reply[None]) -> None:
        """Wait until the journal, if there is one, has the added items. Raises `JournalError`."""
        recorder = self.engine.recorder
        if recorder is None:
            return
        try:
            posted.result()
            recorder.journal.flush()
        except (JournalError, QueueClosedError) as error:
            raise JournalError(f"{error}. The items are added, and not on disk yet") from None

    def check_journal(self) -> None:
        """Raise `JournalError` if the journal can't be written; it tries to write now."""
        self.jobs.check_journal()

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

    def now(self) -> float:
        """Seconds by the queue's clock."""
        return self.engine.clock.now()

    # -- the listener thread ---------------------------------------------------------------------------------

    def tell(self, notice: Callable[[], None]) -> None:
        """Run a function on the listener thread, after all that was posted before."""
        self.engine.listeners.post(notice)

    def await_told(self) -> None:
        """Wait until all that was posted to the listener thread has been delivered; does nothing on that thread."""
        listeners, told = self.engine.listeners, SafeEvent()
        if listeners.is_here:
            return
        with contextlib.suppress(QueueClosedError):
            self.ask_later(partial(listeners.post, told.set))
            while listeners.is_alive and not told.wait(LOOK_AGAIN):
                pass

    @property
    def nothing_to_tell(self) -> bool:
        """True if the listener thread has finished all its tasks."""
        return self.engine.listeners.idle

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
            from mpqueue._output.bars import in_notebook  # few programs wait in a loop

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

    def await_starts(self) -> None:
        """Wait until the workers exist as processes, even if they don't answer yet: 20 ms for each."""
        self.engine.await_starts()

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

    def abandon(self) -> None:
        """End everything in the background, since the queue is no longer used. Callable inside a garbage collection."""
        self.engine.abandon()
