"""A Dask cluster of separate processes: a scheduler, and workers with their nannies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from tests.support import leaks
from tests.support.programs import is_running
from tests.support.waiting import wait_until

#: What runs a program where it sees no process of ours, and so no memory of theirs.
FAR = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
#: Seconds that a cluster may take to come up, on a busy machine.
PATIENCE = 300.0
#: What a cluster looks at all the time, which no test asks for: one that has nothing to do would take a sixth of a CPU.
QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
}


def _without_cookie() -> dict[str, str]:
    """The environment, without what makes names and processes ours: a new worker's semaphores are the cluster's."""
    return {name: value for name, value in os.environ.items() if name != leaks.COOKIE}


class DaskCluster:
    """Owned by a fixture; its processes are not counted as what a test leaves behind."""

    def __init__(self, folder: Path, *, is_far: bool = False) -> None:
        self.folder = folder
        self._wrapped = FAR if is_far else []
        self._file = folder / "scheduler.json"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(self._file))
        self.address = ""

    def wait_until_up(self) -> None:
        """Until its scheduler has an address."""
        self.address = wait_until(self._find_address, timeout=PATIENCE, what="the scheduler")

    def _find_address(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            return str(json.loads(self._file.read_text())["address"])
        return ""

    def _start(self, *command: str, wrapped: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{len(self._processes)}.log", "wb") as log:
            process = subprocess.Popen(
                [*wrapped, sys.executable, "-m", "dask", *command],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**_without_cookie(), **QUIET, "TMPDIR": str(self.folder)},
                start_new_session=True,
            )
        leaks.not_ours.add(process.pid)
        self._processes.append(process)
        return process

    def add_worker(
        self, *, threads: int = 1, nanny: bool = True, options: Sequence[str] = (), env: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a worker, under a nanny unless told otherwise; returns its (the nanny's) process at once."""
        common = ["--nthreads", str(threads), "--no-dashboard", "--nanny" if nanny else "--no-nanny"]
        common += ["--local-directory", str(self.folder)]
        wrapped = [*self._wrapped, "env", *env] if env else self._wrapped
        return self._start("worker", self.address, *common, *options, wrapped=wrapped)

    def have_workers(self, count: int) -> None:
        """Let there be so many workers of one slot, of those that are there as many as possible."""
        alive = [process for process in self._processes[1:] if process.poll() is None]
        for process in alive[count:]:
            self.kill_machine(process)
        for _ in range(count - len(alive)):
            self.add_worker()
        self.await_slots(count)

    def await_slots(self, count: int, client: Client | None = None) -> None:
        """Wait until so many slots are there."""
        with contextlib.nullcontext(client) if client else Client(self.address, set_as_default=False) as asked:
            wait_until(lambda: sum(asked.nthreads().values()) == count, timeout=PATIENCE, what=f"{count} slots")

    def check_is_clean(self, client: Client) -> None:
        """Wait until no task and no worker of ours is left on it."""
        wait_until(lambda: not client.run_on_scheduler(_tasks_of_ours), what="the tasks on the scheduler to be gone")
        wait_until(lambda: not any(client.run(_ours_there, on_error="return").values()), what="the agents to be closed")

    @property
    def pids(self) -> list[int]:
        """The scheduler's process id, and those of the workers, or of their nannies."""
        return [process.pid for process in self._processes]

    def kill_scheduler(self) -> None:
        """Kill it; workers end by themselves when they find out."""
        self._processes[0].kill()

    def kill_machine(self, nanny: subprocess.Popen[bytes]) -> None:
        """Kill a nanny and its worker at once; not the tracker of their semaphores, which then removes these."""
        trackers = []
        for pid in [nanny.pid, *leaks.descendants(nanny.pid)]:
            with contextlib.suppress(OSError):
                if b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    trackers.append(pid)
                else:
                    os.kill(pid, signal.SIGKILL)
        nanny.wait()
        wait_until(lambda: not any(map(is_running, trackers)), what="the trackers to have removed the semaphores")

    def close(self) -> None:
        """End everything, workers first: asked to end by itself, each would take seconds to say farewell."""
        for process in reversed(self._processes):
            self.kill_machine(process)
            leaks.not_ours.discard(process.pid)


@contextlib.contextmanager
def dask_cluster(
    folder: Path, workers: int = 2, *, threads: int = 1, nanny: bool = True, is_far: bool = False
) -> Iterator[DaskCluster]:
    """A cluster that is up; ``is_far``: its workers share no memory with this program, as on other machines."""
    if is_far and subprocess.run([*FAR, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no pid namespaces here")
    cluster = DaskCluster(folder, is_far=is_far)
    try:
        cluster.wait_until_up()
        for _ in range(workers):
            cluster.add_worker(threads=threads, nanny=nanny)
        cluster.await_slots(workers * threads)
        yield cluster
    finally:
        cluster.close()


def _tasks_of_ours(dask_scheduler: Any) -> list[str]:
    return [key for key in dask_scheduler.tasks if str(key).startswith("mpqueue")]


def _ours_there() -> list[str]:
    """What a Dask worker has of ours: agents, their threads, segments and workers."""
    import re
    import threading

    import psutil

    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("mpqueue")]
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            left += (
                [str(child)] if any(re.search("popen_loky|_engines.agent", part) for part in child.cmdline()) else []
            )
    return left
