"""The size of chunks: a pure function of the known facts about the job.

A chunk aims at a duration. The first items are sent one by one, until one has shown how long they take. If it was an
unusually quick one, workers end their chunks in time, and the rest is sent again. Towards the end a lane gets most of
its share, with which all lanes would finish together given the items that they hold, and the rest when more is known.
(Factoring, by Hummel, Schonberg and Flynn, 1992, looks only at waiting items, and takes twice as many chunks.)

If items take longer than known, chunks become small at once (the known time and that of the last report are averaged).
If they take less again, the geometric mean of the two restores the length after four chunks, even if one item was 1,000
times longer than the others. An average would take ten.

The duration is the engine's, as long as there are few lanes. With more it grows with their number, so that the process
through which all chunks go handles the same number per second for any number of lanes (docs/explanation/scale.md).
"""

from __future__ import annotations

import math

from mpqueue._core.commands import Capabilities
from mpqueue._wire.frames import CHUNK_SECONDS, LIMIT
from mpqueue._wire.memory.ledger import MAX_CHUNK_ITEMS

#: The part of a CPU that the chunks of all lanes may take, in the process through which all of them go. As much again
#: is left for ends of jobs, where chunks are smaller, and for slower machines than the measured one.
SHARE = 0.28
#: The longest target time of a chunk, in seconds: another job waits that long for the lane, and that much work is lost
#: with a worker.
LONGEST = 10.0
#: As a multiple of the target time: when a worker ends a chunk that is longer than the engine's.
LONG_LIMIT = 4 / 3
#: The part of the target time below which a chunk is not worth splitting, even at the end: sending it costs 1 ms.
SMALLEST = 0.05
#: The end begins when each lane's share of waiting items is less than this many chunks: then the items on lanes matter.
END = 3
#: The part that a lane gets at once of its share for finishing with the others, between these two: the more uneven the
#: items' times so far, the less. A wrong guess is corrected with the rest, by smaller chunks.
LEAST_OF_SHARE, MOST_OF_SHARE = 0.5, 0.9
#: Items of the largest chunk from which on the known time of an item counts beside that of the last report.
SETTLED = 16
#: A lane gets a second chunk in advance only if the first, and an item, take less than this many of the engine's
#: chunks: compared with a long chunk, the way there and back is short.
PREFETCH_BELOW = 2.5
#: The least seconds of an item, even if a clock says less.
LEAST_PACE = 1e-9
#: The most bytes of pickled items that a chunk aims at, unless the engine sets another number; of results twice as
#: many: they arrive together, and may have to wait for a journal's disk.
TARGET_BYTES = 4 << 20
RESULTS_OF_ITEMS = 2
#: The known size of a result falls at most by this factor with each report.
SMALLER = 0.75
#: A stream holds items for this many seconds of all lanes, or for this many of their chunks, but at least this many per
#: lane and at most this many in total, and at most this many bytes.
AHEAD_SECONDS = 0.25
AHEAD_CHUNKS = 3
LEAST_AHEAD = 4
MOST_AHEAD = 100_000
AHEAD_BYTES = 256 << 20
#: Bytes of an item from which on it may be in its own file, and the most of those that a stage holds.
BIG_ITEM, MOST_BIG = 16 << 10, 64


def aim(engine: Capabilities, lanes: int) -> float:
    """The seconds that a chunk aims at, if the engine has that many lanes."""
    return max(engine.chunk_seconds, min(lanes * engine.chunk_cost / SHARE, LONGEST))


def limit(engine: Capabilities, seconds: float) -> float:
    """The seconds after which a worker ends a chunk with that target time, between two items.

    A long one gets more time: ending it would cost one more report, often only a few items early.
    """
    return (LIMIT if seconds <= engine.chunk_seconds else LONG_LIMIT) * seconds


class ChunkSizer:
    """The figures of one job's items that determine sizes: their times, their bytes, and those of their results.

    ``chunk_seconds`` is the engine's target time of chunks for few lanes, ``aim`` the current one.
    """

    def __init__(self, explicit: int | None) -> None:
        self._explicit = explicit
        self.chunk_seconds = self.aim = CHUNK_SECONDS
        self.chunk_cost = 0.0
        self._largest = 0
        self.seconds_per_item: float | None = None
        self.chunk_bytes = TARGET_BYTES
        self._bytes_per_item = 0.0
        self._bytes_per_result = 0.0
        self.most_bytes = 0.0  #: the most average bytes of items or results in a chunk
        #: The part by which an item's time in one report differs from the known time: 0 if all take the same.
        self._unevenness = 1.0

    def begin(self, engine: Capabilities, lanes: int) -> None:
        """Begin the job on this engine, which has that many lanes."""
        self.chunk_seconds, self.chunk_cost, self.aim = engine.chunk_seconds, engine.chunk_cost, aim(engine, lanes)
        self.chunk_bytes = engine.chunk_bytes

    def learn(self, items: int, seconds: float) -> None:
        """Learn from a chunk that came back: that many items ran in that many seconds."""
        if items <= 0:
            return
        self._largest = max(self._largest, items)
        latest = max(seconds / items, LEAST_PACE)
        known = self.seconds_per_item
        if known is not None:
            self._unevenness = 0.5 * (self._unevenness + abs(latest - known) / max(latest, known))
        if known is None or self._largest < SETTLED:
            self.seconds_per_item = latest
        else:
            self.seconds_per_item = 0.5 * (known + latest) if latest > known else math.sqrt(known * latest)

    def learn_bytes(self, items: int, size: int) -> None:
        """Learn the bytes of that many pickled items."""
        self._bytes_per_item = size / items
        self.most_bytes = max(self.most_bytes, self._bytes_per_item)

    def learn_results(self, items: int, size: int) -> None:
        """Learn the size of the results of that many items."""
        self._bytes_per_result = max(size / items, SMALLER * self._bytes_per_result)
        self.most_bytes = max(self.most_bytes, size / items)

    def window(self, lanes: int) -> int:
        """Return how many items a stream should hold, to keep that many lanes busy."""
        least = LEAST_AHEAD * lanes
        if self.seconds_per_item is None:
            return least
        seconds = max(AHEAD_SECONDS, AHEAD_CHUNKS * self.aim)
        ahead = min(seconds * lanes / self.seconds_per_item, MOST_AHEAD)
        held = max(self._bytes_per_item, self._bytes_per_result)
        if held:
            ahead = min(ahead, AHEAD_BYTES / held)
        return max(least, int(ahead))

    def between_stages(self, lanes: int, before: ChunkSizer) -> int:
        """Return how many unfinished items a stage may have, to keep that many lanes busy.

        If items, or results of the stage ``before``, have ever been big, each may be a file.
        """
        most = self.window(lanes)
        is_big = max(self.most_bytes, before.most_bytes) >= BIG_ITEM
        return min(most, max(MOST_BIG, LEAST_AHEAD * lanes)) if is_big else most

    @property
    def may_prefetch(self) -> bool:
        """True if a lane may hold a second chunk while it runs the first one, if that `is_short`."""
        return self.seconds_per_item is not None and self.is_short(self.seconds_per_item)

    def is_short(self, seconds: float) -> bool:
        """True if it takes so little time that saving the way to the worker and back matters."""
        return seconds < PREFETCH_BELOW * self.chunk_seconds

    def nears_end(self, pending: int, lanes: int) -> bool:
        """True if so few items wait that the next chunk's size depends on the items on lanes."""
        if self._explicit is not None or self.seconds_per_item is None:
            return False
        return pending * self.seconds_per_item < END * lanes * self.aim

    def size(self, pending: int, lanes: int, held: float = 0.0, own: float = 0.0) -> int:
        """Return the number of items for the next chunk, of ``pending`` ones that ``lanes`` lanes share.

        These lanes together still hold work for ``held`` seconds; the lane of the chunk for ``own`` of them.
        """
        if self._explicit is not None:
            return min(self._explicit, pending, MAX_CHUNK_ITEMS)
        if self.seconds_per_item is None:
            return 1
        pace = self.seconds_per_item
        by_time = self.aim / pace
        work = pending * pace + held
        share = work / lanes - own
        part = min(MOST_OF_SHARE, max(LEAST_OF_SHARE, 1.0 - self._unevenness))
        # Handing out the rest in smaller chunks would take longer than one of them does.
        least = max(SMALLEST * self.chunk_seconds, math.sqrt(work * self.chunk_cost))
        at_the_end = max(part * share, least) / pace
        size = min(by_time, at_the_end, MAX_CHUNK_ITEMS)
        if self._bytes_per_item:
            size = min(size, self.chunk_bytes / self._bytes_per_item)
        if self._bytes_per_result:
            size = min(size, RESULTS_OF_ITEMS * self.chunk_bytes / self._bytes_per_result)
        return max(1, min(int(size), pending))
