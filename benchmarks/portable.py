"""`python -m benchmarks.portable`: what the portable forms of the operating system's facilities cost, on Linux.

The same work on two workers in two ways, which take turns: with the forms for Linux, and with those for every POSIX
system (``MPQUEUE_PORTABLE=1``), as macOS has them. Each turn is a process of its own and measures each work several
times; the best of all turns counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import machine
from benchmarks.handlers import double, echo, fill, touch
from mpqueue import JobQueue

#: Items of nothing, arrays of 8 MB, and times that each work is measured in a turn.
NOTHING, ARRAYS, REPEATS = 20_000, 16, 5
LENGTH = 1_000_000

WAYS = {"Linux": "0", "portable": "1"}


def works() -> dict[str, tuple[Callable[[Any], Any], Callable[[], list[Any]]]]:
    """The handler of each work, and what makes its items afresh."""
    import numpy as np

    def arrays() -> list[Any]:
        return [np.full(LENGTH, float(at)) for at in range(ARRAYS)]

    def orders() -> list[int]:
        return [LENGTH * 1_000_000 + at for at in range(ARRAYS)]

    return {
        "nothing": (echo, lambda: list(range(NOTHING))),
        "8 MB in": (touch, arrays),
        "8 MB out": (fill, orders),
        "8 MB both": (double, arrays),
    }


def measure() -> dict[str, float]:
    """Seconds an item of each work, the best of some: in this process, with its forms."""
    found = {}
    with JobQueue(2) as queue:
        for name, (handler, items) in works().items():
            times = []
            for _ in range(REPEATS + 1):  # the first one warms up
                fresh = items()
                began = time.perf_counter()
                results = queue.run(fresh, handler, chunksize=None if name == "nothing" else 1).results
                for result in results if name in ("8 MB out", "8 MB both") else ():
                    touch(result)
                times.append((time.perf_counter() - began) / len(fresh))
            found[name] = min(times[1:])
    return found


def main() -> None:
    """Measure by turns, and print the best of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--one", action="store_true", help="one turn, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure()))
        return
    best: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    for _ in range(arguments.turns):
        for way, switch in WAYS.items():
            command = [sys.executable, "-m", "benchmarks.portable", "--one"]
            environment = {**os.environ, "MPQUEUE_PORTABLE": switch}
            told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
            for name, seconds in json.loads(told).items():
                best[way][name] = min(seconds, best[way].get(name, seconds))
    print(machine.describe()["cpu"], machine.describe()["python"], sep=", ")
    for name in works():
        linux, portable = best["Linux"][name] * 1e6, best["portable"][name] * 1e6
        print(f"{name:10} {linux:9.2f} us an item, portable {portable:9.2f} us: {portable / linux:.2f} of it")


if __name__ == "__main__":
    main()
