"""Results that the worker has packed and this process can't unpickle: each costs its own item, and is told."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mpqueue import ItemStatus, JobQueue, ResultPicklingError
from tests.support import handlers as do

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

#: Bytes of a result for which there is no room here, and how many more than now there is room for.
TOO_MUCH, ROOM = 400_000_000, 200_000_000


@contextmanager
def little_room() -> Iterator[None]:
    """This process may not map much more than it does now."""
    status = Path("/proc/self/status").read_text()
    now = re.search(r"VmSize:\s+(\d+) kB", status)
    assert now is not None
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(now[1]) * 1024 + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(("chunksize", "calls"), [(1, 1), (3, 2)], ids=["alone", "with others"])
def test_a_result_for_which_there_is_no_memory_is_charged_once_and_told(
    chunksize: int, calls: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with JobQueue(1) as queue:
        queue.run([1], do.big_result)  # the worker has all the room there is
        with little_room():
            job = queue.run([1, TOO_MUCH, 3], do.count_calls(tmp_path, do.big_result), chunksize=chunksize)
    culprit = job.items[1]
    assert culprit.status is ItemStatus.FAILED
    assert type(culprit.exception) is ResultPicklingError
    assert re.match(
        "ResultPicklingError: the result can't be unpickled: (OSError: .*can't map|MemoryError)", culprit.error or ""
    )
    assert [item.attempts for item in job.items] == [1, 1, 1]
    assert job.results == [bytes(1), None, bytes(3)]
    assert dict(do.calls(tmp_path)) == {"1": calls, str(TOO_MUCH): calls, "3": calls}
    warned = [record.message for record in caplog.records if "run again, each by itself" in record.message]
    assert len(warned) == calls - 1
    assert any("has failed: the result can't be unpickled" in record.message for record in caplog.records)
