"""Memory: workers that have too much of it, the cause, and a machine with little left.

A worker ends its chunk by itself, between two items, if it is over its limit, or has grown with each of the last items
such that it soon will be; then it is replaced and no item is charged. The decisions here are about workers seen over
their limit within an item:

- If the item's own part is the larger one (it has at least doubled its worker's memory), it is killed and charged.
- Otherwise earlier items are to blame. The item may end by itself until the next look; then it is killed too, not
  charged, and runs again *apart*: in a new worker, while nothing else runs. There it is charged in any case.

A worker that has too much before its first item still runs one item, and is then replaced. That item is judged by its
own part.

If the machine has almost nothing left although no new items are sent, the largest worker is killed before the system
kills one, or this process; its item is not charged and runs again apart. One worker always goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpqueue._core.commands import Warn
from mpqueue._core.messages import MemoryRead, WorkerMemory
from mpqueue._core.rules.overdue import kill
from mpqueue._core.state.books import Books
from mpqueue._core.state.lane_book import LaneBook, LaneState, Verdict, Why
from mpqueue._core.state.pending import Care
from mpqueue._wire.memory.ledger import Phase


def memory_read(books: Books, message: MemoryRead) -> None:
    """Act on a look at the memory."""
    books.headroom.look(message, books.now)
    for worker in message.workers:
        lane = books.live_lane(worker.lane, worker.generation)
        if lane is not None and lane.state is LaneState.READY:
            _judge(books, lane, worker)
    if message.available is not None and books.headroom.scarce:
        _give_way(books, message.workers)


def _give_way(books: Books, workers: Sequence[WorkerMemory]) -> None:
    """Kill the largest of the workers that run one item, unless it is the only one that runs anything."""
    if books.at_work.bit_count() < 2 or any(lane.state is LaneState.DYING for lane in books.lanes):
        return  # a dying worker is about to free its memory
    for worker in sorted(workers, key=lambda worker: -worker.used):
        lane, claim = books.live_lane(worker.lane, worker.generation), worker.claim
        chunk = None if lane is None else lane.find_claimed(claim)
        if lane is not None and chunk is not None and claim.phase is Phase.RUNNING and claim.hi - claim.lo == 1:
            kill(books, lane, Verdict(Why.MEMORY, chunk.number, claim.lo, charged=False, used=worker.used))
            return


def _judge(books: Books, lane: LaneBook, worker: WorkerMemory) -> None:
    most, claim = books.max_memory, worker.claim
    if most is not None and claim.lo == 0 and worker.base > most and claim.phase is not Phase.IDLE:
        # A worker that has run items ends a chunk in this state: this one has run none.
        most += worker.base
    if most is None or worker.used <= most:
        lane.over = None
        return
    chunk = lane.find_claimed(claim)
    about_to_begin = claim.phase is Phase.UNPACKING and claim.lo == claim.hi
    if chunk is None or claim.phase is Phase.IDLE or about_to_begin:
        _judge_between_items(books, lane, worker.used, most)
        return
    seen = (claim.chunk, claim.lo, claim.since)
    again, lane.over = lane.over == seen, seen
    if claim.phase is Phase.LOADING:
        if again:
            kill(books, lane, Verdict(Why.MEMORY, chunk.number, claim.lo, used=worker.used))
        return
    # It may be packing the results of several items that ran under one mark.
    culprit = claim.phase is not Phase.PACKING and claim.hi - claim.lo == 1 and worker.used - worker.base >= worker.base
    if culprit or again:
        charged = culprit or chunk.care is Care.APART
        kill(books, lane, Verdict(Why.MEMORY, chunk.number, claim.lo, charged, worker.used, since=claim.since))


def _judge_between_items(books: Books, lane: LaneBook, used: int, most: int) -> None:
    """Replace the worker; but one that has run nothing would be followed by another like it, without end."""
    if lane.chunks:
        return  # it notices that itself at the next item
    if lane.tries > 0:
        books.renew_later(lane)
    elif not books.base_warned:
        books.base_warned = True
        books.commands.append(
            Warn(
                f"worker {lane.number} has {megabytes(used)} of private memory before it has run any item, more than "
                f"per_worker['memory'] of {megabytes(most)}: each worker is replaced after one item"
            )
        )


def megabytes(count: int) -> str:
    """The number of bytes as text for people, in megabytes."""
    return f"{count / 1e6:,.0f} MB"
