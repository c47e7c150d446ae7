"""Items that may have ended their program: how far each is suspected, and what follows from that.

A program that ended without closing its journal is no item's fault as a rule: it was killed. So its end counts against
an item only if nothing else was with a worker. What was there beside others is suspected: it runs in a chunk of its
own, and, where that happened `BESIDE` times, while nothing else runs. From then on each end while it runs alone counts.

How far is one number: up to `BESIDE` the ends beside others, above that the ends that count.
"""

from __future__ import annotations

from collections.abc import Collection

from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.pending import Care
from mpqueue._parent.journal.guards.running_marks import RunningMark
from mpqueue.errors import WorkerCrashedError

#: Ends beside other items after which nothing runs beside an item.
BESIDE = 2
#: Ends that count after which an item has failed, at least; else as many as it has tries.
LEAST_ENDS = 3


def suspect(counts: dict[int, int], mark: RunningMark) -> None:
    """A program ended while these items of a job were with a worker."""
    for slot in mark.slots:
        before = counts.get(slot, 0)
        counts[slot] = max(before, BESIDE) + 1 if mark.alone else max(before, min(before + 1, BESIDE))


def is_guilty(count: int, max_retries: int) -> bool:
    """True for an item that has failed, since it ends its program."""
    return count - BESIDE >= max(LEAST_ENDS, max_retries + 1)


def care_of(count: int) -> Care:
    """How an item is handled that is suspected so far."""
    return Care.APART if count >= BESIDE else Care.ALONE


def ended_program(count: int) -> Failure:
    """The failure of an item that ends its program."""
    text = f"the program ended {count - BESIDE} times while this item ran alone, and did not close its journal"
    return Failure(WorkerCrashedError(text), text=text)


def ends_that_tell(marks: Collection[RunningMark]) -> Collection[RunningMark]:
    """What was with workers: where an item was alone, what is marked beside it had ended before."""
    return [mark for mark in marks if mark.alone] or marks
