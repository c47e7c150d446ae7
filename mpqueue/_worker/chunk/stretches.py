"""How many items run under one mark: pure functions of what the worker knows of a job's items."""

from __future__ import annotations

from mpqueue._wire.pace import STRETCH_SECONDS

#: A stretch holds at most this many times the items of the one before it.
STRETCH_GROWTH = 8
#: Seconds from which on an item goes under a mark of its own: if its worker dies, it is known which item it was.
ALONE = 0.004


def first_size(pace: float | None) -> int:
    """Items of a chunk's first stretch; ``pace`` is what an item takes, where that is known."""
    return _fitting(pace) if pace else 1


def next_size(pace: float, ran: int) -> int:
    """Items of the stretch after one of ``ran`` items."""
    return min(_fitting(max(pace, 1e-9)), ran * STRETCH_GROWTH)


def _fitting(pace: float) -> int:
    return int(STRETCH_SECONDS / pace) if pace < ALONE else 1


def expected_seconds(size: int, pace: float | None) -> float:
    """What a stretch of so many items will take."""
    return min(size * (pace or 0.0), STRETCH_SECONDS)
