"""Pipelines on real workers: what a stage returns goes on to the next one, as it was pickled."""

from __future__ import annotations

import json
import os
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import mpqueue
from mpqueue import JobQueue, Progress, RetryPolicy, Stage, current_item, sinks
from mpqueue.errors import JobStateError, StageError, TooManyFailuresError
from mpqueue.status import JobStatus
from tests.support import handlers as do
from tests.support.programs import is_running
from tests.support.recorder import Recorder
from tests.support.results import results_of
from tests.support.strength import workers_of
from tests.support.systems import not_on_windows
from tests.support.this_system import IS_WINDOWS, KILL
from tests.support.waiting import Gate, spend

pytestmark = pytest.mark.usefixtures("forked_workers")

NOW = RetryPolicy(max_retries=3, base_delay=0.0)
STUBBORN = RetryPolicy(max_retries=50, base_delay=0.0)
#: Floats of an array that is passed on in a segment.
BIG = 100_000


#: On Windows segments are files that are seen while a queue has them; some go with its next messages only.
SCOPE: Literal["function", "module"] = "function" if IS_WINDOWS else "module"


@pytest.fixture(scope=SCOPE)
def queue() -> Iterator[JobQueue]:
    """One for all tests in which no worker ends; whatever threads it may have, it has them from the beginning."""
    with JobQueue(2, retry=NOW) as made:
        made.on("job:finished", do.succeed)
        run = made.start_stages([NOW] * 20, [do.succeed, do.succeed])
        made.pause(run.job.id)
        made.resume(run.job.id)
        assert run.result().completed == 20
        workers_of(made)  # one of them may have run all of it
        yield made


@pytest.fixture
def one_worker() -> Iterator[JobQueue]:
    with JobQueue(1, retry=NOW) as made:
        yield made


def load(number: int) -> np.ndarray:
    return np.full(BIG, float(number))


def add_one(array: np.ndarray) -> np.ndarray:
    return array + 1


def first_of(array: np.ndarray) -> float:
    return float(array[0])


def halves(number: int) -> Iterator[int]:
    """As many as the number's halves, of the number 1 nothing."""
    if number > 1:
        yield number // 2
        yield number - number // 2


async def halves_later(number: int) -> AsyncIterator[int]:
    for half in halves(number):
        yield half


@pytest.mark.slow
def test_an_item_goes_through_all_stages(queue: JobQueue) -> None:
    heard = Recorder(queue)
    stages: list[Any] = [load, Stage(add_one, concurrency=1, timeout=30), Stage(first_of, name="read", concurrency=1)]
    job = queue.run_stages(range(20), stages, id="all")
    assert job.results == [number + 1.0 for number in range(20)]
    assert (job.status, job.completed, [item.id for item in job.items]) == (JobStatus.COMPLETED, 20, [*range(20)])
    for name in ("all", "all/load", "all/add_one", "all/read"):
        found = queue.get_job(name)
        assert found is not None
        assert (found.status, found.completed, found.total) == (JobStatus.COMPLETED, 20, 20)
        assert len(heard.of("job:progress", name)) == len(heard.of("job:finished", name)) * 20 == 20
    heard.check(job)
    took: dict[Any, float] = dict.fromkeys(range(20), 0.0)
    for name in ("load", "add_one", "read"):
        stage = queue.get_job(f"all/{name}")
        assert stage is not None
        for item in stage.items:  # in the order in which they came, with the ids of their inputs
            took[item.id] += item.elapsed
    assert {item.id: item.elapsed for item in job.items} == pytest.approx(took)
    assert "20 of 20 items completed" in str(job.report())


def wait_a_little(number: int) -> int:
    spend(0.005)
    return number


def wait_longer(number: int) -> int:
    spend(0.05)
    return number


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 1])
def test_the_report_has_the_time_of_each_stage_and_names_the_one_that_took_most(limit: int | None) -> None:
    """Its stages are no other jobs."""
    with JobQueue(3) as queue:
        workers_of(queue)
        job = queue.run_stages(range(40), [wait_a_little, Stage(wait_longer, concurrency=limit)], id="all")
        report, found = job.report(), job.report().figures
        part = queue.get_job("all/wait_longer")
        assert part is not None
        heaviest = part.report().figures
    seconds = {entry.name: entry.seconds for entry in found.work}
    assert sum(seconds.values()) == pytest.approx(found.worker_seconds, rel=0.05)
    assert seconds["in stage 'wait_longer'"] == pytest.approx(heaviest.sums.handling)
    assert 2 < seconds["in stage 'wait_longer'"] > 4 * seconds["in stage 'wait_a_little'"] > 0.8
    assert found.share("others") < 0.02
    assert found.share("idle", "tail") < 0.2 if limit is None else found.share("idle", "tail") > 0.5
    assert found.sums.items == 80
    took_most, *more = report.advice
    assert took_most.startswith("Of the stages, 'wait_longer' took most, ")
    assert took_most.endswith(" of the workers' time: the report of job 'all/wait_longer' says on what.")
    assert [text.startswith("Stage 'wait_longer' had as many workers as it may, 1, for ") for text in more] == (
        [] if limit is None else [True]
    )
    assert "in stage 'wait_longer'" in str(report)
    assert "What each worker did" in report.to_html()


@pytest.mark.slow
@pytest.mark.parametrize("make", [halves, halves_later])
def test_what_is_yielded_are_items_of_their_own(queue: JobQueue, make: Any) -> None:
    job = queue.run_stages([1, 2, 5, 8], [make, Stage(do.double, max_waiting=1), make])
    assert job.results == [[], [1, 1, 1, 1], [2, 2, 3, 3], [4, 4, 4, 4]]
    assert queue.run_stages([3, 1], [make]).results == [[1, 2], []]


def test_yielded_arrays_share_a_segment(queue: JobQueue) -> None:
    job = queue.run_stages([3, 40], [yield_arrays, add_one, first_of])
    assert job.results == [[1.0, 2.0, 3.0], [number + 1.0 for number in range(40)]]


def yield_arrays(count: int) -> Iterator[np.ndarray]:
    yield from map(load, range(count))


def fail_as_asked(number: int) -> int:
    if number % 3 == 0:
        raise OSError(2, "No such file or directory", f"{number}.jpg")
    if number % 3 == 1:
        raise ValueError
    return number


def test_groups_of_failures_tell_the_error_in_the_stage_and_its_text(queue: JobQueue) -> None:
    job = queue.run_stages(range(8), [fail_on_four, Stage(fail_as_asked, name="open", max_retries=0)])
    line = fail_as_asked.__code__.co_firstlineno + 2
    first, second, third = job.failure_groups()
    missing = "[Errno 2] No such file or directory: '0.jpg'"
    assert str(first) == f"FileNotFoundError × 3 in stage 'open' at test_stages.py:{line}, first: 0: {missing}"
    assert str(second) == f"ValueError × 2 in stage 'open' at test_stages.py:{line + 2}, first: 1"
    place = f"test_stages.py:{fail_on_four.__code__.co_firstlineno + 2}"
    assert str(third) == f"ValueError × 1 in stage 'fail_on_four' at {place}, first: 4: four"
    assert (first.error_type, first.stage, first.count) == ("FileNotFoundError", "open", 3)
    assert first.message == missing
    (group,) = queue.run([3, 6], fail_as_asked, max_retries=0).failure_groups()
    assert str(group).endswith("first: 3: [Errno 2] No such file or directory: '3.jpg'")


@pytest.mark.slow
@pytest.mark.holds("error: StageError")
def test_a_failure_names_its_stage(queue: JobQueue) -> None:
    job = queue.run_stages([1, 2, 3], [do.double, fail_on_four, do.double], id="fails")
    assert (job.results, job.status) == ([4, None, 12], JobStatus.COMPLETED_WITH_ERRORS)
    error = job.items[1].exception
    assert isinstance(error, StageError)
    assert (error.stage, str(error)) == ("fail_on_four", "in stage 'fail_on_four': ValueError: four")
    assert isinstance(error.__cause__, ValueError)
    assert "fail_on_four" in str(job.items[1].traceback)
    stage = queue.get_job("fails/fail_on_four")
    assert stage is not None
    assert (stage.failed, stage.retries) == (1, 3)
    # Items come to a stage as those of the one before end.
    assert [item.payload for item in stage.items if item.status == "failed"] == [4]


def fail_on_four(number: int) -> int:
    if number == 4:
        raise ValueError("four")
    return number


@pytest.mark.holds("error: ResultPicklingError")
@pytest.mark.parametrize("more", [[], [do.succeed]])
def test_a_yielded_value_that_cannot_be_pickled_is_named(one_worker: JobQueue, more: list[Any]) -> None:
    job = one_worker.run_stages([1], [Stage(yield_a_lock, retry=RetryPolicy(max_retries=0)), *more])
    cause = job.items[0].exception
    assert isinstance(cause, StageError)
    assert str(cause.__cause__).startswith("the result <unlocked _thread.lock object at ")
    assert " of type lock can't be pickled" in str(cause.__cause__)


def yield_a_lock(item: int) -> Iterator[Any]:
    yield item
    yield threading.Lock()


def test_the_parent_unpickles_nothing_in_between(queue: JobQueue) -> None:
    job = queue.run_stages([1, 2], [partial(make_far, os.getpid()), take_far])
    assert job.results == [1, 2]


class OnlyElsewhere:
    """Can be unpickled in any process but this one."""

    def __init__(self, value: int, process: int) -> None:
        self.value = value
        self.process = process

    def __setstate__(self, state: dict[str, Any]) -> None:
        assert os.getpid() != state["process"]
        self.__dict__.update(state)


def make_far(process: int, number: int) -> OnlyElsewhere:
    return OnlyElsewhere(number, process)


def take_far(far: OnlyElsewhere) -> int:
    return far.value


def test_values_of_lambdas_and_local_classes_are_passed_on(queue: JobQueue) -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

        def double(self) -> int:
            return self.x * 2

    job = queue.run_stages([1, 2], [Point, lambda point: (point, point.double()), lambda both: both[1]])
    assert job.results == [2, 4]


@pytest.mark.slow
def test_what_a_handler_keeps_stays_as_it_was() -> None:
    """Segments are filled again only when nobody maps them, also by those who were sent them by another worker."""
    with JobQueue(2) as queue:
        job = queue.run_stages(range(150), [load, keep, do.succeed])
    assert job.results == [True] * 150


def keep(array: np.ndarray, kept: list[tuple[float, np.ndarray]] = []) -> bool:  # noqa: B006 - lives in the worker
    kept.append((float(array[0]), array[:10]))
    return all((view == value).all() for value, view in kept)


@pytest.mark.slow
@not_on_windows("no limit of descriptors")
def test_it_goes_on_where_descriptors_are_few(one_worker: JobQueue) -> None:
    one_worker.run([1], do.double)

    import resource  # which Windows does not have

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = len(os.listdir("/proc/self/fd")) + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    try:
        job = one_worker.run_stages([*range(150), 40], [some_arrays, Stage(first_of_all, max_waiting=1000)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert job.results == [*[[float(number)] for number in range(150)], [float(number) for number in range(40)]]


def some_arrays(number: int) -> Iterator[np.ndarray]:
    yield from map(load, range(40) if number == 40 and current_item().id == 150 else [number])


def first_of_all(array: np.ndarray) -> float:
    assert (array == array[0]).all()
    array += 1
    return float(array[0]) - 1


@pytest.mark.slow
def test_killed_workers_change_nothing(tmp_path: Path) -> None:
    """Whoever is killed, writer or reader, at whatever moment: the same values come out, each once."""
    started = Gate(tmp_path)

    def tell() -> None:
        started.announce(os.getpid())

    with JobQueue(2, retry=STUBBORN, initializer=tell) as queue:

        def kill_one(progress: Any) -> None:
            if progress.job_id == "job-1" and progress.completed % 8 == 3:
                os.kill(next(filter(is_running, map(int, started.arrived()))), KILL)

        queue.on("job:progress", kill_one)
        stages: list[Any] = [yield_arrays, add_one, Stage(first_of_all, ordered=True)]
        job = queue.run_stages([number % 4 for number in range(24)], stages)
    assert job.results == [[value + 1.0 for value in range(number % 4)] for number in range(24)]


@pytest.mark.slow
def test_an_ordered_stage_gets_items_in_the_order_of_the_inputs(queue: JobQueue, tmp_path: Path) -> None:
    written = tmp_path / "written"
    stages: list[Any] = [partial(odd_ones_wait, tmp_path), Stage(partial(append, written), concurrency=1, ordered=True)]
    assert queue.run_stages(range(30), stages).completed == 30
    assert written.read_text().split() == [*map(str, range(30))]


def odd_ones_wait(folder: Path, number: int) -> int:
    if number % 2:
        spend(0.002)
    return number


def append(path: Path, number: int) -> None:
    with path.open("a") as file:
        file.write(f"{number}\n")


@pytest.mark.slow
def test_each_stage_draws_random_numbers_of_its_own(queue: JobQueue) -> None:
    stages: list[Any] = [Stage(draw_more, name=name, setup=draw_first) for name in "abc"]
    once, again = (results_of(queue.run_stages([[], []], stages, seed=7)) for _ in range(2))
    assert once == again
    assert len({number for numbers in once for number in numbers}) == 2 * 3 + 3, "the setups' are the same for both"
    alone = results_of(queue.run([list[float](), []], draw_more, setup=draw_first, seed=7))
    assert [numbers[:2] for numbers in once] == alone


def draw_first() -> float:
    return float(current_item().rng.random())


def draw_more(numbers: list[float], first: float) -> list[float]:
    return [*numbers, first, float(current_item().rng.random())]


@pytest.mark.slow
def test_a_stage_by_itself_shows_no_results(queue: JobQueue) -> None:
    job = queue.run_stages([1, 2], [do.double, do.double], id="by itself")
    assert job.results == [4.0, 8.0]
    for name in ("by itself/double", "by itself/double-2"):
        stage = queue.get_job(name)
        assert stage is not None
        with pytest.raises(JobStateError, match="got a stage, whose results go on"):
            _ = stage.results
        with pytest.raises(JobStateError, match="go on to the next stage"):
            _ = stage.items[0].result
        assert all("result" not in record for record in [*stage.to_records(), stage.items[0].to_dict()])


@pytest.mark.slow
def test_results_go_into_a_sink_as_inputs_end(queue: JobQueue, tmp_path: Path) -> None:
    path, sink = tmp_path / "rows.jsonl", OneAtATime()
    job = queue.run_stages([3, 1], [halves, do.double], results=sinks.jsonl(path, in_order=True))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["id"], row["result"]) for row in rows] == [(0, [2, 4]), (1, [])]
    assert queue.run_stages(range(20), [do.double, do.double], results="discard").completed == 20
    assert queue.run_stages(range(200), [load, first_of], results=sink).completed == 200
    assert (sorted(sink.ids), sink.closed) == ([*range(200)], True)
    with pytest.raises(JobStateError, match="keeps its results"):
        _ = job.items[0].result


class OneAtATime:
    """A slow sink."""

    def __init__(self) -> None:
        self.ids: list[Any] = []
        self.closed = False

    def write(self, rows: Any) -> None:
        spend(0.001)
        self.ids += [row["id"] for row in rows]

    def close(self) -> None:
        self.closed = True


@pytest.mark.slow
@pytest.mark.usefixtures("shared_pool_ends")
def test_a_cancellation_of_an_inner_job_fails_in_its_stage() -> None:
    stage = Stage(do.fail_with(mpqueue.ItemCancelledError("inner")), name="inside", max_retries=0)
    (error,) = mpqueue.stages([1], [do.double, stage], on_error="collect")
    assert (type(error), str(error)) == (StageError, "in stage 'inside': ItemCancelledError: inner")


@pytest.mark.slow
@pytest.mark.usefixtures("shared_pool_ends")
def test_the_short_form_returns_results_and_raises_as_map_does() -> None:
    stages: list[Any] = [do.double, Stage(fail_on_four, max_retries=0), halves]
    assert mpqueue.stages([1, 3], stages, concurrency=1) == [[1, 1], [3, 3]]
    with pytest.raises(StageError, match="in stage 'fail_on_four': ValueError: four") as caught:
        mpqueue.stages([1, 2], stages)
    assert caught.value.__notes__ == ["mpqueue: raised by item 1 (2)"]
    assert [type(one) for one in mpqueue.stages([1, 2], stages, on_error="collect")] == [list, StageError]
    with pytest.raises(TooManyFailuresError):
        mpqueue.stages([2], stages, max_failures=0)
    for wrong in ({"concurrency": 0}, {"on_error": "x"}, {"max_failures": -1}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            mpqueue.stages([1], stages, **wrong)


@pytest.mark.slow
def test_failures_are_raised_as_run_raises_them(queue: JobQueue) -> None:
    stages: list[Any] = [do.double, Stage(fail_on_four, max_retries=0)]
    assert queue.run_stages([1, 2], stages).failed == 1
    with pytest.raises(StageError, match="in stage 'fail_on_four': ValueError: four"):
        queue.run_stages([1, 2], stages, on_error="raise")
    with pytest.raises(ExceptionGroup, match="1 of 2 items failed"):
        queue.run_stages([1, 2], stages, on_error="group")
    with pytest.raises(ValueError, match="on_error: expected one of 'collect', 'raise', 'group', got 'x'"):
        queue.run_stages([1], stages, on_error="x")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["callable", "many"])
def test_progress_has_a_line_for_each_stage(queue: JobQueue, how: str) -> None:
    told: dict[str, list[Progress]] = {}

    def tell(progress: Progress) -> None:
        told.setdefault(progress.job_id, []).append(progress)

    first = do.double if how == "callable" else halves
    queue.run_stages([2, 3], [first, Stage(do.double, "last")], id=how, progress=tell)
    assert {name: (last[-1].completed, last[-1].total) for name, last in told.items()} == {
        how: (2, 2),
        f"{how}/{first.__name__}": (2, 2),
        f"{how}/last": (2, 2) if how == "callable" else (4, 4),
    }


def two_numbers(base: int, exponent: int) -> int:
    return int(base**exponent)


@pytest.mark.slow
def test_what_can_not_be_done_is_refused(queue: JobQueue) -> None:
    def refused(error: type[Exception], match: str, *stages: Any, items: Any = (1,), **options: Any) -> None:
        before = [job.id for job in queue.jobs()]
        with pytest.raises(error, match=match):
            queue.run_stages(items, list(stages), **options)
        assert [job.id for job in queue.jobs()] == before

    refused(ValueError, "expected at least one function or Stage, got none")
    refused(TypeError, r"stages\[1\]: expected a function or a Stage of one, got 3", do.double, 3)
    refused(ValueError, "expected a name of its own, got 'a' once more", Stage(do.double, "a"), Stage(do.double, "a"))
    refused(TypeError, "expected a text that is not empty", Stage(do.double, ""))
    refused(ValueError, "stage 'double': concurrency", Stage(do.double, concurrency=0))
    with pytest.raises(ValueError, match="max_waiting: expected a whole number"):
        Stage(do.double, max_waiting=0)
    refused(TypeError, "stage 'pow': handler: expected .* one item", do.double, Stage(two_numbers, "pow"))
    refused(TypeError, "stage 'double': handler: expected .* the state", Stage(do.double, setup=list))
    refused(TypeError, "setup", Stage(do.double, setup=3))  # type: ignore[arg-type]
    refused(TypeError, "items: expected an iterable", do.double, items=3)
    for no_list in (do.double, None):
        with pytest.raises(TypeError, match="stages: expected a list of functions and Stages, got"):
            queue.run_stages([1], no_list)  # type: ignore[arg-type]
    job = queue.run_stages([2], [do.double, fail_on_four, do.double], id="done")
    assert [each.id for each in queue.jobs()[-3:]] == ["done/double", "done/fail_on_four", "done/double-2"]
    with pytest.raises(JobStateError, match="expected a job made by open_job"):
        queue.add_items("done/double-2", [1])
    for call in (queue.seal, queue.retry_failed):
        with pytest.raises(JobStateError, match="stage"):
            call("done/fail_on_four")
    with pytest.raises(JobStateError, match="with stages"):
        queue.retry_failed("done")
    for job_id in ("done", "done/double"):
        with pytest.raises(JobStateError, match="expected a pending job to start") as not_pending:
            queue.start(job_id)
        assert str(not_pending.value).endswith(
            "; run_stages() with another id, or after clear_job('done'), makes it anew"
        )
    with pytest.raises(JobStateError):
        job.items[0].replay()


def two_thousand(item: int) -> Iterator[int]:
    """Values for the stage behind."""
    yield from range(2000)


def nothing(value: int) -> None:
    """The last stage."""


@pytest.mark.slow
@pytest.mark.long
def test_values_that_were_passed_on_leave_nothing_in_the_program() -> None:
    """Five times as many of them hold no more memory: a stream of stages may be of any length."""
    held = []
    with JobQueue(2) as queue:  # the others' listeners keep what they hear
        queue.run_stages(range(3), [two_thousand, nothing])
        tracemalloc.start()
        try:
            for inputs in (20, 100):
                before = tracemalloc.get_traced_memory()[0]
                job = queue.run_stages(range(inputs), [two_thousand, nothing], results="discard")
                held.append(tracemalloc.get_traced_memory()[0] - before)
                del job
        finally:
            tracemalloc.stop()
    assert held[1] - held[0] < 3_000_000, held  # of 160,000 more; a dict is of one size or of twice that
