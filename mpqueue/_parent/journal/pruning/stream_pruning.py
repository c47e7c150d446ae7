"""What a journal has of a stream and is not needed: items that have changed since, or are to run again and never came.

All of a stream is to run again after another ``version=``, say. Items that have not come since count no more.
"""

from __future__ import annotations

from mpqueue._parent.journal.items.lots import lots_of
from mpqueue._parent.journal.kept_results import Outcomes
from mpqueue._parent.journal.kept_values import no_file
from mpqueue._parent.journal.pruning.compaction import Compacted, JobRows, Run, compact
from mpqueue.status import COMPLETED, PENDING


def prune_stream(run: Run, job: int, slots: int, path: str, *, gone: bool) -> Compacted:
    """`compact` a stream's rows, within the caller's transaction; where ``gone``, forget the items that count no more.

    Raises `JournalError` for a row that is damaged. Takes a byte a slot more than `compact`.
    """
    present, now = bytearray(b"\1") * slots, dict[int, int]()
    lots = lots_of(run, job, path)
    for lot in lots:
        for slot in lot.supersedes(now):
            present[slot] = 0
    forgotten: set[int] = set()
    if gone:
        outcomes = Outcomes(JobRows(run, job, path), no_file, path, slots)
        for slot in outcomes.lost:  # whose row is in a file
            outcomes.status[slot] = COMPLETED
        status = outcomes.status
        counted = [slot for lot in lots for at, slot in enumerate(lot.slots) if at not in lot.gone and present[slot]]
        forgotten.update(slot for slot in counted if status[slot] == PENDING)
        firsts = {first for first, last in now.items() if last in forgotten}  # what has changed is known by them
        for lot in lots:
            places = [at for at, slot in enumerate(lot.slots) if slot in forgotten or slot in firsts]
            if places:
                run(*lot.without(places).change(job))
        for slot in range(slots):
            present[slot] &= status[slot] != PENDING
    return compact(run, job, slots, present, path)._replace(items=len(forgotten))
