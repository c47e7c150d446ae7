"""What a chunk costs on Dask beside a plain task, in CPU time of each process, and what idle lanes cost.

    .venvs/bench/bin/python -m benchmarks.dask_costs [--chunks 400] [--seconds 0.02] [--rounds 3] [--idle 20]

A scheduler and a Dask worker with a nanny run as processes of their own, this process is the client. Items sleep, so
what is measured is what brings them there and back. For each round: the same number of items as chunks of one item, as
`Client.map`, and as one `Client.submit` after the other. The figure is the CPU time per item; "queue / map" is what the
queue takes of what the plain task takes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
from distributed import Client

from mpqueue import JobQueue
from mpqueue.backends import DaskBackend

Costs = dict[str, float]


@contextmanager
def cluster(threads: int) -> Iterator[tuple[str, psutil.Process, psutil.Process]]:
    """Its address, its scheduler, and the nanny of its one worker."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "scheduler.json"
        started: list[subprocess.Popen[bytes]] = []

        def start(*command: str) -> psutil.Process:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *command, "--no-dashboard"],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            started.append(process)
            return psutil.Process(process.pid)

        try:
            scheduler = start("scheduler", "--port", "0", "--scheduler-file", str(told))
            while not told.exists():
                time.sleep(0.1)
            address = json.loads(told.read_text())["address"]
            nanny = start("worker", address, "--nthreads", str(threads), "--nanny", "--local-directory", folder)
            yield address, scheduler, nanny
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()


def nap(seconds: float, item: int) -> int:
    """What each item does."""
    time.sleep(seconds)
    return item


class Meter:
    """CPU seconds of the cluster's processes and of this one."""

    def __init__(self, scheduler: psutil.Process, nanny: psutil.Process) -> None:
        self._scheduler, self._nanny = scheduler, nanny

    def _read(self) -> Costs:
        there = [self._nanny, *self._nanny.children(recursive=True)]
        return {
            "scheduler": _cpu(self._scheduler),
            "client": _cpu(psutil.Process(os.getpid())),
            "node": sum(map(_cpu, there)),
        }

    def cost(self, work: Callable[[], object]) -> Costs:
        """Of this work; "wall" is how long it took."""
        before, began = self._read(), time.perf_counter()
        work()
        took = time.perf_counter() - began
        return {"wall": took} | {name: after - before[name] for name, after in self._read().items()}


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _work(chunks: int, seconds: float, client: Client, queue: JobQueue) -> dict[str, Callable[[], object]]:
    call, items = partial(nap, seconds), range(chunks)
    return {
        "queue": lambda: queue.run(items, call, chunksize=1),
        "map": lambda: client.gather(client.map(call, items, pure=False)),
        "submit": lambda: client.gather([client.submit(call, item, pure=False) for item in items]),
    }


def _medians(rounds: list[Costs], each: int) -> Costs:
    return {name: 1e3 * statistics.median(one[name] for one in rounds) / each for name in rounds[0]}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds that idle lanes are looked at; 0: not at all")
    options = parser.parse_args()
    with (
        cluster(options.threads) as (address, scheduler, nanny),
        Client(address, set_as_default=False) as client,
        JobQueue(options.threads, backend=DaskBackend(address)) as queue,
    ):
        client.wait_for_workers(1)
        meter = Meter(scheduler, nanny)
        idle_before = meter.cost(lambda: time.sleep(options.idle))
        work = _work(options.chunks, options.seconds, client, queue)
        queue.run(range(10), partial(nap, 0.0), chunksize=1)
        found: dict[str, list[Costs]] = {name: [] for name in work}
        for _ in range(options.rounds):
            for name, do in work.items():
                found[name].append(meter.cost(do))
        idle = meter.cost(lambda: time.sleep(options.idle))
    costs = {name: _medians(rounds, options.chunks) for name, rounds in found.items()}
    print(f"ms per item of {options.seconds} s, load {os.getloadavg()[0]:.1f}")
    print(f"{'':10}" + "".join(f"{name:>12}" for name in (*costs, "queue / map")))
    for name in costs["queue"]:
        ratio = costs["queue"][name] / max(costs["map"][name], 1e-9)
        print(f"{name:10}" + "".join(f"{one[name]:12.3f}" for one in costs.values()) + f"{ratio:12.2f}")
    if options.idle:
        for name in ("scheduler", "client", "node"):
            before, now = (100 * one[name] / one["wall"] for one in (idle_before, idle))
            print(f"idle {name}: {before:.2f}% of a CPU without lanes, {now:.2f}% with {options.threads} lanes")


if __name__ == "__main__":
    main()
