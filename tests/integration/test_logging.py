"""What handlers log, and warn of, arrives in this process's logging, with job, item and attempt."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import JobQueue, RetryPolicy
from tests.support import handlers as do
from tests.support.front_ends import FRONT_ENDS, FrontEnd
from tests.support.programs import run_program
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_pool_ends", "forked_workers")]

AT_ONCE = RetryPolicy(3, base_delay=0)


class Heard(logging.Handler):
    """Keeps every record of the loggers ``mine``, ``py.warnings`` and below."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    loggers = [logging.getLogger(name) for name in ("mine", "py.warnings")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def log(item: Any) -> Any:
    logging.getLogger("mine").info("at %s", item)
    return item


def test_a_record_says_job_item_attempt_and_worker(heard: Heard) -> None:
    def handle(item: dict[str, str]) -> None:
        logging.getLogger("mine.own").info("at %s", item["id"])
        if item["id"] == "b" and mpqueue.current_item().attempt == 1:
            raise ValueError

    with JobQueue(1, retry=AT_ONCE) as queue:
        queue.run([{"id": name} for name in "ab"], handle, id="job")
    told = [
        (record.mpqueue_job, record.mpqueue_item, record.mpqueue_attempt, record.mpqueue_worker)
        for record in heard.records
    ]
    assert sorted(told) == [("job", "a", 1, 0), ("job", "b", 1, 0), ("job", "b", 2, 0)]
    assert {(record.name, record.levelname, record.funcName) for record in heard.records} == {
        ("mine.own", "INFO", "handle")
    }
    assert {record.process for record in heard.records}.isdisjoint({os.getpid()})


@pytest.mark.parametrize("chunksize", [1, 50, 1000])
def test_each_of_many_tiny_items_names_itself(heard: Heard, chunksize: int) -> None:
    with JobQueue(2) as queue:
        queue.run(range(1000), log, chunksize=chunksize)
    assert sorted((record.mpqueue_item, record.getMessage()) for record in heard.records) == [
        (number, f"at {number}") for number in range(1000)
    ]


def test_levels_are_those_of_this_process(heard: Heard) -> None:
    def handle(item: str) -> None:
        logger = logging.getLogger("mine")
        logger.debug("quiet")
        logger.warning("loud")
        logging.getLogger("mine.talkative").debug("after all")

    logging.getLogger("mine").setLevel(logging.WARNING)
    logging.getLogger("mine.talkative").setLevel(logging.DEBUG)
    try:
        with JobQueue(1) as queue:
            queue.run(["a"], handle)
    finally:
        logging.getLogger("mine.talkative").setLevel(logging.NOTSET)
    assert heard.texts == ["loud", "after all"]


def test_a_worker_that_sets_its_own_levels_tells_no_more_than_this_process_wants(heard: Heard) -> None:
    def handle(item: str) -> None:
        logging.getLogger("mine").setLevel(logging.DEBUG)
        log(item)

    logging.getLogger("mine").setLevel(logging.ERROR)
    with JobQueue(1) as queue:
        assert queue.run(["a", "b"], handle).completed == 2
    assert heard.texts == []


def test_a_level_that_a_worker_s_initializer_sets_stays_for_the_handlers_that_it_adds(
    heard: Heard, tmp_path: Path
) -> None:
    path = tmp_path / "worker.log"

    def begin() -> None:
        root = logging.getLogger()
        root.addHandler(logging.FileHandler(path))
        root.setLevel(logging.INFO)

    def handle(item: str) -> None:
        for name in ("other", "mine"):
            logging.getLogger(name).info("%s at %s", name, item)

    logging.getLogger("mine").setLevel(logging.ERROR)
    with JobQueue(1, initializer=begin) as queue:
        for item in "ab":
            queue.run([item], handle, id=item)
        logging.getLogger("mine").setLevel(logging.NOTSET)
        logging.getLogger().setLevel(logging.INFO)
        try:
            queue.run(["c"], handle)
        finally:
            logging.getLogger().setLevel(logging.WARNING)
        queue.run(["d"], handle)
    assert path.read_text().splitlines() == [
        "other at a",
        "other at b",
        "other at c",
        "mine at c",
        "other at d",
        "mine at d",
    ]
    assert heard.texts == ["mine at c"]


def test_a_level_that_this_process_takes_back_is_taken_back_in_its_workers(heard: Heard) -> None:
    def handle(item: str) -> None:
        logging.getLogger("mine.talkative").info("at %s", item)

    with JobQueue(1) as queue:
        logging.getLogger("mine.talkative").setLevel(logging.ERROR)
        queue.run(["a"], handle)
        logging.getLogger("mine.talkative").setLevel(logging.NOTSET)
        queue.run(["b"], handle)
    assert heard.texts == ["at b"]


def test_tracebacks_extras_and_stacks_come_along(heard: Heard) -> None:
    class Strange:
        def __repr__(self) -> str:
            return "<strange>"

        def __reduce__(self) -> Any:
            raise TypeError("not me")

    def handle(item: str) -> None:
        extra = {"request": {"id": 7, "tags": ["x"]}, "strange": Strange(), "reprless": do.ReprlessError()}
        try:
            raise ValueError(item)
        except ValueError:
            logging.getLogger("mine").exception("it failed: %s", Strange(), extra=extra, stack_info=True)

    with JobQueue(1) as queue:
        assert queue.run(["a"], handle).failures == []
    (record,) = heard.records
    assert record.getMessage() == "it failed: <strange>"
    assert (record.request, record.strange) == ({"id": 7, "tags": ["x"]}, "<strange>")
    assert record.reprless == "<ReprlessError: its repr() raised RuntimeError>"
    assert "ValueError: a" in record.exc_text
    assert "ValueError: a" in logging.Formatter().format(record)
    assert "in handle" in record.stack_info


def test_a_record_that_can_t_be_written_fails_no_item(heard: Heard) -> None:
    def handle(item: str) -> str:
        logging.raiseExceptions = False
        logging.getLogger("mine").info("%d", item)
        return item

    with JobQueue(1) as queue:
        assert queue.run(["a", "b"], handle).results == ["a", "b"]
    assert heard.texts == []


def test_warnings_become_records_of_py_warnings(heard: Heard) -> None:
    def handle(item: str) -> None:
        warnings.warn("beware", UserWarning, stacklevel=1)

    with JobQueue(1) as queue:
        queue.run(["a"], handle, id="job")
    (record,) = heard.records
    assert (record.name, record.levelname, record.mpqueue_item) == ("py.warnings", "WARNING", 0)
    assert "UserWarning: beware" in record.getMessage()
    assert record.pathname == __file__


def test_setup_and_its_end_tell_the_job_and_no_item(heard: Heard) -> None:
    def setup() -> Iterator[str]:
        logging.getLogger("mine").info("loading")
        yield "state"
        logging.getLogger("mine").info("unloading")

    with JobQueue(1) as queue:
        queue.run(["a"], lambda item, state: log(item), setup=setup, id="job")
        queue.run(["b"], do.succeed, id="other")
    told = [(record.getMessage(), record.mpqueue_job, record.mpqueue_item) for record in heard.records]
    assert told == [("loading", "job", None), ("at a", "job", 0), ("unloading", "job", None)]


def test_what_a_long_item_logs_comes_while_it_runs(heard: Heard, gate: Gate) -> None:
    def handle(item: str) -> None:
        for number in range(3):
            logging.getLogger("mine").info("step %d", number)
        gate.pass_through(item)

    with JobQueue(1) as queue:
        queue.create_job("job", ["a"], handle)
        run = queue.start("job")
        wait_until(lambda: heard.texts == ["step 0", "step 1", "step 2"])
        assert not run.done()
        gate.open()
        run.result()
    assert len(heard.records) == 3


def test_what_was_logged_before_a_crash_a_timeout_a_kill_or_a_failed_setup_comes(heard: Heard, gate: Gate) -> None:
    def handle(item: str) -> str:
        if item == "bystander":
            return item
        log("one")
        log("two")
        if item == "crash":
            do.kill_self(item)
        gate.announce(item)
        return do.hang_sleep(item)  # type: ignore[no-any-return]

    def setup() -> None:
        log("setup")
        raise ValueError

    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(["bystander", "crash", "bystander"], handle, id="crashes", chunksize=1)
        assert [item.status for item in job.items] == ["completed", "failed", "completed"]
        queue.run(["a"], lambda item, state: item, setup=setup, id="fails")
        queue.run(["a"], handle, id="times out", timeout=0.5)
        queue.create_job("is killed", ["b"], handle)
        run = queue.start("is killed")
        gate.wait_for("b")
        queue.cancel("is killed", kill=True)
        run.result()
    assert [(record.mpqueue_job, record.getMessage()) for record in heard.records] == [
        ("crashes", "at one"),
        ("crashes", "at two"),
        ("fails", "at setup"),
        ("times out", "at one"),
        ("times out", "at two"),
        ("is killed", "at one"),
        ("is killed", "at two"),
    ]


def test_threads_and_coroutines_of_handlers_are_heard(heard: Heard) -> None:
    async def handle(item: str) -> None:
        await asyncio.sleep(0)
        log(f"coroutine {item}")
        await asyncio.to_thread(log, f"thread {item}")

    with JobQueue(1) as queue:
        queue.run(["a", "b"], handle)
    assert [(record.mpqueue_item, record.getMessage()) for record in heard.records] == [
        (0, "at coroutine a"),
        (0, "at thread a"),
        (1, "at coroutine b"),
        (1, "at thread b"),
    ]


def test_a_process_that_a_handler_forks_logs_as_any_process(heard: Heard) -> None:
    def handle(item: str) -> int | None:
        process = multiprocessing.get_context("fork").Process(target=log, args=("fork",))
        process.start()
        process.join()
        log(item)
        return process.exitcode

    with JobQueue(1) as queue:
        assert queue.run(["a"], handle).results == [0]
    assert heard.texts == ["at a"]


def test_records_come_before_the_events_of_their_items(heard: Heard) -> None:
    told: list[tuple[int, int]] = []
    with JobQueue(1) as queue:
        queue.on("job:progress", lambda progress: told.append((progress.completed, len(heard.records))))
        queue.run(list("abc"), log, chunksize=1)
    assert [at for at, count in told if count < at] == []


@pytest.mark.long
def test_more_records_than_anybody_reads_are_counted_and_dropped(
    heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(item: str) -> str:
        logger = logging.getLogger("mine")
        for number in range(100_000):
            logger.info("%d", number)
        return item

    with JobQueue(1) as queue:
        assert queue.run(["a"], handle).results == ["a"]
    dropped = [record for record in caplog.records if "were dropped" in record.getMessage()]
    count = sum(int(record.getMessage().split()[0]) for record in dropped)
    assert len(heard.records) + count == 100_000


def test_a_handler_that_raises_here_harms_nothing(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ValueError("the disk is full")

    broken = Broken()
    logging.getLogger("mine").addHandler(broken)
    try:
        with JobQueue(1) as queue:
            assert queue.run(["a", "b"], log).results == ["a", "b"]
    finally:
        logging.getLogger("mine").removeHandler(broken)


@pytest.mark.parametrize("front_end", [one for one in FRONT_ENDS if one.tells_progress], ids=str)
def test_the_drop_ins_have_told_all_when_they_return(front_end: FrontEnd, heard: Heard) -> None:
    with front_end.open() as call:
        assert front_end.sort(call(log, range(20))) == front_end.sort(range(20))
        assert len(heard.texts) == 20
    assert {record.mpqueue_job for record in heard.records} == {None}


def test_a_job_inside_a_job_tells_through_both(heard: Heard) -> None:
    def outer(item: str) -> list[str]:
        return mpqueue.map(log, [f"{item}1", f"{item}2"], concurrency=1)

    with JobQueue(1) as queue:
        assert queue.run(["a"], outer).results == [["a1", "a2"]]
    assert heard.texts == ["at a1", "at a2"]


def test_without_any_configuration_a_warning_is_on_stderr_and_an_info_is_not(tmp_path: Path) -> None:
    body = """
        import logging, warnings
        import mpqueue

        def handle(item):
            logging.getLogger("mine").info("info")
            logging.getLogger("mine").warning("warning %s", item)
            return item

        with mpqueue.JobQueue(1) as queue:
            print(queue.run(list("a"), handle).results)
    """
    done = run_program(tmp_path, body)
    assert (done.stdout, done.stderr) == ("['a']\n", "warning a\n")


def test_a_thread_that_logs_for_ever_stops_no_worker(heard: Heard) -> None:
    def handle(item: int) -> int:
        if item == 0:
            threading.Thread(target=lambda: [log("thread") for _ in range(2000)], daemon=True).start()
        return item

    with JobQueue(1) as queue:
        assert queue.run(range(200), handle).completed == 200
