"""What the processes share is out of other users' reach: no name that can be guessed, nothing that others may open."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest

from mpqueue import JobQueue, share
from tests.support import handlers as do
from tests.support import leaks
from tests.support.waiting import Gate

pytestmark = pytest.mark.slow


def open_files(pid: int) -> set[str]:
    """What the process has open or mapped, by name."""
    names = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            names.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:  # closed meanwhile
            continue
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return names | {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}


def is_in_the_open(name: str) -> bool:
    """Whether a file has a name in a folder where anybody may write, and others than its owner may open it."""
    path = Path(name)
    if not name.startswith("/") or name.startswith("/memfd:") or name.endswith(" (deleted)") or not path.exists():
        return False
    folder = path.parent.stat().st_mode
    return bool(folder & stat.S_IWOTH) and bool(path.stat().st_mode & 0o077) and path.is_file()


def test_busy_queue_keeps_nothing_where_others_can_reach_it(gate: Gate) -> None:
    inherited = open_files(os.getpid())  # from whoever started the tests
    table = share(np.ones(1 << 20))
    before = set(os.listdir("/dev/shm"))

    def handle(item: np.ndarray[tuple[int], np.dtype[np.float64]]) -> object:
        gate.pass_through(os.getpid())
        return item * 2 + table.value[: len(item)]

    with JobQueue(2) as queue:
        queue.run(range(4), do.succeed, capture_output=True)
        queue.create_job("job", [np.ones(1 << 17)] * 4, handle, capture_output=True, chunksize=1)
        run = queue.start("job")
        workers = gate.wait_for_count(2)
        for pid in (os.getpid(), *map(int, workers)):
            assert [name for name in open_files(pid) - inherited if is_in_the_open(name)] == []
        new = [name for name in set(os.listdir("/dev/shm")) - before if "mpqueue" in name]
        assert [name for name in new if leaks.is_ours(name)] == []
        assert [name for name in os.listdir(tempfile.gettempdir()) if "mpqueue" in name] == []
        gate.open()
        assert run.result(300).completed == 4
