"""Spans and metrics, as OpenTelemetry's own SDK receives them."""

from __future__ import annotations

import functools
import gc
import os
import re
import threading
import weakref
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mpqueue import JobQueue, Rerun, RetryPolicy, current_item, otel
from tests.support import handlers as do
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


class Telemetry:
    """A program's SDK: what it was told is kept in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = TracerProvider(shutdown_on_exit=False)
        self.tracing.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.metering = MeterProvider([self._reader], shutdown_on_exit=False)

    def instrument(self, queue: JobQueue, **options: Any) -> None:
        otel.instrument(queue, tracer_provider=self.tracing, meter_provider=self.metering, **options)

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def metric(self, name: str) -> dict[Any, Any]:
        """The values by their attribute, None where they have none."""
        data = self._reader.get_metrics_data()
        assert data is not None
        (found,) = (
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        )
        points: Any = found.data.data_points
        return {next(iter(point.attributes.values()), None): getattr(point, "value", point) for point in points}


def handle(item: int) -> int:
    if item == 3 or (item == 5 and current_item().attempt == 1):
        raise ValueError(f"no {item}")
    return item


def test_a_job_is_a_span_with_its_failures_and_retries() -> None:
    told = Telemetry()
    with JobQueue(2, retry=RetryPolicy(1, base_delay=0)) as queue:
        with told.tracing.get_tracer("test").start_as_current_span("request") as request:
            told.instrument(queue)
        job = queue.run(range(20), handle, id="job")
    (span,) = told.spans("mpqueue.job")
    assert span.parent == request.get_span_context()
    assert span.attributes == {
        "mpqueue.job.id": "job",
        "mpqueue.job.items": 20,
        "mpqueue.job.status": "completed_with_errors",
        "mpqueue.job.completed": 19,
        "mpqueue.job.failed": 1,
        "mpqueue.job.retries": 2,
    }
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "1 of 20 items failed"
    assert span.start_time == int((job.started_at or 0) * 1e9)
    assert span.end_time == int((job.finished_at or 0) * 1e9)
    events = sorted((event.name, (event.attributes or {})["exception.message"]) for event in span.events)
    assert events == [("item failed", "no 3"), ("retry", "no 3"), ("retry", "no 5")]


def test_with_chunks_each_of_them_is_a_child_within_the_job() -> None:
    told = Telemetry()
    with JobQueue(2) as queue:
        told.instrument(queue, chunks=True)
        queue.run(range(30), abs, chunksize=10)
    (span,) = told.spans("mpqueue.job")
    assert span.status.status_code is StatusCode.OK
    chunks = told.spans("mpqueue.chunk")
    assert sum(int(str((chunk.attributes or {})["mpqueue.chunk.items"])) for chunk in chunks) == 30
    for chunk in chunks:
        assert chunk.parent == span.context
        assert (span.start_time or 0) <= (chunk.start_time or 0) <= (chunk.end_time or 0) <= (span.end_time or 0)


def test_metrics_count_items_once_over_runs_and_cleared_jobs() -> None:
    told = Telemetry()
    with JobQueue(2, max_retries=0) as queue:
        told.instrument(queue)
        queue.run(range(20), handle, id="job")
        queue.retry_failed("job").result()  # item 3 fails again, item 5 too: their attempts begin anew
        queue.clear_job("job")
        queue.run(range(10, 20), handle, id="more")
    assert told.metric("mpqueue.items") == {"completed": 18 + 10, "failed": 2 + 2}
    assert told.metric("mpqueue.retries") == {None: 0}
    assert told.metric("mpqueue.jobs.active") == {None: 0}
    durations = told.metric("mpqueue.job.duration")
    assert {status: point.count for status, point in durations.items()} == {"completed_with_errors": 2, "completed": 1}
    assert told.metric("mpqueue.worker.time")["handler"] > 0


def test_a_forgotten_queue_is_not_kept_alive() -> None:
    told = Telemetry()
    queue = JobQueue(1)
    told.instrument(queue)
    reference = weakref.ref(queue)
    del queue
    gc.collect()
    assert reference() is None
    assert told.metric("mpqueue.items")["completed"] == 0


def test_what_a_queue_has_done_is_told_after_it_is_gone() -> None:
    told = Telemetry()
    with JobQueue(1, retry=RetryPolicy(1, base_delay=0)) as queue:
        told.instrument(queue)
        queue.run(range(6), handle)
        queue.run(["a"], do.segfault, id="deadly")
    reference = weakref.ref(queue)
    del queue
    gc.collect()
    assert reference() is None
    assert told.metric("mpqueue.items") == {"completed": 5, "failed": 2}
    assert told.metric("mpqueue.retries") == {None: 3}
    assert told.metric("mpqueue.worker.deaths") == {"crash": 2}


def test_jobs_items_and_workers_are_told_by_state(gate: Gate) -> None:
    told = Telemetry()
    with JobQueue(2, retry=RetryPolicy(1, base_delay=300)) as queue:
        told.instrument(queue)
        assert not queue.listeners("job:progress"), "nothing is asked of items"
        queue.create_job("pending", range(7), abs)
        handler = do.only("a", do.block_until_told(gate), do.only("b", do.fail))
        run = queue.start(queue.create_job("job", ["a", "b", "c", "d"], handler, chunksize=1))
        gate.wait_for("a")
        wait_until(lambda: run.job.completed == 2 and run.job.retries == 1)
        assert told.metric("mpqueue.jobs") == {"pending": 1, "running": 1, "paused": 0}
        assert told.metric("mpqueue.items.unfinished") == {"pending": 7, "processing": 1, "retry": 1}
        assert told.metric("mpqueue.items") == {"completed": 2, "failed": 0}
        assert told.metric("mpqueue.workers") == {"busy": 1, "idle": 1, "starting": 0}
        queue.pause("job")
        assert told.metric("mpqueue.jobs")["paused"] == 1
        queue.resume("job")
        queue.cancel_items("job", ["b"])
        gate.open()
        run.result()
        assert told.metric("mpqueue.jobs") == {"pending": 1, "running": 0, "paused": 0}
    assert told.metric("mpqueue.items.unfinished") == {"pending": 7, "processing": 0, "retry": 0}
    assert told.metric("mpqueue.items") == {"completed": 3, "failed": 1}


def test_deaths_of_workers_are_told_by_their_reasons() -> None:
    told = Telemetry()
    with JobQueue(1, max_retries=0) as queue:
        told.instrument(queue)
        job = queue.run(["a", "b", "c"], do.only("a", do.segfault, do.only("b", do.hang_sleep)), timeout=0.3)
        assert job.failed == 2
        assert told.metric("mpqueue.worker.deaths") == {"crash": 1, "timeout": 1}


def burn(item: int) -> int:
    while process_time() < item:
        pass
    return os.getpid()


def test_cpu_time_and_memory_of_workers_are_those_of_their_processes() -> None:
    told = Telemetry()
    with JobQueue(1, max_retries=0) as queue:
        told.instrument(queue)
        queue.run([1], burn)
        used = told.metric("mpqueue.worker.cpu.time")[0]
        assert used >= 0.9, "by clock ticks"
        assert told.metric("mpqueue.worker.memory")[0] > 1 << 20
        queue.run(["a"], do.segfault)
        queue.run(["a"], do.succeed)  # another process, whose own time begins at 0
        assert told.metric("mpqueue.worker.cpu.time")[0] >= used
    assert told.metric("mpqueue.worker.cpu.time")[0] >= used, "a counter does not fall"


def test_a_job_of_stages_counts_its_inputs_once_and_retries_of_its_stages() -> None:
    told = Telemetry()
    with JobQueue(2, retry=RetryPolicy(1, base_delay=0)) as queue:
        told.instrument(queue)
        queue.run_stages([1, 2, 5], [abs, handle, abs])
    assert told.metric("mpqueue.items") == {"completed": 3, "failed": 0}
    assert told.metric("mpqueue.retries") == {None: 1}
    assert {status: point.count for status, point in told.metric("mpqueue.job.duration").items()} == {"completed": 1}


def test_items_that_stay_failed_are_not_counted_again() -> None:
    told = Telemetry()
    with JobQueue(1, max_retries=0) as queue:
        told.instrument(queue)
        job = queue.run(range(4), do.fail, id="job")
        assert queue.retry_failed("job", items=[job.items[0]]).result().failed == 4
    assert told.metric("mpqueue.items") == {"completed": 0, "failed": 5}


def fail_until(mended: Path, gate: Gate, item: int) -> int:
    if not mended.exists():
        raise ValueError(f"no {item}")
    gate.pass_through(item)
    return item


def test_a_run_that_listeners_hear_of_late_keeps_its_counts_and_times(tmp_path: Path, gate: Gate) -> None:
    told, mended = Telemetry(), tmp_path / "mended"
    is_late, go_on = threading.Event(), threading.Event()

    def be_late(_: object) -> None:
        is_late.set()
        go_on.wait(300)

    with JobQueue(1, max_retries=0) as queue:
        told.instrument(queue, chunks=True)
        queue.on("job:progress", be_late)
        queue.on("job:finished", lambda _: gate.open())  # after OpenTelemetry's listener: the second run goes on
        job = queue.create_job("job", range(3), functools.partial(fail_until, mended, gate))
        first = queue.start("job")
        wait_until(lambda: is_late.is_set() and job.status.final)
        started, finished = job.started_at or 0.0, job.finished_at or 0.0
        assert told.metric("mpqueue.items") == {"completed": 0, "failed": 3}
        mended.touch()
        second = queue.retry_failed("job")
        gate.wait_for(0)
        assert told.metric("mpqueue.items") == {"completed": 0, "failed": 3}
        go_on.set()
        first.result()
        second.result()
    assert told.metric("mpqueue.items") == {"completed": 3, "failed": 3}
    late, last = told.spans("mpqueue.job")
    assert (late.start_time, late.end_time) == (int(started * 1e9), int(finished * 1e9))
    assert late.status.description == "3 of 3 items failed"
    assert late.attributes is not None
    assert (late.attributes["mpqueue.job.completed"], late.attributes["mpqueue.job.failed"]) == (0, 3)
    assert (last.start_time, last.end_time) == (int((job.started_at or 0) * 1e9), int((job.finished_at or 0) * 1e9))
    assert last.status.status_code is StatusCode.OK
    for chunk in told.spans("mpqueue.chunk"):  # of the first run, none are left
        assert chunk.parent == last.context


def fail_three_until(path: Path, item: int) -> int:
    if item == 3 and not path.exists():
        raise ValueError("no 3")
    return item


def test_what_earlier_programs_did_is_not_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mended = tmp_path / "mended"
    handler = functools.partial(fail_three_until, mended)

    def queue_told() -> tuple[JobQueue, Telemetry]:
        queue = JobQueue(1, retry=RetryPolicy(1, base_delay=0), journal=tmp_path / "run.db")
        told = Telemetry()
        told.instrument(queue, chunks=True)
        return queue, told

    queue, told = queue_told()
    with queue:
        queue.run(range(10), handler, id="job")
    assert told.metric("mpqueue.items") == {"completed": 9, "failed": 1}
    assert told.metric("mpqueue.retries") == {None: 1}
    mended.touch()
    queue, told = queue_told()
    with queue:
        queue.retry_failed("job").result()
    assert told.metric("mpqueue.items") == {"completed": 1, "failed": 0}
    assert told.metric("mpqueue.retries") == {None: 0}
    queue, told = queue_told()
    with queue:
        queue.run(range(14), handler, id="job", rerun=Rerun(update=True))
    assert told.metric("mpqueue.items") == {"completed": 4, "failed": 0}
    queue, told = queue_told()
    with queue:
        queue.run(range(14), handler, id="job", rerun=Rerun(update=True))
    assert told.metric("mpqueue.items") == {"completed": 0, "failed": 0}
    assert told.spans("mpqueue.job") == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_prometheus_reads_every_metric_that_the_page_names(gate: Gate) -> None:
    exporter = pytest.importorskip("opentelemetry.exporter.prometheus")
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    reader = exporter.PrometheusMetricReader(registry=registry)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    try:
        with JobQueue(1, max_retries=0) as queue:
            otel.instrument(queue, meter_provider=provider)
            queue.run(["a", "b"], do.only("a", do.segfault))
            run = queue.start(queue.create_job("job", ["a"], do.block_until_told(gate)))
            gate.wait_for("a")
            text = client.generate_latest(registry).decode()
            gate.open()
            run.result()
    finally:
        provider.shutdown()
    lines = [line for line in text.splitlines() if line.startswith("mpqueue_")]
    names = {re.split(r"[{ ]", line)[0] for line in lines}
    page = (Path(__file__).parents[2] / "docs/how-to/metrics.md").read_text()
    asked = set(re.findall(r"\bmpqueue_(?:jobs?|items|retries|workers?)(?:_[a-z]+)*", page)) - LABELS
    assert asked - names <= {"mpqueue_job_duration_seconds"}, "whose parts are _bucket, _count and _sum"
    assert names - asked <= {"mpqueue_job_duration_seconds_count", "mpqueue_job_duration_seconds_sum"}
    assert set(re.findall(r"[{,](mpqueue_\w+)=", text)) & LABELS == LABELS
    failed = [line for line in lines if line.startswith("mpqueue_items_total") and 'item_status="failed"' in line]
    assert [line.split()[-1] for line in failed] == ["1.0"]
    crashes = [line for line in lines if line.startswith("mpqueue_worker_deaths_total")]
    assert [line.split()[-1] for line in crashes if 'mpqueue_reason="crash"' in line] == ["1.0"]


#: What Prometheus calls the attributes.
LABELS = {
    *("mpqueue_job_status", "mpqueue_item_status", "mpqueue_worker_state", "mpqueue_reason", "mpqueue_worker"),
    "mpqueue_part",
}
