"""A worker's process as the kernel sees it."""

from __future__ import annotations

import os
import subprocess
from multiprocessing import connection
from typing import Any

import pytest

from mpqueue._engines.loky.process.worker_process import WorkerProcess


def test_waiting_for_the_end_while_the_lane_is_closed_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by chaos: a lane that is killed while loky asks for its exit code."""
    process = subprocess.Popen(["true"])
    sentinel, write = os.pipe()
    os.close(write)
    worker = WorkerProcess(process.pid, sentinel)
    wait = connection.wait

    def wait_and_close(*arguments: Any) -> Any:
        ready = wait(*arguments)
        worker.close()
        return ready

    monkeypatch.setattr(connection, "wait", wait_and_close)
    try:
        worker.await_end(1.0)
    finally:
        os.close(sentinel)
        process.wait()
