"""The size of chunks: a pure function of what is known about the job.

A chunk aims at a duration. The first items go out one by one; sizes then grow at most 64-fold from one report to
the next, since the first items are often slow for reasons of their own (imports, caches). Towards the end a lane gets
most of what it has to run yet for all lanes to finish together, given what each of them holds, and the rest when more
is known. (Factoring, by Hummel, Schonberg and Flynn, 1992, looks only at what waits, and takes twice as many chunks.)

Items that turn out to take longer make chunks small at once (what is known of an item's time and what the last report
says are averaged). When they take less again, the geometric mean of the two has chunks as long as before after four of
them, even if an item of a thousand times the others' length has come between. An average would take ten.

The duration is the engine's, as long as there are few lanes. With more it grows with their number, so that the process
through which all chunks go has the same number of them a second, however many lanes there are
(docs/explanation/scale.md).
"""

from __future__ import annotations

import math

from mpqueue._core.capabilities import Capabilities
from mpqueue._wire.memory.ledger import MAX_CHUNK_ITEMS
from mpqueue._wire.pace import CHUNK_SECONDS, LIMIT

#: The part of a CPU that the chunks of all lanes may take, in the process through which all of them go. As much again
#: is left for ends of jobs, where chunks are smaller, and for machines that are slower than the one that was measured.
SHARE = 0.28
#: Seconds that a chunk aims at at most: so long another job waits for the lane, and so much of what has run is lost
#: with a worker.
LONGEST = 5.0
#: After so many times of that a worker ends a chunk that is longer than the engine's.
LONG_LIMIT = 4 / 3
#: The part of what chunks aim at below which one is not worth cutting up, even at the end: to send it costs 1 ms.
SMALLEST = 0.05
#: The end begins where each lane's share of what waits is less than so many chunks: what lanes hold matters from there.
END = 3
#: The part that a lane gets at once of what it should have to finish with the others: the less, the more uneven the
#: items' times were so far, between these two. A wrong guess is mended with the rest, by smaller chunks.
LEAST_OF_SHARE, MOST_OF_SHARE = 0.5, 0.9
#: A chunk holds at most this many times the items of the largest one that came back.
GROWTH = 64
#: Items of the largest chunk from which on what is known of an item's time counts beside what the last report says.
SETTLED = 16
#: A lane gets a second chunk in advance only where the first, and an item, take less than so many of the engine's
#: chunks: beside a long one the way there and back is short.
PREFETCH_BELOW = 2.5
#: Seconds that an item takes at least, whatever a clock says.
LEAST_PACE = 1e-9
#: Bytes of pickled items that a chunk aims at, at most, unless the engine says otherwise; of results twice as many, at
#: most: they arrive at once, and may have to wait for a journal's disk.
TARGET_BYTES = 4 << 20
RESULTS_OF_ITEMS = 2
#: What is known of the size of a result falls by this factor with each report at most.
SMALLER = 0.75
#: A stream holds items for so many seconds of all lanes, or for so many of the chunks that they get, but at least so
#: many for each and at most so many in all, and at most so many bytes of them.
AHEAD_SECONDS = 0.25
AHEAD_CHUNKS = 3
LEAST_AHEAD = 4
MOST_AHEAD = 100_000
AHEAD_BYTES = 256 << 20
#: Bytes of an item from which on it may be in a file of its own, and how many of those a stage holds at most.
BIG_ITEM, MOST_BIG = 16 << 10, 64


def aim(engine: Capabilities, lanes: int) -> float:
    """The seconds that a chunk aims at, where the engine has so many lanes."""
    return max(engine.chunk_seconds, min(lanes * engine.chunk_cost / SHARE, LONGEST))


def limit(engine: Capabilities, seconds: float) -> float:
    """The seconds after which a worker ends a chunk that aims at so many, between two items.

    A long one gets more time: its end by the clock would be one report more, and often only a few items early.
    """
    return (LIMIT if seconds <= engine.chunk_seconds else LONG_LIMIT) * seconds


class ChunkSizer:
    """The figures of one job's items that sizes follow from: how long they take, how large they and their results are.

    ``chunk_seconds`` is what chunks of the engine aim at where there are few lanes, ``aim`` what they aim at now.
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
        self.most_bytes = 0.0  #: that items or results of one chunk have had on average
        #: By which part an item's time in one report differs from what was known: 0 where all take the same.
        self._unevenness = 1.0

    def begin(self, engine: Capabilities, lanes: int) -> None:
        """The job starts on this engine, which has so many lanes."""
        self.chunk_seconds, self.chunk_cost, self.aim = engine.chunk_seconds, engine.chunk_cost, aim(engine, lanes)
        self.chunk_bytes = engine.chunk_bytes

    def learn(self, items: int, seconds: float) -> None:
        """A chunk came back: so many items ran in so many seconds."""
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
        """So many items were pickled into so many bytes."""
        self._bytes_per_item = size / items
        self.most_bytes = max(self.most_bytes, self._bytes_per_item)

    def learn_results(self, items: int, size: int) -> None:
        """The results of so many items have so many bytes."""
        self._bytes_per_result = max(size / items, SMALLER * self._bytes_per_result)
        self.most_bytes = max(self.most_bytes, size / items)

    def window(self, lanes: int) -> int:
        """Return how many items a stream should hold, to keep so many lanes busy."""
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
        """Return how many items a stage may have that have not ended, to keep so many lanes busy.

        Where items, or the results of the stage ``before``, have once been big, each may be a file.
        """
        most = self.window(lanes)
        is_big = max(self.most_bytes, before.most_bytes) >= BIG_ITEM
        return min(most, max(MOST_BIG, LEAST_AHEAD * lanes)) if is_big else most

    @property
    def may_prefetch(self) -> bool:
        """True where a lane may hold a second chunk while it runs the first, if that `is_short`."""
        return self.seconds_per_item is not None and self.is_short(self.seconds_per_item)

    def is_short(self, seconds: float) -> bool:
        """True where it takes so little time that the way to the worker and back is worth to be saved."""
        return seconds < PREFETCH_BELOW * self.chunk_seconds

    def nears_end(self, pending: int, lanes: int) -> bool:
        """True where so few items wait that the next chunk's size depends on what the lanes still hold."""
        if self._explicit is not None or self.seconds_per_item is None:
            return False
        return pending * self.seconds_per_item < END * lanes * self.aim

    def size(self, pending: int, lanes: int, held: float = 0.0, own: float = 0.0) -> int:
        """Items for the next chunk, of ``pending`` ones, with ``lanes`` lanes to share them.

        These still hold work for ``held`` seconds, all together; the one that gets the chunk for ``own`` of them.
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
        # To hand out all that is left in smaller chunks would take longer than one of them does.
        least = max(SMALLEST * self.chunk_seconds, math.sqrt(work * self.chunk_cost))
        at_the_end = max(part * share, least) / pace
        size = min(by_time, self._largest * GROWTH, at_the_end, MAX_CHUNK_ITEMS)
        if self._bytes_per_item:
            size = min(size, self.chunk_bytes / self._bytes_per_item)
        if self._bytes_per_result:
            size = min(size, RESULTS_OF_ITEMS * self.chunk_bytes / self._bytes_per_result)
        return max(1, min(int(size), pending))
