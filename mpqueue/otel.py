"""OpenTelemetry: spans and metrics of a queue's jobs. Needs the extra ``otel``, and an SDK that the program sets up.

It does nothing per item: reading the metrics looks at the jobs' books and at the workers, spans are made when a job
ends.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

try:
    from opentelemetry import context as otel_context
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError(f"mpqueue.otel needs OpenTelemetry ({error}): `pip install 'mpqueue[otel]'`") from error

from mpqueue._core.state.books import EndedCounts
from mpqueue._os.process_facts import memory_of, use_of
from mpqueue._output.job_facts import unfinished
from mpqueue._text import label, visible
from mpqueue.errors import JobNotFoundError
from mpqueue.status import JobStatus

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from mpqueue._core.state.job_book import JobBook
    from mpqueue._parent.running import LaneNow
    from mpqueue._queue.job import Job
    from mpqueue._queue.job_items import JobItem
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue.events import ItemRetry, JobFinished, JobStarted

__all__ = ["instrument"]

#: The most failed items and retries that a job's span names; the counts include all.
MOST_EVENTS = 50
_NAME = "mpqueue"


def instrument(
    queue: JobQueue,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    context: Context | None = None,
    chunks: bool = False,
) -> None:
    """Make spans and metrics of the queue's jobs from now on, with the program's providers or the given ones.

    The metrics are: ``mpqueue.jobs``, ``mpqueue.jobs.active``, ``mpqueue.job.duration``, ``mpqueue.items``,
    ``mpqueue.items.unfinished``, ``mpqueue.retries``, ``mpqueue.workers``, ``mpqueue.worker.deaths``,
    ``mpqueue.worker.cpu.time``, ``mpqueue.worker.memory``, ``mpqueue.worker.time``. Reading them costs 2 us per worker
    (on Linux 30 us), and 0.1 us per 1,000 items of running jobs; otherwise they cost nothing.

    Each run of a job is a span ``mpqueue.job``, a child of ``context`` (None: the current one); with ``chunks`` it has
    a span ``mpqueue.chunk`` for each chunk of items, at most 2,000 (``create_job(profile=True)``: all). They are made
    on the listener thread, when the job starts and when it has ended. Work of earlier programs that a job's journal
    holds is not counted, and a job with nothing left to do makes no span.
    """
    watcher = _Watcher(
        queue,
        trace.get_tracer(_NAME, tracer_provider=tracer_provider),
        metrics.get_meter(_NAME, meter_provider=meter_provider),
        otel_context.get_current() if context is None else context,
        chunks=chunks,
    )
    queue.on("job:started", watcher.started)
    queue.on("item:retry", watcher.retried)
    queue.on("job:finished", watcher.finished)


@dataclass(slots=True)
class _Run:
    """One run of a job that has not ended."""

    job: Job
    book: JobBook
    span: Span
    epoch: int  #: the book's round when the run began; a higher one: failed items run again
    started_at: float
    events: int = 0

    @property
    def has_timings(self) -> bool:
        """True if the job's report is of this run, and not empty: on a cluster, timings may be missing."""
        return self.book.epoch == self.epoch and bool(self.book.timings.lanes)


@dataclass(slots=True)
class _Worker:
    """CPU time of the workers that a lane has had, as of the last look."""

    pid: int | None = None
    seen: float = 0.0  #: that process's CPU time at the last look
    seconds: float = 0.0  #: in total


class _Watcher:
    """The watcher of jobs: gets events on the listener thread, gives totals on the metrics reader's thread."""

    def __init__(
        self, queue: JobQueue, tracer: trace.Tracer, meter: metrics.Meter, context: Context, *, chunks: bool
    ) -> None:
        self._queue = weakref.ref(queue)
        self._tracer = tracer
        self._context = context
        self._chunks = chunks
        self._before = queue._engine.ended_now()  #: at the beginning
        self._last = self._before, dict[str, int]()  #: at the last look: what has ended, and deaths by their reasons
        self._runs: dict[str, _Run] = {}
        self._seen: dict[int, _Worker] = {}  #: by lane
        self._durations = meter.create_histogram("mpqueue.job.duration", "s", "From a job's start to its end.")
        self._spent = meter.create_counter("mpqueue.worker.time", "s", "What the workers spent their time on.")
        total, level = meter.create_observable_counter, meter.create_observable_up_down_counter
        total("mpqueue.items", [self._items], "{item}", "Items that ended.")
        total("mpqueue.retries", [self._retries], "{try}", "Tries that another one followed.")
        level("mpqueue.jobs.active", [self._active], "{job}", "Jobs that run.")
        level("mpqueue.jobs", [self._jobs], "{job}", "Jobs that have not ended.")
        level("mpqueue.items.unfinished", [self._unfinished], "{item}", "Items of these jobs that have not ended.")
        level("mpqueue.workers", [self._workers], "{worker}", "Workers, by state.")
        total("mpqueue.worker.deaths", [self._deaths], "{worker}", "Workers that died.")
        total("mpqueue.worker.cpu.time", [self._cpu], "s", "CPU time of the workers.")
        level("mpqueue.worker.memory", [self._memory], "By", "Private memory of the workers.")

    def started(self, event: JobStarted) -> None:
        """Begin the span of a job that began, or whose failed items run again."""
        queue = self._queue()
        if queue is None:
            return
        try:
            book, job = queue._jobs.find(event.job_id)
        except JobNotFoundError:  # cleared by now
            return
        if not book.epoch:  # it had ended before this program, which only reports that again
            return
        epoch, started_at = book.epoch, job.started_at or 0.0
        span = self._tracer.start_span(
            "mpqueue.job",
            self._context,
            attributes={"mpqueue.job.id": label(job.id), "mpqueue.job.items": job.total},
            start_time=_nanoseconds(started_at),
        )
        self._runs[job.id] = _Run(job, book, span, epoch, started_at)

    def retried(self, event: ItemRetry) -> None:
        """Add an event to the job's span for a try that failed, for the first `MOST_EVENTS` of them."""
        run = self._runs.get(event.job_id)
        if run is not None and run.events < MOST_EVENTS:
            run.events += 1
            facts: dict[str, str | int] = {**_facts_of(event.item), "mpqueue.attempt": event.attempt}
            error = {"exception.type": event.error_type, "exception.message": visible(event.message)}
            run.span.add_event("retry", {**facts, **error})

    def finished(self, event: JobFinished) -> None:
        """End the span of a job that has ended. If listeners are late, its failed items may already be running again.

        The counts and the duration are therefore taken from the event.
        """
        self._look()
        run = self._runs.pop(event.job_id, None)
        if run is None:  # cancelled before it started
            return
        if run.book.stage is None:
            self._durations.record(event.duration, {"mpqueue.job.status": str(event.status)})
            for part in run.job.report().figures.work if run.has_timings else ():
                self._spent.add(part.seconds, {"mpqueue.part": part.key})
        if self._chunks and run.has_timings:
            self._make_chunks(run)
        _describe(run, event)
        run.span.end(_nanoseconds(run.started_at + event.duration))

    def _make_chunks(self, run: _Run) -> None:
        start = run.started_at
        parent = trace.set_span_in_context(run.span, self._context)
        for chunk in run.job.report().figures.spans:
            facts = {
                "mpqueue.worker": int(chunk.lane),
                "mpqueue.chunk.items": int(chunk.items),
                "mpqueue.chunk.failures": int(chunk.failures),
                "mpqueue.chunk.handler_seconds": chunk.handling,
                "mpqueue.chunk.cpu_seconds": chunk.cpu,
            }
            begun, ended = _nanoseconds(start + chunk.begun), _nanoseconds(start + chunk.ended)
            self._tracer.start_span("mpqueue.chunk", parent, attributes=facts, start_time=begun).end(ended)

    # -- metrics ---------------------------------------------------------------------------------------------

    def _look(self) -> tuple[EndedCounts, dict[str, int]]:
        """Return the totals of the queue; those of a queue that is gone are as of the end of its last job."""
        queue = self._queue()
        if queue is None:
            return self._last
        self._last = now = queue._engine.ended_now(), queue._engine.deaths_now()
        return now

    def _items(self, _: CallbackOptions) -> Iterable[Observation]:
        ended, _deaths = self._look()
        yield Observation(ended.completed - self._before.completed, {"mpqueue.item.status": "completed"})
        yield Observation(ended.failed - self._before.failed, {"mpqueue.item.status": "failed"})

    def _retries(self, _: CallbackOptions) -> Iterable[Observation]:
        ended, _deaths = self._look()
        yield Observation(ended.retries - self._before.retries)

    def _active(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(len(self._runs))

    def _books(self) -> list[JobBook]:
        """Return the books of the queue's jobs that have not ended; a pipeline counts as one."""
        queue = self._queue()
        books = [] if queue is None else queue._jobs.books()
        return [book for book in books if not book.status.final and book.stage is None]

    def _jobs(self, _: CallbackOptions) -> Iterable[Observation]:
        statuses = Counter(book.status for book in self._books())
        for status in (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.PAUSED):
            yield Observation(statuses[status], {"mpqueue.job.status": str(status)})

    def _unfinished(self, _: CallbackOptions) -> Iterable[Observation]:
        counts = unfinished(self._books(), self._lanes())._asdict()
        for status in ("processing", "retry", "pending"):
            yield Observation(counts[status], {"mpqueue.item.status": status})

    # -- workers ---------------------------------------------------------------------------------------------

    def _lanes(self) -> list[LaneNow]:
        queue = self._queue()
        return [] if queue is None else queue._engine.lanes_now()

    def _workers(self, _: CallbackOptions) -> Iterable[Observation]:
        states = Counter(lane.doing for lane in self._lanes())
        for state in ("busy", "idle", "starting"):
            yield Observation(states[state], {"mpqueue.worker.state": state})

    def _deaths(self, _: CallbackOptions) -> Iterable[Observation]:
        _ended, deaths = self._look()
        for reason, count in deaths.items():
            yield Observation(count, {"mpqueue.reason": reason})

    def _cpu(self, _: CallbackOptions) -> Iterable[Observation]:
        for lane in self._own_processes():
            worker = self._seen.setdefault(lane.number, _Worker())
            use = None if lane.pid is None else use_of(lane.pid)
            if use is not None:
                worker.seconds += use.cpu - (worker.seen if lane.pid == worker.pid else 0.0)
                worker.pid, worker.seen = lane.pid, use.cpu
        for number, worker in self._seen.items():
            yield Observation(worker.seconds, {"mpqueue.worker": number})

    def _memory(self, _: CallbackOptions) -> Iterable[Observation]:
        for lane in self._own_processes():
            held = None if lane.pid is None else memory_of(lane.pid)
            if held is not None:
                yield Observation(held, {"mpqueue.worker": lane.number})

    def _own_processes(self) -> list[LaneNow]:
        """Return the lanes that have a process of their own on this machine."""
        queue = self._queue()
        able = None if queue is None else queue._backend.capabilities
        return self._lanes() if able is not None and able.own_processes and able.is_here else []


def _describe(run: _Run, event: JobFinished) -> None:
    """Set the span's attributes and status at its end."""
    job, span = run.job, run.span
    span.set_attributes(
        {
            "mpqueue.job.status": str(event.status),
            "mpqueue.job.completed": event.completed,
            "mpqueue.job.failed": event.failed,
            "mpqueue.job.retries": job.retries,
        }
    )
    for failure in job.failures[:MOST_EVENTS] if run.book.epoch == run.epoch else ():
        wire = failure.item.to_dict()
        facts = {**_facts_of(failure.item), "exception.type": wire["errorType"]}
        span.add_event("item failed", {**facts, "exception.message": visible(wire["error"])})
    if event.failed:
        span.set_status(StatusCode.ERROR, f"{event.failed} of {job.total} items failed")
    elif event.status is JobStatus.COMPLETED:
        span.set_status(StatusCode.OK)


def _facts_of(item: JobItem) -> dict[str, str]:
    return {"mpqueue.item.id": label(item.id), "mpqueue.item.label": item.label}


def _nanoseconds(moment: float) -> int:
    return int(moment * 1e9)
