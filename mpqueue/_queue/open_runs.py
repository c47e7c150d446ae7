"""The runs of a queue that have not resolved yet: their beginning and their end."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from mpqueue._core.messages import FailedItemsReset, JobStartAsked
from mpqueue._core.state.job_book import JobBook
from mpqueue._output.bars import are_shown
from mpqueue._output.progress import Showing, ShowProgress, make_displays
from mpqueue._output.worker_logs import with_speech
from mpqueue._parent.deliveries import Delivery
from mpqueue._parent.machinery import Engine
from mpqueue._queue.run import Ended, JobRun
from mpqueue.errors import InternalError, JournalError

if TYPE_CHECKING:
    from mpqueue._queue.closer import Closer
    from mpqueue._queue.registry import Registry


class OpenRuns:
    """The unresolved runs of each job, in the order they were started. Any thread may call it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs: dict[int, list[JobRun]] = {}
        self._lock = threading.RLock()
        alive = weakref.ref(self)  # a run holds its queue, which the engine must not

        def give_up(book: JobBook | None, error: InternalError) -> None:
            if (runs := alive()) is not None:
                runs.give_up(book, error)

        def disturb(trouble: JournalError | None) -> None:
            if (runs := alive()) is not None:
                runs.disturb(trouble)

        engine.give_up = give_up
        if engine.recorder is not None:
            engine.recorder.tell_trouble = disturb

    def __iter__(self) -> Iterator[JobRun]:
        with self._lock:
            return iter([run for runs in self._runs.values() for run in runs])

    def add(self, book: JobBook, run: JobRun) -> None:
        """Add a run that begins."""
        with self._lock:
            self._runs.setdefault(book.number, []).append(run)

    def take_back(self, book: JobBook) -> None:
        """Remove the job's last run, which could not begin."""
        self._take(book, -1)

    def resolve(self, book: JobBook) -> None:
        """Resolve a job's run when its last event was delivered: callbacks are called on the listener thread."""
        run, listeners = self._take(book, 0), self._engine.listeners
        if run is None:
            return
        if (book.spoke or run._displays) and not listeners.is_here:
            listeners.post(partial(self._resolve, run), book)  # after its logs, and after the bar's end
        else:
            self._resolve(run)

    def _resolve(self, run: JobRun) -> None:
        run._end_display()
        if callbacks := run._resolve():
            call = partial(run._run_callbacks, callbacks)
            listeners = self._engine.listeners
            call() if listeners.is_here else listeners.post(call)

    def _take(self, book: JobBook, at: int) -> JobRun | None:
        """The job's first or last unresolved run; it may have been started again before its end was announced."""
        with self._lock:
            runs = self._runs.get(book.number)
            if not runs:  # cancelled before it started
                return None
            run = runs.pop(at)
            if not runs:
                del self._runs[book.number]
            return run

    def give_up(self, book: JobBook | None, error: InternalError) -> None:
        """Resolve the runs of this job, or of all, with the error, at once: the coordinator's last resort."""
        with self._lock:
            numbers = list(self._runs) if book is None else [book.number]
            runs = [run for number in numbers for run in self._runs.pop(number, ())]
        for run in runs:
            callbacks = run._resolve(error)
            self._engine.listeners.post(run._end_display)
            self._engine.listeners.post(partial(run._run_callbacks, callbacks))

    def disturb(self, trouble: JournalError | None) -> None:
        """Pass the error that stops a recorded job to callers that wait for its run. On the coordinator's thread."""
        for run in self:
            run._disturb(trouble)


class JobStarter:
    """Starts jobs on the coordinator's thread, with their runs registered and their progress shown."""

    def __init__(self, engine: Engine, runs: OpenRuns, closer: Closer, jobs: Registry) -> None:
        self._engine = engine
        self.tell_failures = True  #: below a bar drawn by ``progress=True``; the command line does so itself
        self._runs = runs
        self._closer = closer
        self._jobs = jobs

    def start(
        self, book: JobBook, run: JobRun, showing: Showing, on_ended: Callable[[Ended], None] | None = None
    ) -> None:
        """Start a pending job. ``on_ended`` is as in `QueueHost.start_table`. Raises the errors of `JobQueue.start`."""
        begin = self._beginning(run, JobStartAsked(book, self._engine.clock.wall()), showing, on_ended)
        self._engine.coordinator().ask(begin)
        _await_sink(book, run)

    def start_unawaited(self, book: JobBook, run: JobRun, showing: Showing) -> None:
        """Start a job for a thread that then waits for the run, which raises a failure to start."""
        if book.delivery is not None:
            self.start(book, run, showing)
            return
        coordinator = self._engine.coordinator()
        coordinator.check_thread()
        begin = self._beginning(run, JobStartAsked(book, self._engine.clock.wall()), showing)
        coordinator.ask_later(begin, run._begun)

    def start_pipeline(
        self,
        head: JobBook,
        run: JobRun,
        progress: ShowProgress,
        on_ended: Callable[[Ended], None] | None = None,
    ) -> None:
        """Start the head of a pipeline and its stages, at once. Raises the errors of `JobQueue.start`.

        ``on_ended`` is as in `QueueHost.start_table`, for the head's items.
        """
        first, *stages = (JobStartAsked(job, self._engine.clock.wall()) for job in head.family)
        if head.restored:  # it had ended before: this only reports it again
            stages = []
        begin = self._beginning(run, first, Showing(progress), on_ended, stages)
        self._engine.coordinator().ask(begin)
        _await_sink(head, run)

    def start_again(self, book: JobBook, run: JobRun, showing: Showing, indices: Sequence[int] | None = None) -> None:
        """Run a finished job's failed items again, all or these. Raises the errors of `JobQueue.retry_failed`."""
        message = FailedItemsReset(book, self._engine.clock.wall(), None, indices)
        begin = self._beginning(run, message, showing)
        self._engine.coordinator().ask(begin)

    def _beginning(
        self,
        run: JobRun,
        first: JobStartAsked | FailedItemsReset,
        showing: Showing,
        on_ended: Callable[[Ended], None] | None = None,
        stages: Sequence[JobStartAsked] = (),
    ) -> Callable[[], None]:
        engine, book = self._engine, first.job
        displays = run._displays = make_displays(
            showing, book, engine.listeners, engine.clock.now, failures=self.tell_failures
        )
        beside_bar = are_shown() or any(display.draws for display in displays)
        messages = [
            message._replace(handler=with_speech(message.job, beside_bar=beside_bar))
            if message.job.handler
            else message
            for message in (first, *stages)
        ]

        def begin() -> None:
            self._closer.check_open("start a job")  # again: it can't be closed between this and the start
            if on_ended is not None:
                engine.coordinator().subscribe_early(book, on_ended)
            with self._jobs.starts(book):
                engine.begin(first)
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


def _await_sink(book: JobBook, run: JobRun) -> None:
    """Wait until the sink of the started job is open. If that fails or is interrupted, the job is cancelled."""
    if isinstance(book.delivery, Delivery):
        try:
            book.delivery.opened.result()
        except BaseException:
            run._cancel(kill=True)
            raise
