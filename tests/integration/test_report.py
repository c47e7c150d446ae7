"""``job.report()`` of jobs that real workers ran."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from mpqueue import Job, JobQueue, Rerun, RetryPolicy, current_item
from mpqueue.testing import InlinePool
from tests.support.spinning import HEAVINESS, Heavy, spin
from tests.support.strength import workers_of
from tests.support.waiting import Gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

NO_WAIT = RetryPolicy(2, base_delay=0)


def figures(job: Job) -> Any:
    """The figures; and what holds of any."""
    found = job.report().figures
    whole = sum(part.seconds for part in found.work)
    assert whole == pytest.approx(found.worker_seconds, rel=0.05)
    assert found.share("rest") < 0.05
    assert all(part.seconds >= 0 for part in (*found.work, *found.parent))
    assert all(0 <= span.begun <= span.ended for span in found.spans)
    return found


def test_a_finished_job_tells_where_its_time_went_also_when_the_queue_is_closed() -> None:
    def handle(item: Heavy, state: str) -> Heavy:
        spin(0.005)
        return item

    def setup() -> str:
        spin(0.05)
        return "state"

    with JobQueue(2) as queue:
        job = queue.run([Heavy(number) for number in range(20)], handle, id="heavy", setup=setup)
    found = figures(job)
    assert (found.total, found.completed, found.workers, found.sums.items) == (20, 20, 2, 20)
    assert found.wall == job.duration
    sums = found.sums
    assert sums.setup > 0.05
    assert sums.unpacking > 20 * HEAVINESS
    assert sums.handling > 20 * 0.005
    assert sums.parent_unpickling > 20 * HEAVINESS
    assert sums.cpu > 20 * (HEAVINESS + 0.005)
    assert sums.bytes_out > 0
    assert sums.bytes_home > 0
    assert found.items is not None
    assert found.items.items == 20
    assert len(found.slowest) == 10
    assert "unpickling items" in str(job.report())


def test_the_slowest_items_failed_tries_and_dead_workers_are_named(tmp_path: Path) -> None:
    def handle(item: dict[str, Any]) -> None:
        first = current_item().attempt == 1
        if item["id"] == "slow":
            spin(0.2)
        if item["id"] == "flaky" and first:
            raise ValueError("once")
        if item["id"] == "killer" and first:
            os.kill(os.getpid(), signal.SIGKILL)

    ids = ["slow", "flaky", "killer", *map(str, range(50))]
    with JobQueue(2, retry=NO_WAIT) as queue:
        job = queue.run([{"id": name} for name in ids], handle)
    found = figures(job)
    assert found.slowest[0].id == "slow"
    assert found.sums.deaths in (1, 2)  # where it ran among tiny ones, it killed another worker alone
    assert found.retries == found.tries.failed == 2
    assert {error.partition(":")[0] for error, _ in found.tries.errors} == {"ValueError", "WorkerCrashedError"}
    assert {event.name for event in found.events} == {"retry", "worker died"}


def test_a_handler_that_waits_is_told_from_one_that_computes() -> None:
    def wait(item: int) -> None:
        threading.Event().wait(0.02)

    with JobQueue(2) as queue:
        queue.run(range(2), abs)  # the workers are there
        waiting = queue.run(range(40), wait, id="wait")
        computing = queue.run(range(20), lambda item: spin(0.02), id="spin")
    assert [text for text in waiting.report().advice if text.startswith("The handler waits ")]
    assert not [text for text in computing.report().advice if text.startswith("The handler waits ")]


def test_a_closure_is_weighed_and_its_heavy_variable_named() -> None:
    model = os.urandom(12_000_000)

    with JobQueue(1) as queue:
        job = queue.run(range(3), lambda item: model[item])
    found = figures(job)
    assert found.handler_bytes > len(model)
    assert found.handler_weight == "the variable 'model' of its closure"
    assert found.handler_seconds > 0
    assert found.sums.loading > 0


def test_slow_listeners_are_counted_and_so_is_how_late_the_run_was_resolved() -> None:
    told = threading.Event()
    with JobQueue(1) as queue:
        queue.on("job:progress", lambda progress: spin(0.02))
        queue.on("job:finished", lambda finished: told.set())
        job = queue.run(range(10), abs)
        assert told.wait(10)
    found = figures(job)
    assert next(part.seconds for part in found.parent if part.key == "listeners") > 10 * 0.02
    assert found.told_after > 0


def test_jobs_side_by_side_know_of_each_other_and_a_second_run_counts_for_itself(tmp_path: Path, gate: Gate) -> None:
    def fail_first(item: int) -> None:
        if not (tmp_path / "allowed").exists():
            raise ValueError

    with JobQueue(2, max_retries=0) as queue:
        queue.create_job("one", [0], gate.pass_through)
        one = queue.start("one")
        gate.wait_for(0)
        other = queue.run(range(4), fail_first, id="other")
        gate.open()
        assert figures(one.result()).shared
        assert figures(other).shared
        assert figures(other).sums.items == 4
        (tmp_path / "allowed").touch()
        queue.retry_failed("other").result()
        again = figures(other)
    assert not again.shared
    assert again.sums.items == 4
    assert again.completed == 4


def test_what_workers_do_for_other_jobs_is_neither_idleness_of_a_job_nor_its_loss(gate: Gate) -> None:
    """One worker holds another job's long item all the time; the other one is killed twice by a third job's."""

    def kill_worker(item: int) -> None:
        if current_item().attempt < 3:
            os.kill(os.getpid(), signal.SIGKILL)

    with JobQueue(2, retry=NO_WAIT) as queue:
        workers_of(queue)  # what a job waits for its first worker is no part of this
        queue.create_job("long", [0], gate.pass_through)
        long = queue.start("long")
        gate.wait_for(0)
        queue.create_job("job", range(20), lambda item: spin(0.005), chunksize=1)
        queue.create_job("killer", [0], kill_worker)
        runs = [queue.start("job"), queue.start("killer")]
        job, killer = (run.result() for run in runs)
        so_far = figures(long.job)
        gate.open()
        long.result()
    found = figures(job)
    assert found.share("others") > 0.45, "one of two workers was elsewhere all the time"
    assert found.share("idle", "tail", "replacing", "lost") < 0.2
    assert (found.sums.deaths, figures(killer).sums.deaths) == (0, 2)
    assert "replaced workers" not in {one.rule.name for one in job.report().findings}
    # All the time of one of two workers, but for what passed on a busy machine until the item had begun.
    assert so_far.share("under_way") > 0.25, "its item runs, though nothing of it was reported"


def test_tries_of_earlier_runs_are_not_those_of_the_last(tmp_path: Path) -> None:
    journal, fixed = tmp_path / "run.db", tmp_path / "fixed"

    def handle(item: int) -> None:
        if item == 0 and not fixed.exists():
            raise ValueError("always")
        if item == 1 and current_item().attempt == 1 and fixed.exists():
            raise KeyError("once")
        if item == 1 and not fixed.exists():
            raise OSError("always")

    with JobQueue(1, journal=journal, retry=NO_WAIT) as queue:
        job = queue.run(range(3), handle, id="job")
        found = job.report().figures
        assert (job.failed, found.retries, found.tries.failed) == (2, 4, 6)
        job = queue.retry_failed("job").result()
        found = job.report().figures
        assert (job.failed, job.retries) == (2, 8)
        assert (found.retries, found.tries.failed) == (4, 6)
    fixed.touch()
    with JobQueue(1, journal=journal, retry=NO_WAIT) as queue:
        queue.create_job("job", range(3), handle)
        job = queue.retry_failed("job").result()
        found = job.report().figures
    assert (job.completed, job.retries, len(job.items[1].history)) == (3, 9, 7)
    assert (found.retries, found.tries.failed) == (1, 1)
    assert [error.partition(":")[0] for error, _ in found.tries.errors] == ["KeyError"]


def test_the_report_of_a_job_that_an_earlier_program_ran_has_its_items_and_no_workers(tmp_path: Path) -> None:
    journal = tmp_path / "run.db"
    with JobQueue(1, journal=journal) as queue:
        duration = queue.run(range(3), abs, id="job").duration
    with JobQueue(1, journal=journal) as queue:
        remembered = queue.get_job("job")
        assert remembered is not None
        seen = str(remembered.report()), remembered.report().to_html()
        again = queue.run(range(3), abs, id="job")
    for text in (*seen, str(again.report())):
        assert "completed: 3 of 3 items completed, in " in text
        assert "The slowest items" in text
        assert "Where the workers" not in text
    assert remembered.report().figures.wall == again.report().figures.wall == pytest.approx(duration)


def test_a_run_is_compared_with_the_last_one_of_the_job_in_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "run.db"
    with JobQueue(1, journal=journal) as queue:
        first = queue.run(range(3), spin_a_little, id="job")
    with JobQueue(1, journal=journal) as queue:  # says so again, without running anything
        queue.run(range(3), spin_a_little, id="job")
    with JobQueue(1, journal=journal) as queue:
        again = queue.run(range(3), spin_a_little, id="job", rerun=Rerun(redo="all"))
    ran, found = figures(first), figures(again)
    assert ran.past is None
    assert found.past == (first.started_at, first.duration, ran.sums.cpu, 3)
    assert found.handler_name == "tests.integration.test_report.spin_a_little"
    assert "last run: " in str(again.report())


def spin_a_little(item: int) -> None:
    spin(0.005)


def test_the_parts_are_the_whole_where_workers_are_in_the_program_s_own_process() -> None:
    with JobQueue(2, backend=InlinePool()) as queue:
        job = queue.run(range(100), lambda item: threading.Event().wait(0.001))
    found = figures(job)
    assert found.sums.items == 100
    assert found.sums.cpu == 0, "whose it was in this process, nobody knows"
