"""Runs of jobs that never ran: what reports would have told, written into a job's books."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mpqueue._core.messages import ChunkReported
from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.pending import Care
from mpqueue._options import JobOptions
from mpqueue._wire.frames import Ended, WorkTimes
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus

#: What each second of a worker is counted as, one of these.
WAITING = (
    *("starting", "replacing", "lost", "for_pickling", "for_unpickling", "for_parent", "for_transfer", "idle"),
    *("held", "others"),
)
WORKING = ("under_way", "loading", "setup", "unpacking", "handling", "packing", "overhead")

#: When the runs begin, by the monotonic clock.
START = 100.0


class Run:
    """One run of a job: `chunk` after `chunk`, then `end`. Moments are seconds since its start."""

    def __init__(
        self,
        items: Sequence[Any] = range(1000),
        lanes: int = 1,
        ready: bool = True,
        job_id: str = "job",
        **options: Any,
    ) -> None:
        self.book = JobBook(1, job_id, make_table(items), JobOptions(RetryPolicy(), **options), None)
        self.book.status, self.book.started_at, self.book.epoch = JobStatus.RUNNING, 1e9, 1
        self.timings = self.book.timings
        self.timings.begin(START, lanes, (1 << lanes) - 1 if ready else 0)
        self._next = 0
        self._numbers = 0

    def chunk(
        self,
        begun: float,
        ended: float,
        *,
        lane: int = 0,
        items: int = 1,
        first: int = 0,
        left: float | None = None,
        pickling: float = 0.0,
        way: float = 0.0,
        decoding: float = 0.0,
        waiting: float = 0.0,
        size: int = 0,
        stretches: Sequence[tuple[int, float, float]] | None = None,
        **times: float,
    ) -> None:
        """A chunk that was sent at ``left`` and had been in the worker's hands from ``begun`` to ``ended``.

        The ``first`` items of it came in the last report. What is not told of that time was in the handler. ``way`` is
        what the answer took to come home, ``waiting`` how long it waited there for the coordinator.
        """
        indices = range(self._next - first, self._next + items)
        self._next += items
        self._numbers += 1
        left_at = START + (begun if left is None else left)
        chunk = Chunk(self._numbers, self.book, indices, Care.NONE, 0.0, left_at - pickling)
        chunk.packing, chunk.left_at, chunk.size = pickling, left_at, size
        parts = dict.fromkeys(("loading", "setup", "unpacking", "packing", "cpu", "delayed"), 0.0) | times
        used = parts["loading"] + parts["setup"] + parts["unpacking"] + parts["packing"]
        parts.setdefault("handling", ended - begun - used)
        if "cpu" not in times:
            parts["cpu"] = parts["handling"]
        received = START + ended + way
        pace = parts["handling"] / items
        report = ChunkReported(
            lane=lane,
            generation=0,
            chunk=chunk.number,
            first=first,
            done=first + items,
            results=[None] * items,
            failures={},
            stretches=[(items, pace, math.nan)] if stretches is None else stretches,
            busy=ended - begun,
            ended=Ended.DONE,
            times=WorkTimes(begun=START + begun, ended=START + ended, **parts),
            size=size,
            received=received,
            decoded=received + decoding,
        )
        self.timings.add(lane, chunk, report, received + decoding + waiting)
        self.book.table.note_times(indices[first:], report.stretches)
        self.book.table.complete(indices[first:], [None] * items)
        self.book.completed += items

    def end(self, at: float) -> JobBook:
        """The job ends; the books of it."""
        self.book.status = JobStatus.COMPLETED
        self.timings.finish(START + at)
        return self.book
