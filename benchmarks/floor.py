"""The least that a queue of this shape costs: a thread that coordinates, a worker of loky, a future, and nothing else.

    python -m benchmarks.floor [--rounds 300]

No retries, ids, events, journal, limits or blame: one run at a time goes to one worker. So what it takes is the
share of Python, loky and the operating system in what `queue.run` takes, which no change of mpqueue can save. Each
figure is the least of all rounds, in milliseconds; "import", "first run" and "close" are of one program, the median of
five.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pickle
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from benchmarks.handlers import echo

PROGRAMS = 5


class LeastQueue:
    """A coordinator, which waits for runs and for answers at once, and one worker of loky."""

    def __init__(self) -> None:
        import loky

        self._here, there = socket.socketpair()
        self._wake_end, self._woken_end = socket.socketpair()
        self._asked: deque[tuple[bytes, Sequence[Any], Future[list[Any]]]] = deque()
        self._executor = loky.ProcessPoolExecutor(1, initializer=_take_end, initargs=(there,))
        self._serving = self._executor.submit(_serve)
        there.close()
        self._thread = threading.Thread(target=self._coordinate)
        self._thread.start()

    def run(self, items: Sequence[Any], handler: Callable[[Any], Any]) -> list[Any]:
        """Return the handler's results."""
        asked: Future[list[Any]] = Future()
        self._asked.append((pickle.dumps(handler), items, asked))
        self._wake_end.send(b"\0")
        return asked.result()

    def close(self) -> None:
        """End the thread and the worker."""
        self._wake_end.close()
        self._thread.join()
        self._here.close()
        self._serving.result()
        self._executor.shutdown()

    def _coordinate(self) -> None:
        waited_for = selectors.DefaultSelector()
        for end in (self._here, self._woken_end):
            waited_for.register(end, selectors.EVENT_READ)
        running: Future[list[Any]] | None = None
        while True:
            for key, _ in waited_for.select():
                if key.fileobj is self._here and running is not None:
                    running.set_result(pickle.loads(_read(self._here)))
                    continue
                if not self._woken_end.recv(64):
                    return
                handler, items, running = self._asked.popleft()
                _write(self._here, pickle.dumps((handler, items)))


def _write(end: socket.socket, data: bytes) -> None:
    end.sendall(len(data).to_bytes(8) + data)


def _read(end: socket.socket) -> bytes:
    head = end.recv(1 << 16)
    data, size = bytearray(head[8:]), int.from_bytes(head[:8])
    while head and len(data) < size:
        data += (head := end.recv(1 << 20))
    return bytes(data)


_end: socket.socket


def _take_end(end: socket.socket) -> None:
    global _end  # noqa: PLW0603 - loky's initializer has no other place
    _end = end


def _serve() -> None:
    while data := _read(_end):
        handler, items = pickle.loads(data)
        _write(_end, pickle.dumps([*map(pickle.loads(handler), items)]))


def warm(queue: Any, count: int, rounds: int) -> float:
    """Milliseconds of a run of that many no-ops."""
    items, least = list(range(count)), float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        queue.run(items, echo)
        least = min(least, time.perf_counter() - began)
    return least * 1e3


def program(which: str) -> dict[str, float]:
    """Milliseconds of the parts of a script with 100 items, in this new process; and its memory, in MB."""
    began = time.perf_counter()
    if which == "mpqueue":
        from mpqueue import JobQueue

        imported = time.perf_counter()
        queue: Any = JobQueue(1)
    else:
        import loky  # noqa: F401 - what is timed

        imported = time.perf_counter()
        queue = LeastQueue()
    queue.run(range(100), echo)
    ran = time.perf_counter()
    queue.close()
    closed = time.perf_counter()
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    times = {"import": imported - began, "first run": ran - imported, "close": closed - ran}
    return {name: seconds * 1e3 for name, seconds in times.items()} | {"MB": memory}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--program", choices=("floor", "mpqueue"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.program:
        print(json.dumps(program(given.program)))
        return
    from mpqueue import JobQueue

    figures: dict[str, list[float]] = {}
    for which, make in (("floor", LeastQueue), ("mpqueue", lambda: JobQueue(1))):
        queue: Any = make()
        warm(queue, 100, 20)
        for count in (1, 100):
            figures.setdefault(f"{count} warm", []).append(warm(queue, count, given.rounds))
        queue.close()
        found = [_program(which) for _ in range(PROGRAMS)]
        for name in found[0]:
            figures.setdefault(name, []).append(statistics.median(one[name] for one in found))
    print(f"{'':12}{'floor':>9}{'mpqueue':>9}")
    for name, (floor, ours) in figures.items():
        print(f"{name:12}{floor:9.2f}{ours:9.2f}")


def _program(which: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.floor", "--program", which]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


if __name__ == "__main__":
    importlib.import_module("benchmarks.floor").main()  # so that its functions go to the worker by name
