"""The worker's watchdog: where it cuts off a stretch, and what it may say while the main thread goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from mpqueue._wire.memory.ledger import Phase
from mpqueue._worker.chunk.watchdog import cut_off


class RunningStretch:
    """As much of a chunk as the watchdog asks for, in the middle of a stretch that began at position 10."""

    def __init__(self, size: int, done: int, *, ends_meanwhile: bool = False) -> None:
        self.stretch, self.stretch_lo = list(range(size)), 10
        self.careful = False
        self.cut_at: int | None = None
        self.out: list[Any] = [None] * (10 + done)
        self.running = self
        self.claims: list[tuple[Phase, int, int]] = []
        self._ends_meanwhile = ends_meanwhile

    @property
    @contextlib.contextmanager
    def stretch_lock(self) -> Iterator[None]:
        """The main thread may have it first, to end the stretch."""
        if self._ends_meanwhile:
            self.out.append(None)
            self.stretch = []
        yield

    def claim(self, *claim: Any) -> None:
        """Note what is claimed."""
        self.claims.append(claim)

    def note_memory(self) -> None:
        """Nothing."""


def cut(stretch: RunningStretch) -> None:
    cut_off(stretch)  # type: ignore[arg-type]


def test_a_stretch_is_cut_off_behind_the_item_that_runs() -> None:
    run = RunningStretch(size=8, done=3)
    cut(run)
    assert run.stretch == [0, 1, 2, 3]
    assert (run.cut_at, run.claims) == (13, [(Phase.RUNNING, 13, 14)])


def test_a_stretch_that_ends_meanwhile_is_not_spoken_of_any_more() -> None:
    """Else its claim would stand in the place of that for what the main thread has begun since."""
    run = RunningStretch(size=8, done=7, ends_meanwhile=True)
    cut(run)
    assert run.cut_at is None
    assert not run.claims
