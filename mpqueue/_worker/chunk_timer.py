"""The chunk timer: a thread of the worker that handles chunks that take longer than planned.

When a stretch takes 48 ms, or the chunk's time is nearly over, it cuts the stretch off behind the running item, so that
a slow item among tiny ones delays no other item and the ledger names it. When all of the chunk's time is over and that
item still runs, it sends the results before it. Then it sleeps until a chunk is late again. With many workers a chunk
has more time than 50 ms: see `mpqueue._core.rules.chunking`.

A well-planned stretch, or a chunk of at most 50 ms, ends before that, and the next one sets the alarm again: then the
thread does not wake up.
"""

from __future__ import annotations

import _thread
import contextlib
import math
import threading
import weakref

from mpqueue._os import system as clock
from mpqueue._os.alarm import Alarm, make_alarm
from mpqueue._wire.frames import STRETCH_LIMIT, Ended, dump_frame
from mpqueue._wire.memory.ledger import Phase
from mpqueue._worker.chunk_run import ChunkRun, note_memory
from mpqueue._worker.results import NotReadyError

#: The part of a chunk's or stretch's time after which a stretch is cut off behind the running item.
CUT_PART = 0.96
#: The least seconds until its next look: the stretch that it could not cut off is about to end.
MIN_PAUSE_S = 0.001


class ChunkTimer:
    """The chunk timer of a worker's main thread, which sets the current chunk; runs from the first one until `end`."""

    def __init__(self) -> None:
        self.run: ChunkRun | None = None  #: the current chunk
        self._alarm: Alarm | None = None
        self._left: threading.Event | None = None  #: set when the thread has ended
        self._ended = False

    def end(self) -> None:
        """Let the thread end; nothing is watched any more. If the worker is a process, it ends with that."""
        self._ended = True
        if self._left is not None and self._alarm is not None:
            self._set(0.0)
            self._left.wait()
            self._alarm.close()

    def watch(self, run: ChunkRun | None) -> None:
        """Watch a chunk that the main thread begins; None: it has ended one. 2 us."""
        self.run = run
        if run is not None:
            if run.limit > STRETCH_LIMIT:
                run.stretch_begins = self._stretch_begins
            self._set(CUT_PART * run.limit)

    def _stretch_begins(self, run: ChunkRun) -> None:
        """Watch a new stretch of several items, in a chunk whose own time ends later. 2 us."""
        self._set(_late_at(run) - run.stretch_started)

    def _set(self, seconds: float) -> None:
        alarm = self._alarm or self._begin(make_alarm())
        alarm.set(seconds)

    def _begin(self, alarm: Alarm) -> Alarm:
        left = threading.Event()
        # The start of a `threading.Thread` would wait until it runs: 3 to 6 ms, while other workers start.
        try:
            _thread.start_new_thread(self._watch, (alarm, left))
        except RuntimeError:  # no thread is left
            alarm.close()
            raise
        self._alarm, self._left = alarm, left  # only now: no code must wait for the end of a thread that did not start
        return alarm

    def _watch(self, alarm: Alarm, left: threading.Event) -> None:
        """Look at the current chunk whenever the alarm goes off, on the thread."""
        try:
            while True:
                try:
                    alarm.wait()
                except (OSError, ValueError):  # a handler has closed its descriptors
                    return
                if self._ended:
                    return
                self._look()
        finally:
            left.set()

    def _look(self) -> None:
        """Look at the current chunk: if it is late, cut off its stretch and send its results early."""
        run = self.run
        if run is None:
            return
        if clock.monotonic() >= _late_at(run):
            cut_off(run)
        if clock.monotonic() < run.started + CUT_PART * run.limit:
            self._look_later()
            return
        # Weak, since the thread sleeps now: when a chunk is over, its job with its handler can be freed.
        found, pause = weakref.ref(run), run.started + run.limit - clock.monotonic()
        del run
        if pause > 0:
            threading.Event().wait(pause)
        run = self.run
        if run is not None and run is found():
            send_early(run)

    def _look_later(self) -> None:
        """Set the alarm for the current work. If the main thread has begun other work meanwhile, for that."""
        due = 0.0
        while (run := self.run) is not None and (now_due := _late_at(run)) != due:
            due = now_due
            self._set(max(MIN_PAUSE_S, due - clock.monotonic()))


def _late_at(run: ChunkRun) -> float:
    """Return when the current stretch has to be cut off; if it can't be, the latest time of the next one."""
    can_be_cut = len(run.stretch) > 1 and run.cut_at is None and not run.careful
    return min(
        run.started + CUT_PART * run.limit, run.stretch_started + CUT_PART * STRETCH_LIMIT if can_be_cut else math.inf
    )


def cut_off(run: ChunkRun) -> None:
    """End the current stretch behind the running item, and name only that item in the ledger."""
    stretch, lo = run.stretch, run.stretch_lo
    if len(stretch) < 2 or run.careful:
        return
    # The main thread may go on between these lines; items that it has begun meanwhile stay claimed.
    del stretch[len(run.running.out) - lo + 1 :]
    position = len(run.running.out)
    with run.stretch_lock:  # no later claim may be overwritten
        if run.stretch is not stretch or position - lo >= len(stretch):
            return
        run.cut_at = position
        if position > lo:
            note_memory(run.links.ledger)  # time of the items before is not its own
        run.claim(Phase.RUNNING, position, max(position + 1, lo + len(stretch)))


def send_early(run: ChunkRun) -> None:
    """Send finished results, if an item still runs."""
    links, results = run.links, run.results
    with results.lock:
        done = len(run.running.out)
        outbox = links.outbox
        if outbox is None or done <= results.sent:
            return
        if done - run.stretch_lo >= len(run.stretch):
            return  # all have just ended: the main thread notes their costs, and reports them at once
        with contextlib.suppress(NotReadyError):
            report = run.part(done, Ended.DONE, final=False)
            try:
                outbox.leave(dump_frame(report))
            except OSError:  # all of this chunk runs again, since a part of its report is missing; but only once
                links.outbox = None
