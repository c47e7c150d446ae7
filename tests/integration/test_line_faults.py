"""What handlers do to the line, the ledger and the outbox of their worker, without being found out at once."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

import pytest

from mpqueue import ItemStatus, ItemTimeoutError, JobQueue, ResultPicklingError, WorkerCrashedError
from mpqueue._core.rules import overdue
from mpqueue._engines.loky.process import warden, worker_process
from mpqueue._os.process.process_handle import PosixProcess
from tests.support import handlers as do
from tests.support.length import long
from tests.support.recorder import Recorder
from tests.support.strength import workers_of
from tests.support.waiting import Gate

pytestmark = pytest.mark.slow

CULPRIT, COUNT = 10, 30

#: Seconds that a worker may take to begin or to answer, and results to be unpickled, in tests of what takes longer.
SOON = 3.0


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no code of the user's runs in is waited for briefly."""
    monkeypatch.setattr(overdue, "ANSWER_LIMIT", SOON)
    monkeypatch.setattr(overdue, "UNPICKLE_LIMIT", SOON)


DEEDS = {
    "shuts the line for reading": do.shut_sockets(socket.SHUT_RD),
    "writes chance into the ledger": do.scribble(1),
    "writes zeros into the ledger": do.scribble(0),
    "reads its line dry": do.read_sockets_dry,
    "reads three bytes of a frame": do.read_a_little,
}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("chunksize", [long(1), 8], ids=lambda size: f"chunks of {size}")
@pytest.mark.parametrize("deed", DEEDS)
def test_an_item_ends_well_that(deed: str, chunksize: int) -> None:
    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(COUNT), do.only(CULPRIT, DEEDS[deed]), chunksize=chunksize)
        recorder.check(job)
        assert len(workers_of(queue)) == 1
    assert job.results == [*range(COUNT)]
    assert {item.attempts for item in job.items} == {1}


def test_an_item_that_has_read_what_came_for_its_worker_does_not_outlast_the_timeout_by_much(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with JobQueue(1, max_retries=0, timeout=3) as queue:
        # So short that the next one is sent meanwhile.
        queue.create_job("job", range(200), do.drain_descriptors(gate, 0.002), chunksize=1)
        run = queue.start("job")
        gate.wait_for("drained")
        job = run.result(25)  # what no code of the user's runs in may take 30 s otherwise
    assert job.results == [*range(200)]
    assert {item.attempts for item in job.items} == {1}


CUTS = {
    "shuts what it answers by": do.shut_sockets(socket.SHUT_WR),
    "closes its sockets": do.close_fds_of("socket:"),
    "closes its pipes": do.close_fds_of("pipe:"),
    "closes all": do.close_all_fds,
}


@pytest.mark.parametrize("chunksize", [long(1), 3], ids=lambda size: f"chunks of {size}")
@pytest.mark.parametrize("cut", CUTS)
def test_what_runs_when_it_is_noticed_that_the_worker_is_cut_off_pays_nothing(
    monkeypatch: pytest.MonkeyPatch, cut: str, chunksize: int
) -> None:
    def handle(item: str) -> str:
        threading.Event().wait(0.5 * (item != "culprit"))  # it is noticed meanwhile
        return item

    monkeypatch.setattr(warden, "CUT_OFF_LIMIT", 0.2)

    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        queue.create_job(
            "job", ["left", "culprit", "right"], do.only("culprit", CUTS[cut], handle), chunksize=chunksize
        )
        job = queue.start("job").result(60)
        recorder.check(job)
        assert len(workers_of(queue)) == 1
    assert [job.results[0], job.results[2]] == ["left", "right"]
    assert {item.attempts for item in job.items} == {1}
    assert job.items[1].status == "completed" or isinstance(job.items[1].exception, WorkerCrashedError)


def test_bytes_in_what_tells_of_a_worker_s_end_are_not_taken_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "open_process", PosixProcess)
    with JobQueue(1, max_retries=0) as queue:
        items = ["left", "culprit", "right"]
        job = queue.run(items, do.only("culprit", do.write_garbage_into_pipes), chunksize=3)
    assert [job.results[0], job.results[2]] == ["left", "right"]
    with pytest.raises(WorkerCrashedError, match=r"was killed .*: found bytes in what tells of its end"):
        raise job.items[1].exception or AssertionError(job.items[1])


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("seed", [0, 1], ids=["zeros", "chance"])
def test_an_item_that_hangs_with_a_ledger_that_says_nothing_is_ended(seed: int) -> None:
    with JobQueue(1, max_retries=0, timeout=SOON) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(4), do.only(2, do.scribble(seed, do.hang_sleep)), chunksize=2)
        recorder.check(job)
        assert len(workers_of(queue)) == 1
    assert job.results == [0, 1, None, 3]
    assert {item.attempts for item in job.items} == {1}
    assert isinstance(job.items[2].exception, (ItemTimeoutError, WorkerCrashedError))


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("then", ["end", "crash", "hang"])
@pytest.mark.parametrize("chunksize", [long(1), 5], ids=lambda size: f"chunks of {size}")
def test_a_result_that_is_unpickled_without_end_costs_its_item(chunksize: int, then: str, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    endless = do.return_made(do.WhenUnpickled, do.block_until_told(gate))
    last = {"end": do.succeed, "crash": do.segfault, "hang": do.hang_sleep}[then]
    try:
        with JobQueue(1, max_retries=0, timeout=SOON) as queue:
            recorder = Recorder(queue)
            job = queue.run(range(5), do.only(1, endless, do.only(3, last)), chunksize=chunksize)
            recorder.check(job)
            assert len(workers_of(queue)) == 1
    finally:
        gate.open()
    assert [item.status for item in job.items if item.id not in (1, 3)] == [ItemStatus.COMPLETED] * 3
    assert {item.attempts for item in job.items} == {1}
    assert isinstance(job.items[1].exception, ResultPicklingError)
    assert re.search("TimeoutError: it was still being unpickled after", job.items[1].error or "")
    assert (job.items[3].status is ItemStatus.COMPLETED) == (then == "end")
