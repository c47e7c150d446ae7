"""The worker's watchdog: what it may say while the main thread goes on."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from mpqueue._wire.memory.ledger import Phase
from mpqueue._worker.chunk.watchdog import cut_off
from tests.support.waiting import wait_until


def running_stretch(size: int, done: int) -> Any:
    """A chunk in the middle of a stretch that began at position 10."""
    claims: list[tuple[Phase, int, int]] = []
    return SimpleNamespace(
        stretch=list(range(size)),
        stretch_lo=10,
        stretch_lock=threading.Lock(),
        careful=False,
        cut_at=None,
        running=SimpleNamespace(out=[None] * (10 + done)),
        claim=lambda *claim: claims.append(claim),
        claims=claims,
        note_memory=lambda: None,
    )


def test_a_stretch_is_cut_off_behind_the_item_that_runs() -> None:
    run = running_stretch(size=8, done=3)
    cut_off(run)
    assert run.stretch == [0, 1, 2, 3]
    assert (run.cut_at, run.claims) == (13, [(Phase.RUNNING, 13, 14)])


def test_a_stretch_that_ends_meanwhile_is_not_spoken_of_any_more() -> None:
    """Else its claim would stand in the place of that for what the main thread has begun since."""
    run = running_stretch(size=8, done=7)
    with run.stretch_lock:  # the main thread has it while it ends the stretch
        watchdog = threading.Thread(target=cut_off, args=(run,))
        watchdog.start()
        wait_until(lambda: len(run.stretch) == 8 and watchdog.is_alive())
        run.running.out.append(None)
        run.stretch = []
    watchdog.join()
    assert (run.cut_at, run.claims) == (None, [])
