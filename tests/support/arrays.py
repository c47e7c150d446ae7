"""What holds for arrays on every engine that carries segments: they arrive equal, and are the reader's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

import mpqueue
from mpqueue import JobQueue
from tests.support import handlers as do
from tests.support.results import results_of


def segment_at(array: Any) -> int | None:
    """The inode of the segment in whose memory an array is; None where it is this process's own memory."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        ends, _, _, _, inode, *name = line.split()
        begin, end = (int(end, 16) for end in ends.split("-"))
        if begin <= address < end and name and "mpqueue-segment" in name[0]:
            return int(inode)
    return None


def segments_here() -> set[int]:
    """The inodes of the segments that this process has made or opened."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        path = Path(f"/proc/self/fd/{fd}")
        if path.exists() and "mpqueue-segment" in os.readlink(path):
            found.add(path.stat().st_ino)
    return found


def check_arrays_both_ways(queue: JobQueue) -> None:
    """Items, results, what passes from stage to stage, and items that run alone since one of them ends its worker."""
    arrays = [np.full(40_000, float(at)) for at in range(40)]
    for chunksize in (None, 1, 7):
        job = queue.run(arrays, _double_in_place, chunksize=chunksize)
        for array, result in zip(arrays, results_of(job), strict=True):
            assert np.array_equal(result, array * 2)
            assert result.flags.writeable
    staged = queue.run_stages(arrays, [_double_in_place, _double_in_place])
    for array, found in zip(arrays, staged.results, strict=True):
        assert np.array_equal(np.asarray(found), array * 4)
    kept = queue.run(range(3), do.only(1, do.kill_self, _big)).results  # each alone from then on
    assert [None if one is None else int(one[0]) for one in kept] == [0, None, 2]
    assert [int(array[0]) for array in arrays] == [*range(40)]


def check_arrays_after_rights_are_lost(queue: JobQueue, chunksize: int) -> None:
    """The handler becomes another user, so its worker can't open this program's segments any more. Only as root."""
    arrays = [np.full(100_000, at) for at in range(12)]
    table = mpqueue.share(np.arange(500_000))
    job = queue.run([(array, table) for array in arrays], _give_up_rights, chunksize=chunksize)
    assert [int(result[0]) for result in results_of(job)] == [2 * at for at in range(12)]


def _double_in_place(array: Any) -> Any:
    array *= 2
    return array


def _big(item: int) -> Any:
    return np.full(100_000, item)


def _give_up_rights(item: tuple[Any, Any]) -> Any:
    array, table = item
    os.seteuid(65534)
    return array + table.value[array[0]]
