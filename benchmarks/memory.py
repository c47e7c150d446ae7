"""What this process weighs, as Linux counts it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

from benchmarks.contenders import Contender


def resident() -> int:
    """Bytes in memory now, after everything that can be given back has been."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def forget_peak() -> None:
    """Let `peak` count from now on."""
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")


def peak() -> int:
    """The most bytes that were in memory at once since `forget_peak`."""
    return _status("VmHWM")


def most_of_each(weights: list[tuple[int, int]]) -> int:
    """Bytes of all processes together, each with the most that was said of it."""
    largest: dict[int, int] = {}
    for pid, size in weights:
        largest[pid] = max(size, largest.get(pid, 0))
    return sum(largest.values())


def of_all(contender: Contender, weigh: Callable[[], list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """What ``weigh`` says when all workers have had something to do before, and all have again."""
    for _ in range(10):
        before, weights = weigh(), weigh()
        known = {pid for pid, _ in before} & {pid for pid, _ in weights}
        if len(known) >= contender.workers:
            return weights
    raise AssertionError(f"expected weights of {contender.workers} workers, got those of {len(known)}")


def parent_of(process: int) -> int:
    """Its parent."""
    with open(f"/proc/{process}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def _status(name: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
