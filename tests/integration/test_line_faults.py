"""What handlers do to the line, the ledger and the outbox of their worker, without being found out at once."""

from __future__ import annotations

import socket

import pytest

from mpqueue import JobQueue
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.strength import workers_of

pytestmark = pytest.mark.slow

CULPRIT, COUNT = 10, 30

DEEDS = {
    "shuts the line for reading": do.shut_sockets(socket.SHUT_RD),
    "writes chance into the ledger": do.scribble(1),
    "writes zeros into the ledger": do.scribble(0),
    "reads three bytes of a frame": do.read_a_little,
}


@pytest.mark.parametrize("chunksize", [1, 8], ids=lambda size: f"chunks of {size}")
@pytest.mark.parametrize("deed", DEEDS)
def test_an_item_ends_well_that(deed: str, chunksize: int) -> None:
    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(COUNT), do.only(CULPRIT, DEEDS[deed]), chunksize=chunksize)
        recorder.check(job)
        assert len(workers_of(queue)) == 1
    assert job.results == [*range(COUNT)]
    assert {item.attempts for item in job.items} == {1}
