"""Samples of a handler's stack, with seconds: in a worker, and in a message.

A place is (function, file, line); a stack is a tuple of them, the handler's own place first. These are plain tuples,
since a worker makes thousands of them; `mpqueue._report.profile` gives them names.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping

from mpqueue._wire.pickling.reducers import PROTOCOL

#: For C code the file is empty; if the line is not known it is 0.
Place = tuple[str, str, int]
Stack = tuple[Place, ...]

#: Stands for places that were left out because there were too many.
OTHERS: Place = ("(others)", "", 0)


class Stacks:
    """Seconds by stack; about ``most`` stacks are kept separate. No second is lost: the rest counts for `OTHERS`."""

    __slots__ = ("_most", "seconds")

    def __init__(self, most: int) -> None:
        self.seconds: dict[Stack, float] = {}
        self._most = most

    def add(self, stack: Stack, seconds: float) -> None:
        """Add seconds to a stack. If there is no room, only its outermost place is kept, or none."""
        known = self.seconds
        if stack in known:
            known[stack] += seconds
            return
        if len(known) >= self._most:
            stack = (*stack[:1], OTHERS)
            if stack not in known and len(known) >= self._most + self._most // 8:
                stack = (OTHERS,)
        known[stack] = known.get(stack, 0.0) + seconds

    @property
    def total(self) -> float:
        """The sum of all seconds."""
        return sum(self.seconds.values())


def dump_stacks(by_position: Mapping[int, Stacks]) -> bytes:
    """Pack the samples of some items of a chunk as bytes: each place and each stack once. About 20 us."""
    places: dict[Place, int] = {}
    stacks: dict[Stack, int] = {}
    rows = []
    for position, sampled in by_position.items():
        for stack, seconds in sampled.seconds.items():
            for place in stack:
                places.setdefault(place, len(places))
            rows.append((position, stacks.setdefault(stack, len(stacks)), seconds))
    numbered = [tuple(places[place] for place in stack) for stack in stacks]
    return pickle.dumps((list(places), numbered, rows), PROTOCOL)


def load_stacks(data: bytes) -> Iterator[tuple[int, Stack, float]]:
    """Unpack samples, each (position, stack, seconds)."""
    places, numbered, rows = pickle.loads(data)
    stacks = [tuple(places[number] for number in stack) for stack in numbered]
    return ((position, stacks[number], seconds) for position, number, seconds in rows)
