"""Each piece of advice is tried: a job that needs it is run, then as the report says, and it was right.

What can be counted is counted: calls, tries, processes, chunks, bytes. The rest are seconds in which handlers wait, so
that a busy machine changes little. What depends on the CPUs that a busy machine has free is followed where that machine
is computed (tests/unit/test_advice_followed.py).
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpqueue
from mpqueue import Job, JobQueue, RetryPolicy, Stage, current_item
from mpqueue.testing import close_shared_pool
from tests.support import hogs
from tests.support.handlers import double
from tests.support.strength import workers_of
from tests.support.waiting import spend, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

NOW = RetryPolicy(3, base_delay=0.0)
#: The least gain that is worth a test: what a busy machine adds is less.
CLEARLY = 1.5
#: The gain of which a test is content, if more was promised for a job of a few milliseconds.
ENOUGH = 3.0


def advice_of(job: Job, rule: str, alone: Job | None = None) -> Any:
    """What the report says by that rule."""
    report = job.report(alone=alone)
    found = {one.rule.name: one for one in report.findings}
    assert rule in found, str(report)
    return found[rule]


def is_advised(job: Job, rule: str) -> bool:
    return rule in {one.rule.name for one in job.report().findings}


def is_quicker(before: Job, advice: Any, run_after: Callable[[], Job], clearly: float = CLEARLY) -> Job:
    """Run it as advised: that takes clearly less time. A busy machine may hold it up, but not each of three times."""
    gains = []
    for _ in range(3):
        after = run_after()
        assert before.duration is not None
        assert after.duration is not None
        gains.append(before.duration / after.duration)
        if gains[-1] > max(clearly, min(advice.gain / 2, ENOUGH)):
            return after
    raise AssertionError(f"{advice.text} Following it gave {gains}.")


def run_on(workers: int, items: Any, handler: Callable[..., Any], /, **options: Any) -> Job:
    """A job on workers that are there already."""
    with JobQueue(workers, retry=options.pop("retry", NOW)) as queue:
        workers_of(queue)
        return queue.run(items, handler, **options)


def workers_advised(advice: Any) -> int:
    found = re.search(r"JobQueue\((\d+)\)", advice.text)
    assert found is not None, advice.text
    return int(found[1])


# -- how many workers --------------------------------------------------------------------------------------------------


def wait_100_ms(item: int) -> None:
    spend(0.1)


def test_more_workers_for_a_handler_that_waits() -> None:
    before = run_on(1, range(16), wait_100_ms)
    advice = advice_of(before, "waits")
    is_quicker(before, advice, lambda: run_on(workers_advised(advice), range(16), wait_100_ms))


def test_a_higher_limit_of_workers() -> None:
    before = run_on(4, range(16), wait_100_ms, concurrency=1)
    assert not is_advised(before, "waits"), "more workers would be left idle, too"
    advice = advice_of(before, "limit")
    assert "(concurrency=1)" in advice.text
    is_quicker(before, advice, lambda: run_on(4, range(16), wait_100_ms))


def test_more_workers_are_not_advised_where_what_items_use_lets_fewer_run() -> None:
    with JobQueue(4, resources={"license": 1}) as queue:
        workers_of(queue)
        job = queue.run(range(8), wait_100_ms, uses={"license": 1})
    for rule in ("waits", "limit", "unused CPUs", "few items", "long items"):
        assert not is_advised(job, rule)


def test_a_higher_limit_of_a_stage() -> None:
    def run_it(limit: int | None) -> Job:
        with JobQueue(4) as queue:
            workers_of(queue)
            return queue.run_stages(range(12), [double, Stage(wait_100_ms, concurrency=limit)])

    before, after = run_it(1), run_it(None)
    (text,) = (text for text in before.report().advice if "a higher concurrency= of that stage" in text)
    assert text.startswith("Stage 'wait_100_ms' had as many workers as it may, 1, for ")
    assert before.duration is not None
    assert after.duration is not None
    assert before.duration > CLEARLY * after.duration
    assert not [text for text in after.report().advice if "concurrency" in text]


def hold(lock: str, seconds: float, item: int) -> None:
    """Wait for 20 ms, and hold the lock so many of it."""
    spend(0.02 - seconds)
    with open(lock, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        spend(seconds)


@pytest.mark.parametrize("how", ["fewer workers", "a shorter time"])
def test_a_lock_that_all_workers_need(how: str, tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    alone = run_on(1, range(10), partial(hold, lock, 0.02), id="alone")
    before = run_on(4, range(60), partial(hold, lock, 0.02))
    advice = advice_of(before, "shared bottleneck", alone)
    assert advice.text.startswith("4 workers gave 1.")
    is_bound = (
        "The handler is bound by what it waits for, disk, network or a lock, not by CPUs: fewer workers do as well."
    )
    assert is_bound in advice.text or "They had too few CPUs." in advice.text  # on a very busy machine
    if how == "fewer workers":
        after = run_on(1, range(60), partial(hold, lock, 0.02))
        assert after.duration is not None
        assert before.duration is not None
        assert after.duration < 1.4 * before.duration
    else:
        is_quicker(before, advice, lambda: run_on(4, range(60), partial(hold, lock, 0.001)))


def test_as_many_items_as_there_is_memory_for() -> None:
    """What the report offers as ``uses=``, on a machine that is said to have 1 GB."""
    text = str(run_on(1, [250], hogs.spin_then_use).report())
    found = re.search(r'uses=\{"memory": "(\d+)MB"\} lets (\d+) run at once', " ".join(text.split()))
    assert found is not None, text
    need = int(found[1])
    assert 250 <= need <= 480
    with JobQueue(4, resources={"memory": "1GB"}) as queue:
        workers_of(queue)
        job = queue.run([0.1] * 12, wait, uses={"memory": f"{need}MB"})
    spans = job.report().figures.spans
    assert max(sum(other.begun <= one.begun < other.ended for other in spans) for one in spans) == 1000 // need


# -- the items ---------------------------------------------------------------------------------------------------------


def wait(seconds: float) -> None:
    spend(seconds)


def test_smaller_items_where_there_are_few() -> None:
    before = run_on(4, [1.2], wait)
    advice = advice_of(before, "few items")
    assert "cut the items smaller" in advice.text
    after = is_quicker(before, advice, lambda: run_on(4, [0.1] * 12, wait))
    assert not is_advised(after, "few items")


def test_smaller_items_where_all_are_long() -> None:
    before = run_on(4, [0.4] * 5, wait)
    advice = advice_of(before, "long items")
    assert "Cut them smaller." in advice.text
    after = is_quicker(before, advice, lambda: run_on(4, [0.1] * 20, wait), 1.3)
    assert not is_advised(after, "long items")


@pytest.mark.parametrize("how", ["cut up", "first"])
def test_an_item_that_is_much_longer_than_the_others(how: str) -> None:
    before = run_on(4, [*[0.05] * 36, 0.6], wait, chunksize=1)
    advice = advice_of(before, "long items")
    assert "item 36 (0.6) took 6" in advice.text
    assert "Cut it up, or put long items first (cost=)." in advice.text
    if how == "first":
        items, cost = [*[0.05] * 36, 0.6], float
    else:
        items, cost = [0.05] * 48, None
    after = is_quicker(before, advice, lambda: run_on(4, items, wait, chunksize=1, cost=cost), 1.3)
    assert not [text for text in after.report().advice if "cost=" in text or "preload" in text]


def test_more_in_one_item() -> None:
    def double_all(numbers: range) -> int:
        return sum(2 * number for number in numbers)

    before = run_on(1, range(200_000), double)
    advice = advice_of(before, "short items")
    assert "Do more in one item: a range of numbers" in advice.text
    ranges = [range(at, at + 10_000) for at in range(0, 200_000, 10_000)]
    is_quicker(before, advice, lambda: run_on(1, ranges, double_all))


def test_no_chunksize() -> None:
    before = run_on(1, range(2000), double, chunksize=1)
    advice = advice_of(before, "short items")
    assert "chunksize=1 sends 1 at a time" in advice.text
    assert "Leave chunksize out." in advice.text
    after = is_quicker(before, advice, lambda: run_on(1, range(2000), double))
    assert before.report().figures.sums.reports == 2000
    assert after.report().figures.sums.reports < 100


def test_a_loop() -> None:
    before = run_on(2, range(20), double)
    advice = advice_of(before, "plain loop")
    assert "Use a loop" in advice.text
    begun = time.perf_counter()
    results = [double(number) for number in range(20)]
    took = time.perf_counter() - begun
    assert results == before.results
    assert before.duration is not None
    assert before.duration > CLEARLY * took


def parse(number: int) -> int:
    spend(0.01)
    return number


def parsed(count: int, made: list[int]) -> Iterator[int]:
    for number in range(count):
        made.append(number)
        yield parse(number)


def test_items_that_the_handler_makes() -> None:
    before = run_on(4, parsed(60, []), double)
    advice = advice_of(before, "slow items source")
    assert "Let the handler do that work" in advice.text
    after = run_on(4, range(60), parse)
    waited = before.report().figures.whole, after.report().figures.whole
    assert waited[0] > max(CLEARLY, min(advice.gain / 2, ENOUGH)) * waited[1]
    assert not is_advised(after, "slow items source")


def test_or_imap_which_runs_items_while_others_are_made() -> None:
    assert "Or use imap" in advice_of(run_on(4, parsed(60, []), double), "slow items source").text
    made: list[int] = []
    results = mpqueue.imap(double, parsed(60, made), concurrency=2, buffersize=2)
    assert next(results) == 0
    assert len(made) < 60, "the first has run before the last was made"
    assert sum(1 for _ in results) == 59
    close_shared_pool()


def test_items_that_are_added_too_slowly() -> None:
    def run_it(handler: Callable[[int], Any], made: Iterator[int]) -> Job:
        with JobQueue(4) as queue:
            workers_of(queue)
            queue.open_job("open", handler=handler)
            run = queue.start("open")
            for number in made:
                queue.add_items("open", [number])
            queue.seal("open")
            return run.result()

    before = run_it(double, parsed(60, []))
    advice = advice_of(before, "starved")
    assert "Let the handler do the work of making them" in advice.text
    is_quicker(before, advice, lambda: run_it(parse, iter(range(60))))


# -- what is sent ------------------------------------------------------------------------------------------------------


def length_of(item: Any) -> int:
    spend(0.002)  # it is no short item
    return len(item)


def read_length(path: str) -> int:
    return len(Path(path).read_bytes())


def test_paths_instead_of_big_items(tmp_path: Path) -> None:
    items = [os.urandom(4_000_000) for _ in range(8)]
    before = run_on(1, items, length_of)
    advice = advice_of(before, "items pickled")
    assert "send paths or keys and read the data in the worker" in advice.text
    for number, item in enumerate(items):
        (tmp_path / str(number)).write_bytes(item)
    after = run_on(1, [str(tmp_path / str(number)) for number in range(8)], read_length)
    assert after.results == before.results
    assert before.report().figures.sums.bytes_out > 1000 * after.report().figures.sums.bytes_out


def test_what_items_have_in_common_is_shared() -> None:
    def length(item: tuple[int, bytes]) -> int:
        return length_of(item[1]) + item[0]

    table = os.urandom(4_000_000)
    before = run_on(1, [(number, table) for number in range(8)], length, chunksize=1)
    assert "mpqueue.share() what they have in common" in advice_of(before, "items pickled").text
    shared = mpqueue.share(table)
    after = run_on(1, range(8), lambda number: number + len(shared), chunksize=1)
    assert after.results == before.results
    assert before.report().figures.sums.bytes_out > 1000 * after.report().figures.sums.bytes_out


def test_items_as_arrays() -> None:
    before = run_on(1, [[float(at) for at in range(100_000)] for _ in range(10)], length_of)
    assert "put numbers into a numpy array" in advice_of(before, "items pickled").text
    after = run_on(1, [np.arange(100_000.0) for _ in range(10)], length_of)
    assert after.results == before.results
    slow, fast = (job.report().figures.sums for job in (before, after))
    assert slow.parent_pickling + slow.unpacking > 3 * (fast.parent_pickling + fast.unpacking)


def make_floats(count: int) -> list[float]:
    return [float(at) for at in range(count)]


def make_array(count: int) -> Any:
    return np.arange(float(count))


def write_floats(folder: str, count: int) -> str:
    path = Path(folder) / f"{current_item().id}"
    path.write_bytes(np.arange(float(count)).tobytes())
    return str(path)


def test_results_as_arrays_or_as_paths_of_files(tmp_path: Path) -> None:
    before = run_on(1, [100_000] * 10, make_floats)
    advice = advice_of(before, "results pickled")
    assert "put numbers into a numpy array" in advice.text
    assert "write them to files in the worker and return the paths" in advice.text
    slow = before.report().figures.sums
    fast = run_on(1, [100_000] * 10, make_array).report().figures.sums
    assert slow.packing + slow.parent_unpickling > 3 * (fast.packing + fast.parent_unpickling)
    paths = run_on(1, [100_000] * 10, partial(write_floats, str(tmp_path)))
    assert slow.bytes_home > 1000 * paths.report().figures.sums.bytes_home


# -- what the workers load ---------------------------------------------------------------------------------------------


def test_a_closure_over_much_is_shared() -> None:
    model = os.urandom(20_000_000)
    before = run_on(1, range(3), lambda item: model[item])
    advice = advice_of(before, "loading")
    assert "mpqueue.share() it" in advice.text
    shared = mpqueue.share(model)
    after = run_on(1, range(3), lambda item: shared[item])
    assert after.results == before.results
    assert before.report().figures.handler_bytes > len(model)
    assert after.report().figures.handler_bytes < 10_000


#: A module that takes long to import, and says in a file that it was imported.
SLOW_MODULE = """
from tests.support.waiting import spend
with open({folder!r} + "/imported", "a") as file:
    file.write("once\\n")
spend(0.3)
def work(item):
    return item
"""


@pytest.fixture
def slow_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "slow_to_import.py").write_text(SLOW_MODULE.format(folder=str(tmp_path)))
    monkeypatch.syspath_prepend(str(tmp_path))
    return "slow_to_import"


def imports(folder: Path) -> int:
    path = folder / "imported"
    count = len(path.read_text().splitlines())
    path.unlink()
    return count


class Importing:
    """A handler whose unpickling imports a module."""

    def __init__(self, module: str) -> None:
        self.module = module

    def __call__(self, item: int) -> None:
        spend(0.05)

    def __reduce__(self) -> Any:
        return import_and_make, (self.module,)


def import_and_make(module: str) -> Importing:
    __import__(module)
    return Importing(module)


def import_then_work(module: str, item: int) -> int:
    """Import at the first call, as functions with imports in their bodies do."""
    __import__(module)
    spend(0.005)
    return item


@pytest.mark.parametrize("how", ["one queue", "preload"])
def test_a_handler_that_imports_much(how: str, tmp_path: Path, slow_module: str) -> None:
    def run_in(queue: JobQueue) -> Job:
        workers_of(queue)
        return queue.run(range(24), Importing(slow_module))

    jobs = []
    for _ in range(2):
        with JobQueue(2) as queue:
            jobs.append(run_in(queue))
    advice = advice_of(jobs[-1], "loading")
    assert "Keep one queue for several jobs, or import once for all workers: JobQueue(preload=[...])." in advice.text
    before = imports(tmp_path)
    assert before in (3, 4), "each worker that ran items"
    if how == "preload":
        with JobQueue(2, preload=[slow_module, __name__]) as queue:
            after = run_in(queue)
        assert imports(tmp_path) == 1
    else:
        with JobQueue(2) as queue:
            run_in(queue)
            workers_of(queue)
            after = run_in(queue)
        assert imports(tmp_path) <= 2
    if how == "preload":
        assert not is_advised(after, "loading")


def test_a_handler_that_imports_at_its_first_call(tmp_path: Path, slow_module: str) -> None:
    handler = partial(import_then_work, slow_module)
    before = run_on(2, range(40), handler, chunksize=1)
    advice = advice_of(before, "first items")
    assert "Import it once for all workers, JobQueue(preload=[...]), and keep one queue for several jobs" in advice.text
    assert imports(tmp_path) == 2

    def run_preloaded() -> Job:
        with JobQueue(2, preload=[slow_module, __name__]) as queue:
            workers_of(queue)
            job = queue.run(range(40), handler, chunksize=1)
        assert imports(tmp_path) == 1
        return job

    is_quicker(before, advice, run_preloaded)


def note(path: str) -> None:
    with open(path, "a") as file:
        file.write("once\n")


def load_model(path: str) -> str:
    note(path)
    spend(0.2)
    return "model"


def use_model(item: int, model: str) -> int:
    return item


_kept: list[str] = []


def use_kept_model(path: str, item: int) -> int:
    if not _kept:
        _kept.append(load_model(path))
    return item


@pytest.mark.parametrize("how", ["one job", "a global"])
def test_a_setup_that_takes_long(how: str, tmp_path: Path) -> None:
    path = str(tmp_path / "loaded")
    with JobQueue(1) as queue:
        workers_of(queue)
        jobs = [queue.run(range(4), use_model, setup=partial(load_model, path)) for _ in range(3)]
        advice = advice_of(jobs[-1], "setup")
        assert "put more items into one job, or keep what it makes in a global of a module" in advice.text
        assert len(Path(path).read_text().splitlines()) == 3
        Path(path).unlink()
        if how == "one job":
            queue.run(range(12), use_model, setup=partial(load_model, path))
        else:
            again = [queue.run(range(4), partial(use_kept_model, path)) for _ in range(3)]
            assert not is_advised(again[-1], "setup")
        assert len(Path(path).read_text().splitlines()) == 1


# -- workers that come and go ------------------------------------------------------------------------------------------


def pid_of(item: int) -> int:
    return os.getpid()


def test_one_queue_for_several_jobs(forked_workers: Callable[[], AbstractContextManager[object]]) -> None:
    jobs = []
    with forked_workers():  # ordinary ones: what a fork takes is lost in what a busy machine takes
        for _ in range(3):
            with JobQueue(1) as queue:
                jobs.append(queue.run(range(3), pid_of))
    assert "keep the queue open, then the next job finds them ready" in advice_of(jobs[-1], "cold start").text
    assert len({pid for job in jobs for pid in job.results}) == 3
    with JobQueue(1) as queue:
        jobs = [queue.run(range(3), pid_of) for _ in range(3)]
    assert len({pid for job in jobs for pid in job.results}) == 1
    assert not is_advised(jobs[-1], "cold start")


def test_workers_that_are_replaced_after_more_items() -> None:
    def run_it(items: int) -> Job:
        with JobQueue(1, per_worker={"items": items}) as queue:
            workers_of(queue)
            return queue.run(range(6), pid_of)

    before, after = run_it(1), run_it(1000)
    assert "let them run more items (per_worker={'items': ...})" in advice_of(before, "replaced workers").text
    assert (len(set(before.results)), len(set(after.results))) == (6, 1)
    assert not is_advised(after, "replaced workers")


def die_at_first(lives: bool, item: int) -> int:
    if item % 2 and (not lives or current_item().attempt == 1):
        os._exit(3)
    return item


@pytest.mark.parametrize("lives", [True, False])
def test_workers_that_die_are_in_the_history_and_the_failures(lives: bool) -> None:
    job = run_on(1, range(4), partial(die_at_first, lives), retry=RetryPolicy(1, base_delay=0.0))
    text = advice_of(job, "replaced workers").text
    histories = [item.history for item in job.items if item.history]
    assert "item.history" in text
    assert len(histories) == 2
    assert all("exit code 3" in tried.error for history in histories for tried in history)
    assert ("job.failures" in text) == (not lives)
    assert [failure.item.id for failure in job.failures] == ([] if lives else [1, 3])


# -- tries and listeners -----------------------------------------------------------------------------------------------


def reject(item: int) -> int:
    spend(0.01)
    if item % 2:
        raise ValueError("no number")
    return item


@pytest.mark.parametrize("retry", [RetryPolicy(3, base_delay=0.0, give_up_on=(ValueError,)), RetryPolicy(0)])
def test_an_error_that_comes_again_is_given_up_on(retry: RetryPolicy) -> None:
    before = run_on(2, range(20), reject)
    advice = advice_of(before, "failed tries")
    assert "name it in give_up_on, or set max_retries=0" in advice.text
    after = is_quicker(before, advice, lambda: run_on(2, range(20), reject, retry=retry))
    assert (sum(item.attempts for item in before.items), sum(item.attempts for item in after.items)) == (50, 20)
    assert after.failed == before.failed == 10


def fail_once(item: int) -> None:
    if current_item().attempt == 1:
        raise ConnectionError("try again")
    spend(0.05)


def test_a_shorter_delay_between_tries() -> None:
    before = run_on(2, range(4), fail_once, retry=RetryPolicy(1, base_delay=1.0, jitter=0.0))
    advice = advice_of(before, "waits for retries")
    assert "A shorter base_delay of the RetryPolicy" in advice.text
    soon = RetryPolicy(1, base_delay=0.1, jitter=0.0)
    is_quicker(before, advice, lambda: run_on(2, range(4), fail_once, retry=soon))


def test_listeners_that_are_called_less_often() -> None:
    def run_it(**options: Any) -> tuple[Job, int]:
        told: list[Any] = []

        def listen(progress: Any) -> None:
            told.append(progress)
            spend(0.03)

        with JobQueue(1, **options) as queue:
            workers_of(queue)
            queue.on("job:progress", listen)
            ended = threading.Event()
            queue.on("job:finished", lambda event: ended.set())
            job = queue.run(range(50), parse, chunksize=1)
            wait_until(ended.is_set)
        return job, len(told)

    before, often = run_it()
    _, seldom = run_it(progress_interval=0.1)
    assert "JobQueue(progress_interval=0.1)" in advice_of(before, "listeners").text
    assert often >= 50 > 3 * seldom
