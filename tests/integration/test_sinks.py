"""Results that are not kept: discarded, or written into a sink while their job runs; whole, once each, or told."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mpqueue import Job, JobQueue, JobStateError, JobStatus, Rerun, RetryPolicy, SinkError, WorkerStartError, sinks
from mpqueue.testing import InlinePool
from tests.support import handlers as do
from tests.support.command_line import main
from tests.support.forks import fork_that_lives_on
from tests.support.programs import WAS_KILLED, run_program
from tests.support.rows import Rows
from tests.support.systems import not_on_windows
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

NEVER = RetryPolicy(max_retries=0)


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    with JobQueue(2, retry=NEVER) as made:
        yield made


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def halve(item: int) -> float:
    return 100 / item


def has_completed(job: Job, count: int) -> bool:
    return job.completed == count


def wait_at(gate: Gate, at: int, item: int) -> int:
    if item == at:
        gate.pass_through(item)
    return item


def test_rows_are_in_the_part_while_the_job_runs_and_whole_at_its_end(
    queue: JobQueue, tmp_path: Path, gate: Gate
) -> None:
    path = tmp_path / "rows.jsonl"
    job = queue.create_job("rows", range(5), partial(wait_at, gate, 3), results=sinks.jsonl(path), chunksize=1)
    assert not list(tmp_path.glob("rows*"))
    run = queue.start("rows")
    part = path.with_name("rows.jsonl.part")
    wait_until(lambda: part.read_text().count("\n") == 4, what="four rows")
    assert {row["result"] for row in read(part)} == {0, 1, 2, 4}
    assert not path.exists()
    gate.open()
    assert run.result() is job
    assert sorted(row["id"] for row in read(path)) == [*range(5)]
    assert not part.exists()
    assert (job.results, str(job.results)) == (job.results, f"<{path}: 5 rows>")
    assert set(read(path)[0]) == {"id", "item", "status", "attempts", "elapsed", "error", "result"}


@pytest.mark.parametrize("in_order", [False, True])
def test_each_item_has_one_row_and_failed_ones_too(queue: JobQueue, in_order: bool) -> None:
    rows = Rows(in_order=in_order)
    job = queue.run(range(3000), halve, results=rows)
    assert job.failed == 1
    told = rows.rows if in_order else sorted(rows.rows, key=lambda row: row["id"])
    assert [row["id"] for row in told] == [*range(3000)]
    assert [row["result"] for row in told] == [None, *(100 / item for item in range(1, 3000))]
    assert (told[0]["status"], told[0]["error"]) == ("failed", "ZeroDivisionError: division by zero")
    assert rows.calls[:2] == ["open", "write"]
    assert rows.calls.count("close") == 1
    assert "leave" not in rows.calls


def test_an_item_that_takes_long_holds_up_its_followers_rows_only_in_order(queue: JobQueue, gate: Gate) -> None:
    rows = Rows(in_order=True, columns=["result", "payload"], failures=False)
    job = queue.create_job("order", [2, 0, 1, 5, 4], partial(wait_at, gate, 2), results=rows, chunksize=1)
    run = queue.start("order")
    wait_until(lambda: job.completed == 4)
    assert not rows.rows
    gate.open()
    run.result()
    assert rows.rows == [{"result": item, "payload": item} for item in (2, 0, 1, 5, 4)]


class Locked:
    """A result of 200 kB that has a lock once it has arrived."""

    def __init__(self, number: int) -> None:
        self.data = number.to_bytes(4, "big") * 50_000

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.Lock())


class Once:
    """A result of 200 kB that can be loaded in processes only that have not pickled it."""

    def __init__(self, number: int, pickled_by: int = 0) -> None:
        if pickled_by == os.getpid():
            raise ValueError("pickled here")
        self.number = number
        self.data = number.to_bytes(4, "big") * 50_000

    def __reduce__(self) -> tuple[Any, ...]:
        return Once, (self.number, os.getpid())


def wait_at_first(gate: Gate, among: type, item: int) -> Any:
    if item == 0:
        gate.pass_through(item)
    return among(item) if item % 50 == 7 else item.to_bytes(4, "big") * 50_000


def rows_in_order(among: type, journal: str | None, folder: Path) -> Rows:
    """The rows of 240 items, 5 of them with such a result, of which all but the first wait for that."""
    gate, rows = Gate(folder), Rows(in_order=True)
    with JobQueue(2, retry=NEVER, journal=journal) as queue:
        job = queue.create_job("order", range(240), partial(wait_at_first, gate, among), results=rows, chunksize=4)
        run = queue.start("order")
        wait_until(lambda: job.completed == 239, what="all items but the first")
        gate.open()
        assert run.result().completed == 240
    return rows


@pytest.mark.parametrize(("among", "journal"), [(Locked, None), (Once, None), (Locked, "run.db")])
def test_a_row_that_waits_for_its_turn_need_not_be_pickled_again(
    among: type, journal: str | None, tmp_path: Path
) -> None:
    rows = rows_in_order(among, journal and str(tmp_path / journal), tmp_path)
    assert [row["id"] for row in rows.rows] == [*range(240)]
    results = [getattr(row["result"], "data", row["result"]) for row in rows.rows]
    assert results == [item.to_bytes(4, "big") * 50_000 for item in range(240)]
    assert [type(rows.rows[at]["result"]) for at in (7, 8, 57)] == [among, bytes, among]


def test_a_result_that_can_t_be_read_again_costs_its_row_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = rows_in_order(Once, str(tmp_path / "run.db"), tmp_path)
    told = {row["id"] for row in rows.rows}
    missing = [item for item in range(240) if item not in told]
    assert set(missing) <= {7, 57, 107, 157, 207}
    assert missing
    assert all(f"item {item} has no row, since its result can't be read again" in caplog.text for item in missing)


def test_discarded_results_stay_in_the_workers_and_failures_come_home(queue: JobQueue) -> None:
    job = queue.run(range(-50, 50), halve, results="discard")
    assert (job.completed, job.failed, str(job.failures[0].__cause__)) == (99, 1, "division by zero")
    assert queue.run([1, 2], do.return_lock, results="discard").status is JobStatus.COMPLETED
    assert queue.run([1, 2], return_awaitable, results="discard").failed == 2
    with pytest.raises(
        JobStateError, match=r"job 'job-.*': expected one that keeps its results, got one with results="
    ):
        _ = job.results
    with pytest.raises(JobStateError, match=r"item 3 \(-47\): expected a job that keeps its results, got one"):
        _ = job.items[3].result
    assert job.items[3].to_dict() == {"id": 3, "status": "completed", "attempts": 1}
    assert job.to_records(["id", "attempts"])[0] == {"id": 0, "attempts": 1}


def return_awaitable(item: int) -> Any:
    return fail_later(item)


async def fail_later(item: int) -> None:
    raise LookupError(item)


@pytest.mark.holds("error: SinkError")
@pytest.mark.parametrize(
    ("at", "error"),
    [
        ("write", OSError(28, "No space left on device")),
        ("close", ValueError("no")),
        ("write", SystemExit(3)),
        ("leave", OSError(5, "gone")),
    ],
    ids=repr,
)
def test_a_sink_that_raises_stops_its_job_at_once_and_says_so(
    queue: JobQueue, at: str, error: BaseException, gate: Gate
) -> None:
    rows = Rows(at, error)
    bystander = queue.create_job("bystander", range(30), do.double)
    items = range(2) if at == "close" else range(400)
    queue.create_job("job", items, partial(wait_at, gate, 399), results=rows, chunksize=1)
    run, other = queue.start("job"), queue.start("bystander")
    if at == "leave":
        wait_until(lambda: gate.is_here(399))
        queue.cancel("job", kill=True)
    with pytest.raises(SinkError, match=r"job 'job': its results can't be written: .*; kept: ") as told:
        run.result()
    assert told.value.__cause__ is error
    job = run.job
    if at == "write":
        assert (job.status, job.stopped_why) == (
            JobStatus.CANCELLED,
            f"its results can't be written: {type(error).__name__}: {error}",
        )
    if at == "close":
        assert (job.status, job.stopped_why) == (JobStatus.CANCELLED, "its results can't be written: ValueError: no")
    assert rows.calls[-1] == ("close" if at == "close" else "leave")
    assert isinstance(run.exception(), SinkError)
    assert other.result().results == [2 * item for item in range(30)]
    assert bystander.failed == 0
    queue.clear_job("job")
    queue.clear_job("bystander")


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_file_that_fails_at_its_end_stays_a_part_of_a_job_that_was_stopped(
    queue: JobQueue, tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Its name is taken by a folder while the job runs; the event and the run say so as well."""
    if form == "parquet":
        pytest.importorskip("pyarrow")
    path, told = tmp_path / f"rows.{form}", list[Any]()
    queue.on("job:finished", told.append)
    queue.create_job("job", [1, 2], partial(wait_at, gate, 2), results=getattr(sinks, form)(path))
    run = queue.start("job")
    gate.wait_for(2)
    path.mkdir()
    gate.open()
    with pytest.raises(SinkError, match=rf"kept: 2 rows in .*rows\.{form}\.part$"):
        run.result()
    assert run.job.status is JobStatus.CANCELLED
    assert run.job.stopped_why is not None
    assert "results can't be written" in run.job.stopped_why
    wait_until(lambda: told, what="the event")
    assert told[0].status is JobStatus.CANCELLED


def test_what_a_cancelled_job_has_written_stays_and_no_later_job_deletes_it(
    queue: JobQueue, tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    part = path.with_name("rows.jsonl.part")
    path.write_text("as it was\n")
    for number in range(3):
        sink = sinks.jsonl(path)
        queue.create_job("job", range(3), partial(wait_at, gate, 2), results=sink, chunksize=1)
        run = queue.start("job")
        wait_until(lambda: part.read_text().count("\n") == 2)
        with pytest.raises(BlockingIOError, match="expected a file that no other job writes, got one that is"):
            queue.run([1], do.double, results=sinks.jsonl(path), id="other")
        queue.clear_job("other")
        queue.cancel("job", kill=True)
        assert run.result().status is JobStatus.CANCELLED
        assert sorted(row["id"] for row in read(part)) == [0, 1]
        assert (path.read_text(), sink.rows) == ("as it was\n", 2)
        earlier = [path.with_name(f"rows.jsonl.part.{at}") for at in range(1, number + 1)]
        assert sorted(tmp_path.glob("rows.jsonl.part.*")) == earlier
        assert [sorted(row["id"] for row in read(each)) for each in earlier] == [[0, 1]] * number
        assert caplog.text.count("which are kept as") == number
        queue.clear_job("job")


@not_on_windows("no forks")
def test_a_fork_that_lives_on_keeps_no_part_locked(queue: JobQueue, tmp_path: Path, gate: Gate) -> None:
    path = tmp_path / "rows.jsonl"
    work = partial(wait_at, gate, 2)
    queue.create_job("job", range(3), work, results=sinks.jsonl(path), chunksize=1)
    run = queue.start("job")
    wait_until(lambda: path.with_name("rows.jsonl.part").read_text().count("\n") == 2)
    with fork_that_lives_on():
        queue.cancel("job", kill=True)
        run.result()
        gate.open()
        queue.run(range(3), work, results=sinks.jsonl(path), id="job", replace=True)
    assert sorted(row["id"] for row in read(path)) == [0, 1, 2]


def test_a_slow_sink_holds_its_job_back(queue: JobQueue, tmp_path: Path, gate: Gate) -> None:
    """Which has 64 MB of results in memory then, and those that ran when it was noticed."""
    calls, most, size = Gate(tmp_path / "calls"), 64 << 20, 100_000
    rows: Any = Rows()
    rows.open, rows.note = None, gate.pass_through
    bystander = queue.create_job("bystander", range(3), do.succeed)
    work = do.announce(calls, do.return_value(b"x" * size))
    job = queue.create_job("slow", range(1000), work, results=rows, chunksize=1)
    run = queue.start("slow")
    wait_until(lambda: job.completed * size >= most, what="that it is held back")
    wait_until(lambda: len(calls.arrived()) == job.completed, what="workers with nothing to do")
    assert job.completed * size < 2 * most
    assert queue.start("bystander").result(300).completed == bystander.total
    gate.open()
    assert run.result(300).completed == 1000
    assert sorted(row["id"] for row in rows.rows) == [*range(1000)]
    queue.clear_job("bystander")


def test_a_queue_is_closed_although_a_sink_hangs(gate: Gate) -> None:
    rows: Any = Rows()
    rows.write = lambda _: gate.pass_through("sink")
    with JobQueue(1) as queue:
        queue.create_job("job", range(3), do.double, results=rows)
        run = queue.start("job")
        gate.wait_for("sink")
        queue.close(kill=True)
        with pytest.raises(SinkError, match="it takes too long; kept: what it has written by now"):
            run.result(300)
    gate.open()


PROGRAM = """
import io, os, sys
from tests.support.this_system import KILL

when, path = sys.argv[1:]
calls = []

class File(io.FileIO):
    def write(self, data):
        calls.append(bytes(data[:1]))
        if when == "before" and calls.count(b"{") == 2:
            os.kill(os.getpid(), KILL)
        size = super().write(data)
        if when == "after" and calls.count(b"{") == 2:
            os.kill(os.getpid(), KILL)
        return size

io.FileIO = File  # before it is imported from there
import mpqueue
from mpqueue import sinks

def replace(*names):
    if when == "before the name" and str(names[1]) == path:
        os.kill(os.getpid(), KILL)
    rename(*names)
    if when == "after the name" and str(names[1]) == path:
        os.kill(os.getpid(), KILL)

def work(item):
    with open("calls", "a") as calls:
        calls.write(f"{item} ")
    return item * 2

if __name__ == "__main__":
    rename, os.replace = os.replace, replace
    with mpqueue.JobQueue(2, journal="run.db") as queue:
        queue.run(range(200), work, id="job", results=sinks.jsonl(path, in_order=True), chunksize=20)
"""


@pytest.mark.long(but=["before the name"])
@pytest.mark.parametrize("when", ["before", "after", "before the name", "after the name"])
def test_a_program_that_was_killed_goes_on_and_no_row_is_there_twice_or_missing(tmp_path: Path, when: str) -> None:
    path = tmp_path / "rows.jsonl"
    killed = run_program(tmp_path, PROGRAM, when, path, check=False)
    assert killed.returncode == WAS_KILLED
    assert path.exists() is (when == "after the name")
    run_program(tmp_path, PROGRAM, "never", path)
    assert [(row["id"], row["result"]) for row in read(path)] == [(item, 2 * item) for item in range(200)]
    calls = (tmp_path / "calls").read_text().split()
    assert len(calls) == 200 if "name" in when else 200 <= len(calls) < 300
    assert not list(tmp_path.glob("*.part*"))


def test_a_journal_has_the_results_of_a_sinks_job_and_none_that_are_discarded(tmp_path: Path) -> None:
    journal = tmp_path / "run.db"
    with JobQueue(2, retry=NEVER, journal=journal) as queue:
        job = queue.run(range(50), halve, id="job", results=sinks.jsonl(tmp_path / "rows.jsonl"))
        assert job.items[4].result == 25.0
        assert isinstance(job.results, sinks.FileSink)
        none = queue.run(range(1, 50), halve, id="none", results="discard")
        assert none.completed == 49
        with pytest.raises(JobStateError, match="replace=True and a new sink"):
            queue.retry_failed("job")
        again = Rows()
        queue.run(
            range(50), halve, id="job", rerun=Rerun(redo="failed"), replace=True, results=again
        )  # as the error says
        assert len(again.rows) == 50
    with JobQueue(2, retry=NEVER, journal=journal) as queue:
        assert queue.load_job("job").results[4] == 25.0
        with pytest.raises(JobStateError, match="got one of which 49 are discarded"):
            _ = queue.load_job("none").results
        rows = Rows(in_order=True)
        job = queue.run(range(60), halve, id="job", results=rows, rerun=Rerun(update=True, redo="failed"))
        assert (job.completed, job.failed) == (59, 1)
        assert [row["id"] for row in rows.rows] == [*range(60)]
        assert [row["result"] for row in rows.rows[1:]] == [100 / item for item in range(1, 60)]


def is_refused(look: Callable[[], Any]) -> bool:
    """True where that does not show a result, since it was discarded."""
    try:
        look()
    except JobStateError:
        return True
    return False


def name_if_fixed(item: dict[str, Any]) -> str:
    if item["n"] == 3 and not Path(item["fixed"]).exists():
        raise ValueError(item)
    return f"result {item['n']}"


@pytest.mark.long(but=["False-True"])
@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("is_pruned", [False, True])
def test_an_item_whose_result_was_discarded_is_done_and_runs_again_for_a_job_that_wants_results(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_open: bool, is_pruned: bool
) -> None:
    journal, fixed = tmp_path / "run.db", tmp_path / "fixed"

    def items(count: int) -> list[dict[str, Any]]:
        return [{"id": n, "n": n, "fixed": str(fixed)} for n in range(count)]

    def run(results: Any, count: int, **options: Any) -> Job:
        options = {"rerun": Rerun(update=not is_open), **options}
        with JobQueue(2, retry=NEVER, journal=journal) as queue:
            create: Any = queue.open_job if is_open else queue.create_job
            create("job", items(count), name_if_fixed, results=results, **options)
            run = queue.start("job")
            if is_open:
                queue.seal("job")
            return run.result()

    def shown() -> list[Any]:
        with JobQueue(1, retry=NEVER, journal=journal) as queue:
            if is_pruned:
                queue.prune()
            job = queue.load_job("job")
            lacking = [is_refused(partial(getattr, item, "result")) for item in job.items]
            assert is_refused(lambda: job.results) == any(lacking)
            assert ("result" in job.to_records()[0]) != any(lacking)
            exported = tmp_path / "rows.jsonl"
            assert main(["export", str(journal), "job", "--columns", "id,result", "-o", str(exported)]) == 0
            texts = {row["id"]: row["result"] for row in read(exported)}
            assert [texts[n] == "<unreadable here: it was discarded>" for n in range(len(texts))] == lacking
            return ["gone" if lacks else item.result for item, lacks in zip(job.items, lacking, strict=True)]

    assert (run("discard", 5).completed, run("discard", 5, rerun=Rerun(redo=[2], update=not is_open)).completed) == (
        4,
        4,
    )
    assert shown() == ["gone", "gone", "gone", None, "gone"]
    assert [item.attempts for item in run("discard", 6).items] == [1] * 6
    fixed.touch()
    with JobQueue(1, retry=NEVER, journal=journal) as queue:
        if not is_open:
            plans = [queue.plan_job("job", items(6), name_if_fixed, results=each) for each in ("discard", "keep")]
            assert [plan.to_run for plan in plans] == [0, 5]
        assert queue.retry_failed("job").result().completed == 6
    assert "run again" not in caplog.text
    assert shown() == ["gone", "gone", "gone", "result 3", "gone", "gone"]
    rows = Rows()
    assert run(rows, 6).completed == 6
    assert "the results of 5 items were discarded in an earlier run" in caplog.text
    assert sorted(row["result"] for row in rows.rows) == [f"result {n}" for n in range(6)]
    caplog.clear()
    run("discard", 7)
    assert shown() == [*(f"result {n}" for n in range(6)), "gone"]
    assert run("keep", 7).results == [f"result {n}" for n in range(7)]
    assert "the results of 1 item were discarded" in caplog.text
    assert shown() == [f"result {n}" for n in range(7)]


@pytest.mark.parametrize(
    ("results", "error", "match"),
    [
        ("drop", ValueError, "results: expected 'keep', 'discard' or a sink, got 'drop'"),
        (3, TypeError, r"an object with write\(rows\) and close\(\): mpqueue.sinks\), got 3 of type int"),
        (Rows, TypeError, "of type type"),
        (Rows(leave=fail_later), TypeError, "expected a sink whose leave is a function, got a coroutine function"),
        (Rows(write=fail_later), TypeError, "expected a sink whose write is a function, got a coroutine function"),
        (Rows(columns="id"), TypeError, "columns: expected a list of names, got 'id' of type str"),
        (
            sinks.jsonl("/nowhere/rows.jsonl"),
            FileNotFoundError,
            "expected a file in a folder that is there, got '.*nowhere",
        ),
        (sinks.jsonl("/"), IsADirectoryError, "expected a file, got the folder"),
    ],
)
def test_what_is_no_sink_is_refused_before_any_work(
    queue: JobQueue, results: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        queue.create_job("refused", [1], do.double, results=results)
    assert queue.get_job("refused") is None


def test_a_sink_is_for_one_job_and_one_that_can_t_be_opened_starts_nothing(queue: JobQueue, tmp_path: Path) -> None:
    sink = sinks.jsonl(tmp_path / "rows.jsonl")
    queue.run([1], do.double, results=sink)
    with pytest.raises(JobStateError, match="expected a sink of the job's own"):
        queue.create_job("again", [1], do.double, results=sink)
    job = queue.create_job("closed", [1], do.double, results=Rows("open", PermissionError("no")))
    with pytest.raises(PermissionError, match="no"):
        queue.start("closed")
    assert job.cancelled
    assert job.items[0].attempts == 0


def test_a_cancelled_job_that_is_started_leaves_its_sink_alone(queue: JobQueue, tmp_path: Path) -> None:
    path, rows = tmp_path / "rows.jsonl", Rows()
    part = path.with_name("rows.jsonl.part")
    part.write_text("what an earlier job has left")
    for job_id, sink in (("file", sinks.jsonl(path)), ("own", rows)):
        queue.create_job(job_id, [1], do.double, results=sink)
        queue.cancel(job_id)
        with pytest.raises(JobStateError, match="got one that is cancelled"):
            queue.start(job_id)
    assert [each.name for each in tmp_path.iterdir()] == [part.name]
    assert rows.calls == []
    assert queue.run([1], do.double, results=sinks.jsonl(path)).status is JobStatus.COMPLETED
    assert queue.run([1], do.double, results=rows).status is JobStatus.COMPLETED


@pytest.mark.parametrize("way", ["start", "run", "run_stages"])
def test_whatever_makes_a_start_fail_leaves_the_sink_as_it_was(tmp_path: Path, way: str) -> None:
    path, rows = tmp_path / "rows.jsonl", Rows()
    files: list[Any] = [sinks.jsonl(path), rows]

    class Full(InlinePool):
        is_full = True

        def open(self, *how: Any) -> Any:
            if self.is_full:
                raise WorkerStartError("no room")
            return super().open(*how)

    backend = Full()

    def start(queue: JobQueue, sink: Any) -> None:
        if way == "run":
            queue.run([1], do.double, id=str(id(sink)), results=sink)
        elif way == "run_stages":
            queue.run_stages([1], [do.double], results=sink)
        else:
            queue.create_job(str(id(sink)), [1], do.double, results=sink)
            queue.start(str(id(sink)))

    with JobQueue(2, retry=NEVER, backend=backend) as queue:
        for sink in files:
            with pytest.raises(WorkerStartError, match="no room"):
                start(queue, sink)
        assert not any(tmp_path.iterdir())
        assert rows.calls == []
        backend.is_full = False
        for sink in files:
            if way == "run_stages":
                queue.run_stages([1], [do.double], results=sink)
            else:
                queue.start(str(id(sink))).result()
    assert [row["result"] for row in (*rows.rows, *read(path))] == [2, 2]


def test_a_method_that_returns_a_coroutine_writes_nothing_and_stops_its_job(queue: JobQueue) -> None:
    with pytest.raises(SinkError, match="TypeError: expected a function, got one that returns a coroutine"):
        queue.run([1], do.double, results=Rows(write=return_awaitable))


def test_two_jobs_at_a_time_do_not_write_into_one_sink(queue: JobQueue, gate: Gate) -> None:
    rows = Rows()
    queue.create_job("first", [1, 2], partial(wait_at, gate, 2), results=rows, chunksize=1)
    queue.create_job("second", [3], do.double, results=rows)
    run = queue.start("first")
    with pytest.raises(JobStateError, match=r"expected a sink of the job's own, got .*, which job 'first' writes into"):
        queue.start("second")
    assert rows.calls.count("open") == 1
    gate.open()
    run.result()
    queue.run([3], do.double, results=rows)
    assert sorted(row["result"] for row in rows.rows) == [1, 2, 6]
    assert rows.calls.count("close") == 2


@pytest.mark.parametrize("at", ["write", "close"])
def test_a_sink_does_not_wait_for_its_own_run(queue: JobQueue, at: str) -> None:
    async def awaited() -> Job:
        return await run

    async def counted() -> int:
        return len([item async for item in run])

    waits: list[Callable[[], object]] = [
        lambda: run.result(300),
        lambda: run.exception(300),
        lambda: asyncio.run(awaited()),
        lambda: [*run.as_completed()],
        lambda: asyncio.run(counted()),
    ]
    told: list[str] = []
    others: list[Job] = []
    started = threading.Event()

    class Waits(Rows):
        def note(self, name: str) -> None:
            super().note(name)
            if name == at and not others:
                assert started.wait(300)
                others.append(queue.run([1], do.double, id="other"))  # which its job does not wait for
                for wait in waits:
                    with pytest.raises(
                        RuntimeError, match="outside the sink of the job, which the run waits"
                    ) as caught:
                        wait()
                    told.append(str(caught.value).partition(":")[0])

    rows = Waits()
    queue.create_job("job", range(5), do.succeed, results=rows)
    run = queue.start("job")
    started.set()
    assert run.result(300).status is JobStatus.COMPLETED
    items = "items of a run as they end"
    assert told == ["run.result()", "run.exception()", "await run", items, items]
    assert [*others[0].results] == [2]
    assert sorted(row["id"] for row in rows.rows) == [*range(5)]


@pytest.mark.parametrize("at", ["write", "close", "leave"])
@pytest.mark.parametrize("how", ["close", "kill", "drain"])
def test_a_sink_that_closes_its_queue_does_not_wait(at: str, how: str, gate: Gate) -> None:
    queue = JobQueue(1, retry=NEVER)
    ends: dict[str, Callable[[], None]] = {
        "close": queue.close,
        "kill": partial(queue.close, kill=True),
        "drain": partial(queue.drain, 0),
    }

    class Closes(Rows):
        def note(self, name: str) -> None:
            super().note(name)
            if name == at:
                ends[how]()
                self.calls.append("went on")
                gate.open()

    rows = Closes()
    job = queue.create_job(
        "job", [1, 2, 3], partial(wait_at, gate, 0 if at == "close" else 3), results=rows, chunksize=1
    )
    run = queue.start("job")
    if at == "leave":
        wait_until(lambda: len(rows.rows) == 2)
        queue.cancel("job", kill=True)
    assert run.result(300) is job
    queue.close()
    assert "went on" in rows.calls
    assert rows.calls[-2:] == ["close", "went on"] if at == "close" else "leave" in rows.calls
    assert job.status is (JobStatus.COMPLETED if at == "close" else JobStatus.CANCELLED)


def test_a_sink_that_starts_its_own_job_is_refused(queue: JobQueue) -> None:
    class Starts(Rows):
        def note(self, name: str) -> None:
            super().note(name)
            if name == "open" and self.calls == ["open"]:
                queue.start("job")

    rows = Starts()
    job = queue.create_job("job", [1], do.double, results=rows)
    with pytest.raises(JobStateError, match="expected a pending job to start, got one that is running"):
        queue.start("job")
    assert job.cancelled
    assert rows.calls == ["open"]


@pytest.mark.parametrize("name", ["run.jsonl", "other.jsonl", "run.jsonl-wal", "link.jsonl"])
def test_a_sink_does_not_replace_its_queue_s_journal(name: str, tmp_path: Path) -> None:
    journal = tmp_path / "run.jsonl"
    (tmp_path / "link.jsonl").symlink_to(journal)
    with JobQueue(1, journal=journal) as queue:
        queue.run([1], do.double, id="before")
        if name == "other.jsonl":
            assert queue.run([2], do.double, results=sinks.jsonl(tmp_path / name)).completed == 1
        else:
            with pytest.raises(ValueError, match="expected a file that is not the journal's, got"):
                queue.run([2], do.double, results=sinks.jsonl(tmp_path / name))
    with JobQueue(1, journal=journal) as queue:
        assert [*queue.load_job("before").results] == [2]


def test_a_wrong_column_is_told(queue: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    rows = Rows(columns=["id", "resutl"])
    queue.run([1, 2], do.double, results=rows, id="typo")
    assert "job 'typo': expected rows with the columns id, resutl, got none that has resutl" in caplog.text
    assert sorted(row["id"] for row in rows.rows) == [0, 1]


@pytest.mark.parametrize("how", ["run", "stages", "journal"])
def test_a_column_of_items_that_none_has_is_refused_before_the_work(how: str, tmp_path: Path) -> None:
    def work(item: dict[str, int]) -> int:
        Gate(tmp_path).announce("called")
        return item["size"]

    path = tmp_path / "rows.csv"
    with JobQueue(1, journal=tmp_path / "run.db" if how == "journal" else None) as queue:
        sink = sinks.csv(path, ["id", "payload.sise"])
        run = partial(queue.run_stages, [{"size": 1}], [work, do.succeed])
        if how != "stages":
            run = partial(queue.run, [{"size": 1}], work, id="sizes")
        with pytest.raises(ValueError, match=r"got 'payload.sise', which no item has; did you mean payload.size\?"):
            run(results=sink)
        assert [name for name in os.listdir(tmp_path) if not name.startswith("run.db")] == []
        items = [{"size": 1}, {"sise": 2, "size": 2}]  # one has it
        assert queue.run(items, work, id="sizes", results=sinks.csv(path, ["payload.sise"])).completed == 2
    assert path.read_text() == 'payload.sise\n""\n2\n'


def test_a_column_that_comes_late_is_written(tmp_path: Path) -> None:
    def tell(number: int) -> dict[str, int]:
        return {"a": number} if number < 1500 else {"a": number, "late": 1}

    with JobQueue(1) as queue:
        queue.run(range(1502), tell, results=sinks.csv(tmp_path / "rows.csv"))
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert (lines[0].rpartition(",")[2], len(lines), len(set(lines))) == ("result.late", 1503, 1503)
    assert {line.rpartition(",")[2] for line in lines[1:]} == {"", "1"}
    assert os.listdir(tmp_path) == ["rows.csv"]


@pytest.mark.parametrize("has_journal", [False, True])
@pytest.mark.parametrize("first", [[{"id": "a"}], [1], []])
def test_the_columns_of_an_open_job_go_by_its_ids(tmp_path: Path, first: list[Any], has_journal: bool) -> None:
    items = first or [{"id": "a"}]
    path, expected = tmp_path / "rows.csv", ["id", "item", "status", "attempts", "elapsed", "error", "result"]
    if items != [1]:
        expected.remove("item")
    for _ in range(2):
        with JobQueue(1, journal=tmp_path / "run.db" if has_journal else None) as queue:
            queue.open_job("j", first, str, results=sinks.csv(path))
            run = queue.start("j")
            queue.add_items("j", [] if first else items)
            queue.seal("j")
            run.result()
        assert path.read_text().splitlines()[0].split(",") == expected


def test_an_open_job_goes_on_from_its_journal_into_a_new_file(tmp_path: Path) -> None:
    path, ids = tmp_path / "rows.jsonl", []
    for added in "cd":
        with JobQueue(1, journal=tmp_path / "run.db") as queue:
            queue.open_job("open", [{"id": "a"}, {"id": "b"}], do.succeed, results=sinks.jsonl(path, in_order=True))
            run = queue.start("open")
            queue.add_items("open", [{"id": added}])
            if added == "c":
                wait_until(partial(has_completed, run.job, 3))
                queue.drain(0)
                assert not path.exists()
            else:
                queue.seal("open")
                run.result()
                ids = [row["id"] for row in read(path)]
    assert ids == ["a", "b", "c", "d"]
