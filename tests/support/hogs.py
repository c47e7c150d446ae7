"""Handlers that use memory, named by what they do. See `tests.support.handlers`, whose kin they are."""

from __future__ import annotations

import threading
from typing import Any

from tests.support.spinning import spin

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
