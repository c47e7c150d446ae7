"""The neighbours in the same chunk: whatever one item does, the others end as if nothing had happened."""

from __future__ import annotations

import pytest

from mpqueue import (
    ItemStatus,
    JobQueue,
    ResultPicklingError,
    WorkerCrashedError,
)
from tests.support import handlers as do
from tests.support.recorder import Recorder
from tests.support.strength import workers_of

pytestmark = pytest.mark.slow

#: None: it may also end well, since it has broken nothing that its own result needs.
BREAK_PACKING: dict[str, tuple[do.Handler, type[BaseException]]] = {
    "returns what can't even be shown": (do.return_oddly_shown, ResultPicklingError),
    "raises what can't even be shown": (do.raise_odd_text, do.OddTextError),
    "takes the address space": (do.take_address_space, WorkerCrashedError),
    "replaces the picklers": (do.replace_picklers, WorkerCrashedError),
    "replaces the picklers when pickled": (do.return_made(do.WhenPickled, do.replace_picklers), WorkerCrashedError),
}


@pytest.mark.long(
    but=["raises what can't even be shown", "takes the address space", "replaces the picklers when pickled"]
)
@pytest.mark.parametrize("how", BREAK_PACKING)
def test_finished_neighbours_of_an_item_that(how: str) -> None:
    bad, error = BREAK_PACKING[how]
    with JobQueue(1, max_retries=0) as queue:
        recorder = Recorder(queue)
        job = queue.run(range(12), do.only(5, bad, do.return_parcel), chunksize=12)
        recorder.check(job)
        assert len(workers_of(queue)) == 1
    culprit = job.items[5]
    assert culprit.status is ItemStatus.COMPLETED or type(culprit.exception) is error
    assert [item.result for item in job.items if item != culprit] == [do.Parcel(at) for at in range(12) if at != 5]
    assert [item.attempts for item in job.items] == [1] * 12
