"""The watchdog: a thread of the worker that looks after chunks that take longer than planned.

When a chunk's time is nearly over, 45 ms after its start, it cuts the stretch at hand off behind the item that runs,
so that a slow item among tiny ones holds nobody up and the ledger names it. When all of it is over and that item still
runs, it sends home what had finished before it. Then it sleeps until the next chunk.

A well-planned chunk is over before the first look; the thread wakes up 40 times a second at most, and not at all
when the worker has been idle, or in one item, for a second.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable

from mpqueue._wire.frames import Ended
from mpqueue._wire.ledger import OUTBOX, Phase
from mpqueue._wire.payload import dump_frame
from mpqueue._worker.chunk_run import ChunkRun
from mpqueue._worker.results import NotReadyError

#: The part of a chunk's time after which a stretch is cut off behind the item that runs.
CUT = 0.9
#: Seconds between two looks whether there is a chunk.
NAP_SECONDS = 0.025
#: How many times it looks in vain before it has to be woken, which costs the main thread 50 us at a chunk's start.
NAPS = 40


class Watchdog:
    """Owned by the worker's main thread, which says what it runs; started with the first chunk, ended by `end`."""

    def __init__(self) -> None:
        self._run: ChunkRun | None = None
        self._asleep = True
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._ended = False

    def end(self) -> None:
        """Let the thread end; nothing is watched any more. Where the worker is a process, it ends with that."""
        self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def run(self) -> ChunkRun | None:
        """The chunk at hand."""
        return self._run

    def watch(self, run: ChunkRun | None) -> None:
        """The main thread begins a chunk, or (None) has ended one."""
        self._run = run
        if run is not None and self._asleep:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="mpqueue-watchdog", daemon=True)
                self._thread.start()
            self._wake.set()

    def _loop(self) -> None:
        seen: weakref.ref[ChunkRun] | None = None
        naps = 0
        while not self._ended:
            # Said before the look at _run, as the main thread sets _run before it looks at this: one of both sees.
            self._asleep = naps >= NAPS
            found = self._at_hand()
            if found is None or found is seen:
                self._wake.wait(None if self._asleep else NAP_SECONDS)
                naps = 0 if self._wake.is_set() else naps + 1
                self._wake.clear()
                continue
            self._asleep, naps = False, 0
            if self._when_late(found, CUT, cut_off) and self._when_late(found, 1.0, send_early):
                seen = found

    def _at_hand(self) -> weakref.ref[ChunkRun] | None:
        """Weak, since this thread sleeps long: when a chunk is over, its job and all that the handler holds may go."""
        run = self._run
        return None if run is None else weakref.ref(run)

    def _when_late(self, found: weakref.ref[ChunkRun], part: float, act: Callable[[ChunkRun], None]) -> bool:
        """Sleep until that part of the chunk's time is over; where it still runs then, act, and return True."""
        run = found()
        if run is None:
            return False
        pause = run.started + part * run.station.chunk_limit - time.monotonic()
        del run
        if pause > 0:
            threading.Event().wait(pause)
        run = self._run
        if run is None or run is not found():
            return False
        act(run)
        return True


def cut_off(run: ChunkRun) -> None:
    """End the stretch at hand behind the item that runs, and name only that item in the ledger."""
    stretch, lo = run.stretch, run.stretch_lo
    if len(stretch) < 2 or run.careful:
        return
    # The main thread may go on between these lines; whatever it has begun meanwhile stays claimed.
    del stretch[len(run.running.out) - lo + 1 :]
    position = len(run.running.out)
    with run.stretch_lock:  # no claim of what comes after the stretch may be overwritten
        if run.stretch is not stretch or position - lo >= len(stretch):
            return
        run.cut_at = position
        if position > lo:
            run.note_memory()  # what the items before it took is not its own
        run.claim(Phase.RUNNING, position, max(position + 1, lo + len(stretch)))


def send_early(run: ChunkRun) -> None:
    """Put what has finished into the outbox and ring, where an item is still running and the outbox is free."""
    station, results = run.station, run.results
    with results.lock:
        done = len(run.running.out)
        outbox = station.outbox
        if outbox is None or done <= results.sent or not run.stretch or station.ledger.words[OUTBOX]:
            return
        with contextlib.suppress(NotReadyError):
            outbox.leave(dump_frame(run.part(done, Ended.DONE, final=False)))
