"""What a journal has of a stream and is not needed: items that have changed since, or are to run again and never came.

All of a stream is to run again after another ``version=``, say. Items that have not come since count no more.
"""

from __future__ import annotations

from mpqueue._parent.journal.items.lots import read_added
from mpqueue._parent.journal.pruning.compaction import Compacted, JobRows, Run, compact
from mpqueue.status import COMPLETED, PENDING

LOTS = "SELECT first, count, body FROM added_items WHERE job = ? ORDER BY first"


def prune_stream(run: Run, job: int, slots: int, path: str, *, gone: bool) -> Compacted:
    """`compact` a stream's rows, within the caller's transaction; where ``gone``, forget the items that count no more.

    Raises `JournalError` for a row that is damaged. Takes two bytes a slot more than `compact`.
    """
    present, now = bytearray(b"\1") * slots, dict[int, int]()
    lots = [read_added(first, count, body, job, path) for first, count, body in run(LOTS, (job,)).fetchall()]
    for lot in lots:
        for slot in lot.supersedes(now):
            present[slot] = 0
    forgotten = 0
    if gone:
        rows, status = JobRows(run, job, path), bytearray(slots)
        for number in rows.numbers:
            row = rows.read(number)
            told = row.content.get("status", bytes((COMPLETED,)) * len(row.slots))  # else it is in a file
            for slot, code in zip(row.slots, told, strict=True):
                status[slot] = code
        for lot in lots:
            places = [
                at
                for at, slot in enumerate(range(lot.first, lot.first + lot.size))
                if at not in lot.gone and present[slot] and status[slot] == PENDING
            ]
            if places:
                run(*lot.without(places).change(job))
                forgotten += len(places)
        for slot in range(slots):
            present[slot] &= status[slot] != PENDING
    return compact(run, job, slots, present, path)._replace(items=forgotten)
