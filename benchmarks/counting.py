"""The program that `benchmarks.work` runs: does one thing many times and prints how many calls each thread made for it.

It is a program of its own, so that nothing but mpqueue is loaded, and uses public names only, so that it runs on every
version. `sys.setprofile` reports each call of a Python function and of one in C. The least of all rounds counts: now
and then a thread is woken once more, or the disk takes its time.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from mpqueue import JobQueue

#: Rounds before the first that counts, in which caches fill; and rounds that count.
WARM, ROUNDS = 4, 40

#: Calls by the first word of a thread's name: main, coordinator, listeners, journal. In a worker: main.
calls: Counter[str] = Counter()


def count_this_thread(*_: Any) -> None:
    """Count the calls of this thread from now on."""
    name = threading.current_thread().name
    words = name.removeprefix("mpqueue-").split("-")
    role = "main" if threading.current_thread() is threading.main_thread() else words[0]

    def called(_frame: FrameType, event: str, _argument: object) -> None:
        if event in ("call", "c_call"):
            calls[role] += 1

    sys.setprofile(called)


def least(what: Callable[[], object], *roles: str) -> dict[str, int]:
    """The least number of calls of each of these threads for one round."""
    found: dict[str, list[int]] = {role: [] for role in roles}
    for number in range(WARM + ROUNDS):
        before = calls.copy()
        what()
        if number >= WARM:
            for role in roles:
                found[role].append(calls[role] - before[role])
    return {role: min(counts) for role, counts in found.items()}


def no_op(item: int) -> int:
    return item


def start_counting() -> Counter[str]:
    """The setup of a job: what its worker does from now on is counted, in this job's own counter."""
    count_this_thread()
    return calls


def calls_so_far(_: int, counted: Counter[str]) -> int:
    return counted["main"]


def die(_: int) -> None:
    """Ends its worker."""
    os._exit(1)


def main() -> None:
    threading.setprofile(count_this_thread)
    count_this_thread()
    figures: dict[str, int] = {}

    def note(name: str, counts: dict[str, int]) -> None:
        figures.update({f"{name}: {role}": count for role, count in counts.items()})

    one, hundred = [0], list(range(100))

    def run_hundred() -> None:
        """In one chunk: how many chunks a job chooses depends on the speed of the machine."""
        queue.run(hundred, no_op, chunksize=100)

    numbers = iter(range(10_000))
    in_worker = []
    with JobQueue(concurrency=1, max_retries=0) as queue:
        note("run of 1", least(lambda: queue.run(one, no_op), "main", "coordinator"))
        note("run of 100", least(run_hundred, "main", "coordinator"))
        note("create_job of 100", least(lambda: queue.create_job(f"created-{next(numbers)}", hundred, no_op), "main"))
        for job in queue.jobs():  # which are not to be started
            queue.clear_job(job.id)
        for _ in range(WARM + ROUNDS):
            results = queue.run(range(10_000), calls_so_far, setup=start_counting, chunksize=10_000).results
            in_worker.append(results[-1] - results[0])
        note("9,999 items of a chunk", {"worker": min(in_worker)})
        note("worker replaced", least(lambda: queue.run(one, die), "main", "coordinator"))
        thousand = queue.run(list(range(1_000)), float)
        queue.on("job:progress", no_op)
        note("run of 100 with a listener", least(run_hundred, "listeners"))
    with tempfile.TemporaryDirectory() as folder, JobQueue(concurrency=1, journal=Path(folder, "run.db")) as queue:
        note("run of 100 with a journal", least(run_hundred, "main", "coordinator", "journal"))
    note("modules of mpqueue", {"loaded": sum(name.split(".")[0] == "mpqueue" for name in sys.modules)})
    with tempfile.TemporaryDirectory() as folder:
        note("export of 1,000 items as CSV", least(lambda: thousand.export(Path(folder, "x.csv")), "main"))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
