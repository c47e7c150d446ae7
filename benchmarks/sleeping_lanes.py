"""`python -m benchmarks.sleeping_lanes`: hundreds of real lanes whose items sleep. Needs Linux, and 25 MB a lane.

Two equal jobs run at once, on four Dask workers of 64 slots (each slot has a process of its own, from the agent there),
or on as many workers of this machine. Prints how busy the lanes were, and the processes through which all chunks go;
how evenly the two jobs had the lanes; how long a pause takes until the last of what ran is home; and whether each
result is there under its own name, with a progress that never went back.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from benchmarks import machine
from mpqueue import Job, JobQueue
from mpqueue._core.commands import Capabilities
from mpqueue._core.rules.chunking import aim

#: Seconds without a report after which a paused job has nothing running any more.
STILL = 2.0


def nap(seconds: float, number: int) -> int:
    """An item. It is sent by value, so that a worker has to import nothing."""
    time.sleep(seconds)
    return number


class Use:
    """How many CPUs processes use, those included that they have started, from when this is made."""

    def __init__(self, roots: dict[str, list[int]]) -> None:
        self._roots = {name: [psutil.Process(pid) for pid in pids] for name, pids in roots.items()}
        self._before, self._began = self._read(), time.monotonic()

    def _read(self) -> dict[str, float]:
        return {name: sum(map(_seconds, roots)) for name, roots in self._roots.items()}

    def __str__(self) -> str:
        seconds, now = time.monotonic() - self._began, self._read()
        return ", ".join(f"{name} {(now[name] - before) / seconds:.2f}" for name, before in self._before.items())


def _seconds(root: psutil.Process) -> float:
    own = root.pid == os.getpid()  # of this one, without the workers
    return sum(sum(process.cpu_times()[:2]) for process in [root, *([] if own else root.children(recursive=True))])


@contextmanager
def queue_on_dask(nodes: int, slots: int) -> Iterator[tuple[JobQueue, dict[str, list[int]]]]:
    """A queue on a cluster of this machine, and the processes to be watched."""
    from mpqueue.backends import DaskBackend
    from tests.support.dask_cluster import dask_cluster

    with tempfile.TemporaryDirectory() as folder, dask_cluster(Path(folder), nodes, threads=slots) as cluster:
        backend = DaskBackend(cluster.address)
        print(f"chunks aim at {aim(backend.capabilities, nodes * slots):.3f} s")
        scheduler, *workers = cluster.pids
        with JobQueue(concurrency=None, backend=backend) as queue:
            yield queue, {"program": [os.getpid()], "Dask's scheduler": [scheduler], "Dask's workers": workers}


@contextmanager
def queue_here(nodes: int, slots: int) -> Iterator[tuple[JobQueue, dict[str, list[int]]]]:
    """The same without Dask."""
    print(f"chunks aim at {aim(Capabilities(), nodes * slots):.3f} s")
    with JobQueue(nodes * slots) as queue:
        yield queue, {"program": [os.getpid()]}


class Progress:
    """What two jobs have done so far, looked at now and then."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.last = [0, 0]

    def look(self) -> list[int]:
        """How many items of each have ended."""
        done = [job.completed for job in self.jobs]
        assert all(now >= before for now, before in zip(done, self.last, strict=True)), "progress went back"
        self.last = done
        return done

    def wait_for(self, count: int) -> None:
        """Until so many have ended, of both together."""
        while sum(self.look()) < count:
            time.sleep(0.05)


def measure(queue: JobQueue, watched: dict[str, list[int]], items: int, seconds: float) -> None:
    """Run the two jobs, and say how that went."""
    handler, half = partial(nap, seconds), items // 2
    began = time.monotonic()
    queue.run(range(4 * queue.concurrency), partial(nap, 1.0), chunksize=1)
    lanes = queue.concurrency
    print(f"{lanes} lanes had run four items of 1 s each after {time.monotonic() - began:.0f} s")
    jobs = [queue.create_job(name, range(half), handler) for name in ("one", "other")]
    progress = Progress(jobs)
    began, use = time.monotonic(), Use(watched)
    runs = [queue.start(job) for job in jobs]
    progress.wait_for(items // 4)
    middle, before = time.monotonic(), progress.look()
    progress.wait_for(items // 2)
    span, after = time.monotonic() - middle, progress.look()
    gained = [now - then for now, then in zip(after, before, strict=True)]
    print(f"lanes busy in the middle: {100 * sum(gained) * seconds / span / lanes:.1f}%; CPUs: {use}")
    print(f"the two jobs got {gained[0]:,} and {gained[1]:,} items done at the same time: {gained[0] / gained[1]:.3f}")
    paused = time.monotonic()
    queue.pause("one")
    changed, done = paused, progress.look()[0]
    while time.monotonic() - changed < STILL:
        if progress.look()[0] != done:
            changed, done = time.monotonic(), progress.last[0]
        time.sleep(0.005)
    print(f"paused: the last of what ran was home after {changed - paused:.2f} s; the other job went on: ", end="")
    other = progress.last[1]
    time.sleep(2.0)
    print(f"{(progress.look()[1] - other) * seconds / 2.0 / lanes:.0%} of the lanes; CPUs: {use}")
    assert progress.last[0] == done, "a paused job went on"
    resumed = time.monotonic()
    queue.resume("one")
    while progress.look()[0] == done:
        time.sleep(0.005)
    print(f"resumed: its first results came after {time.monotonic() - resumed:.2f} s")
    for run in runs:
        run.result()
    took = time.monotonic() - began
    assert [job.completed for job in jobs] == [half, half], "not all have completed"
    assert all(job.results == list(range(half)) for job in jobs), "a result is under another one's name"
    print(
        f"{items:,} items of {seconds:g} s in {took:.1f} s, {100 * items * seconds / took / lanes:.1f}% of the lanes' "
        f"time, pause included; each result is there under its own name; CPUs: {use}; load {machine.load():.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sleeping_lanes", description=__doc__)
    parser.add_argument("--engine", choices=("dask", "loky"), default="dask")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--slots", type=int, default=64, help="lanes of each node")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=0.05, help="that an item sleeps")
    args = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load {machine.load():.1f}")
    opened = {"dask": queue_on_dask, "loky": queue_here}[args.engine]
    with opened(args.nodes, args.slots) as (queue, watched):
        measure(queue, watched, args.items, args.seconds)


if __name__ == "__main__":
    main()
