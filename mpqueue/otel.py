"""OpenTelemetry: spans and metrics of a queue's jobs. Needs the extra ``otel``, and an SDK that the program sets up.

Nothing is done for each item: the counters look at the jobs' books when they are read, spans are made when a job ends.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

try:
    from opentelemetry import context as otel_context
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError(f"mpqueue.otel needs OpenTelemetry ({error}): `pip install 'mpqueue[otel]'`") from error

from mpqueue._text import label, visible
from mpqueue.status import JobStatus

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from mpqueue._queue.job import Job, JobItem
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue.events import ItemRetry, JobFinished, JobStarted

__all__ = [
    "instrument",
]

#: Failed items and retries that a job's span names; beyond them there are the counts.
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
    """Make spans and metrics of the queue's jobs from now on, with the program's providers or those that are given.

    Each run of a job is a span ``mpqueue.job``, a child of ``context`` (None: of what is current now); with ``chunks``
    it has a span ``mpqueue.chunk`` for each chunk of items, at most 2,000 (``create_job(trace=True)``: all). They are
    made on the listener thread, when the job starts and when it has ended.
    """
    current = otel_context.get_current() if context is None else context
    watcher = _Watcher(weakref.ref(queue), trace.get_tracer(_NAME, tracer_provider=tracer_provider), current, chunks)
    queue.on("job:started", watcher.started)
    queue.on("item:retry", watcher.retried)
    queue.on("job:finished", watcher.finished)
    watcher.count(metrics.get_meter(_NAME, meter_provider=meter_provider))


@dataclass(slots=True)
class _Run:
    """One run of a job that has not ended."""

    job: Job
    span: Span
    completed: int  #: items that had completed before it
    retries: int
    events: int = 0


@dataclass(slots=True)
class _Totals:
    """Items of all runs that have ended."""

    completed: int = 0
    failed: int = 0
    retries: int = 0


@dataclass(slots=True)
class _Watcher:
    """Gets jobs on the listener thread, is asked for totals on the metrics reader's."""

    queue: weakref.ref[JobQueue]
    tracer: trace.Tracer
    context: Context
    chunks: bool
    totals: _Totals = field(default_factory=_Totals)
    runs: dict[str, _Run] = field(default_factory=dict)
    before: weakref.WeakKeyDictionary[Job, tuple[int, int]] = field(default_factory=weakref.WeakKeyDictionary)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _record: Callable[[Job, JobFinished], None] = lambda *_: None

    def started(self, event: JobStarted) -> None:
        """A job began, or its failed items are run again."""
        queue = self.queue()
        job = None if queue is None else queue.get_job(event.job_id)
        if job is None:
            return
        span = self.tracer.start_span(
            "mpqueue.job",
            self.context,
            attributes={"mpqueue.job.id": label(job.id), "mpqueue.job.items": job.total},
            start_time=_nanoseconds(job.started_at or 0.0),
        )
        with self.lock:
            completed, retries = self.before.get(job, (0, 0))
            self.runs[job.id] = _Run(job, span, completed, retries)

    def retried(self, event: ItemRetry) -> None:
        """A try failed."""
        run = self.runs.get(event.job_id)
        if run is not None and run.events < MOST_EVENTS:
            run.events += 1
            facts: dict[str, str | int] = {**_facts_of(event.item), "mpqueue.attempt": event.attempt}
            error = {"exception.type": event.error_type, "exception.message": visible(event.message)}
            run.span.add_event("retry", {**facts, **error})

    def finished(self, event: JobFinished) -> None:
        """The job has ended."""
        with self.lock:
            run = self.runs.pop(event.job_id, None)
            if run is None:  # cancelled before it started
                return
            job = run.job
            self.totals.completed += max(0, job.completed - run.completed)
            self.totals.failed += job.failed
            self.totals.retries += job.retries - run.retries
            self.before[job] = (job.completed, job.retries)
        self._record(job, event)
        if self.chunks:
            self._make_chunks(run)
        _describe(run, event)
        run.span.end(_nanoseconds(job.finished_at or 0.0))

    def _make_chunks(self, run: _Run) -> None:
        start = run.job.started_at or 0.0
        parent = trace.set_span_in_context(run.span, self.context)
        for chunk in run.job.report().figures.spans:
            facts = {
                "mpqueue.worker": int(chunk.lane),
                "mpqueue.chunk.items": int(chunk.items),
                "mpqueue.chunk.failures": int(chunk.failures),
                "mpqueue.chunk.handler_seconds": chunk.handling,
                "mpqueue.chunk.cpu_seconds": chunk.cpu,
            }
            begun, ended = _nanoseconds(start + chunk.begun), _nanoseconds(start + chunk.ended)
            self.tracer.start_span("mpqueue.chunk", parent, attributes=facts, start_time=begun).end(ended)

    # -- metrics ---------------------------------------------------------------------------------------------

    def count(self, meter: metrics.Meter) -> None:
        """Make the instruments."""
        meter.create_observable_counter("mpqueue.items", [self._items], "{item}", "Items that ended.")
        meter.create_observable_counter("mpqueue.retries", [self._retries], "{try}", "Tries that another one followed.")
        meter.create_observable_up_down_counter("mpqueue.jobs.active", [self._active], "{job}", "Jobs that run.")
        durations = meter.create_histogram("mpqueue.job.duration", "s", "From a job's start to its end.")
        spent = meter.create_counter("mpqueue.worker.time", "s", "What the workers spent their time on.")

        def record(job: Job, event: JobFinished) -> None:
            durations.record(event.duration, {"mpqueue.job.status": str(event.status)})
            for part in job.report().figures.work:
                spent.add(part.seconds, {"mpqueue.part": part.key})

        self._record = record

    def _now(self) -> _Totals:
        """With what the runs have done that go on."""
        with self.lock:
            runs = list(self.runs.values())
            return _Totals(
                self.totals.completed + sum(max(0, run.job.completed - run.completed) for run in runs),
                self.totals.failed + sum(run.job.failed for run in runs),
                self.totals.retries + sum(run.job.retries - run.retries for run in runs),
            )

    def _items(self, _: CallbackOptions) -> Iterable[Observation]:
        totals = self._now()
        yield Observation(totals.completed, {"mpqueue.item.status": "completed"})
        yield Observation(totals.failed, {"mpqueue.item.status": "failed"})

    def _retries(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(self._now().retries)

    def _active(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(len(self.runs))


def _describe(run: _Run, event: JobFinished) -> None:
    """What the span says at its end."""
    job, span = run.job, run.span
    span.set_attributes(
        {
            "mpqueue.job.status": str(event.status),
            "mpqueue.job.completed": job.completed,
            "mpqueue.job.failed": job.failed,
            "mpqueue.job.retries": job.retries,
        }
    )
    for failure in job.failures[:MOST_EVENTS]:
        wire = failure.item.to_dict()
        facts = {**_facts_of(failure.item), "exception.type": wire["errorType"]}
        span.add_event("item failed", {**facts, "exception.message": visible(wire["error"])})
    if job.failed:
        span.set_status(StatusCode.ERROR, f"{job.failed} of {job.total} items failed")
    elif event.status is JobStatus.COMPLETED:
        span.set_status(StatusCode.OK)


def _facts_of(item: JobItem) -> dict[str, str]:
    return {"mpqueue.item.id": label(item.id), "mpqueue.item.label": item.label}


def _nanoseconds(moment: float) -> int:
    return int(moment * 1e9)
