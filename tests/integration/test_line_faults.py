"""What handlers do to the line, the ledger and the outbox of their worker, without being found out at once."""

from __future__ import annotations

import logging
import os
import socket
import threading
from functools import partial
from typing import Any

import pytest

from mpqueue import ItemTimeoutError, JobQueue, WorkerCrashedError
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.strength import workers_of

pytestmark = pytest.mark.slow

CULPRIT, COUNT = 10, 30


def in_a_child(deed: do.Handler) -> do.Handler:
    """A handler that has a forked child do it, and returns the item when that has ended."""
    return partial(_in_a_child, deed)


def _in_a_child(deed: do.Handler, item: Any) -> Any:
    if (child := os.fork()) == 0:
        try:
            deed(item)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return item


DEEDS = {
    "shuts the line for reading": do.shut_sockets(socket.SHUT_RD),
    "writes chance into the ledger": do.scribble(1),
    "writes zeros into the ledger": do.scribble(0),
    "reads its line dry": do.read_sockets_dry,
    "reads three bytes of a frame": do.read_a_little,
    "forks a child that writes chance into the ledger": in_a_child(do.scribble(1)),
}


@pytest.mark.long(
    but=[
        "writes chance into the ledger",
        "reads its line dry",
        "shuts the line for reading",
    ]
)
@pytest.mark.holds("promise: If a handler damages its worker's connection, only its own item is affected")
@pytest.mark.parametrize("deed", DEEDS)
def test_an_item_ends_well_that(deed: str) -> None:
    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(COUNT), do.only(CULPRIT, DEEDS[deed]), chunksize=8)
        recorder.check(job)
        assert len(workers_of(queue)) == 1
    assert job.results == [*range(COUNT)]
    assert {item.attempts for item in job.items} == {1}


CUTS = {
    "shuts what it answers by": do.shut_sockets(socket.SHUT_WR),
    "closes its sockets": do.close_fds_of("socket:"),
    "closes its pipes": do.close_fds_of("pipe:"),
    "closes its outbox": do.close_fds_of("mpqueue-outbox"),
    "closes its timers": do.close_fds_of("anon_inode:"),
    "closes all": do.close_all_fds,
}


@pytest.mark.long(but=["closes all"])
@pytest.mark.parametrize("cut", CUTS)
def test_what_runs_when_it_is_noticed_that_the_worker_is_cut_off_pays_nothing(cut: str) -> None:
    log = logging.getLogger("test")

    def handle(item: str) -> str:
        log.warning("%s", item)
        threading.Event().wait(1.2 * (item == "right"))  # it is noticed meanwhile, after a second
        return item

    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        queue.create_job("job", ["left", "culprit", "right"], do.only("culprit", CUTS[cut], handle), chunksize=3)
        job = queue.start("job").result(300)
        recorder.check(job)
        assert len(workers_of(queue)) == 1
    assert [job.results[0], job.results[2]] == ["left", "right"]
    assert {item.attempts for item in job.items} == {1}
    assert job.items[1].status == "completed" or isinstance(job.items[1].exception, WorkerCrashedError)


@pytest.mark.long(but=["zeros"])
@pytest.mark.holds("wait: a worker whose ledger is invalid")
@pytest.mark.parametrize("seed", [0, 1], ids=["zeros", "chance"])
def test_an_item_that_hangs_with_a_ledger_that_says_nothing_is_ended(seed: int) -> None:
    with JobQueue(1, max_retries=0, timeout=3) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(4), do.only(2, do.scribble(seed, do.hang_sleep)), chunksize=2)
        recorder.check(job)
        assert len(workers_of(queue)) == 1
    assert job.results == [0, 1, None, 3]
    assert {item.attempts for item in job.items} == {1}
    assert isinstance(job.items[2].exception, (ItemTimeoutError, WorkerCrashedError))
