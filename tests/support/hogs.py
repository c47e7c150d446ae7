"""Handlers that use memory, named by what they do. See `tests.support.handlers`, whose kin they are."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import mpqueue

MB = 1 << 20

_kept: list[bytearray] = []


def use(megabytes: int) -> int:
    """Have so much memory for a moment, every page of it; returns how much."""
    held = bytearray(megabytes * MB)
    held[:: 1 << 12] = b"\1" * len(held[:: 1 << 12])
    return len(held)


def leak(megabytes: int) -> int:
    """Take so much memory and keep it."""
    _kept.append(bytearray(b"\1") * (megabytes * MB))
    return len(_kept)


def spin(seconds: float) -> float:
    """Keep a CPU busy for so many seconds of its time; returns how many it was."""
    begun = time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        pass
    return spent


def spin_then_use(item: Any) -> int:
    """Use 5 ms of CPU time, so that its peak is worth being looked at, and as many MB as the item says."""
    spin(0.005)
    return use(item)


def take_and_hang(megabytes: int) -> None:
    """Take so much memory and never come back."""
    leak(megabytes)
    threading.Event().wait()


def sum_of(array: Any) -> int:
    """Read all of an array."""
    return int(array.sum(dtype="int64"))


def log_stay(folder: Path, megabytes: int, item: Any) -> None:
    """Stay for 20 ms and write down from when to when; ``"hog"`` takes so much memory at its first try."""
    begun, attempt = time.monotonic(), mpqueue.current_item().attempt
    if item == "hog" and attempt == 1:
        take_and_hang(megabytes)
    threading.Event().wait(0.02)
    line = f"{item} {attempt} {begun} {time.monotonic()} {os.getpid()}\n"
    with open(folder / "stays", "a", encoding="utf-8") as log:
        log.write(line)


class Stay(NamedTuple):
    """What `log_stay` wrote."""

    item: str
    attempt: int
    begun: float
    ended: float
    pid: int


def stays(folder: Path) -> list[Stay]:
    """All that was written, in the order in which they began."""
    lines = (folder / "stays").read_text(encoding="utf-8").splitlines()
    fields = (line.split() for line in lines)
    read = [Stay(item, int(tried), float(begun), float(ended), int(pid)) for item, tried, begun, ended, pid in fields]
    return sorted(read, key=lambda stay: stay.begun)
