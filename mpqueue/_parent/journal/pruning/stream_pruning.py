"""What a journal has of a stream and is not needed: rows that count no more, and files that no row names.

A row counts no more once all of the stream is to run again, because of another ``version=`` say, and its item has not
come since. A row that is replaced leaves the files of its big results behind.
"""

from __future__ import annotations

import pickle
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any

from mpqueue._parent.journal.items.streams.told import Named, read_row
from mpqueue._parent.journal.pruning.compaction import Compacted, files_of
from mpqueue.status import COMPLETED, FAILED

ROWS = "SELECT number, identity, nth, status, body FROM stream_items WHERE job = ?"
COUNT = "UPDATE jobs SET completed = completed - ?, failed = failed - ?, total = total - ? WHERE number = ?"


def prune_stream(run: Callable[..., Any], job: int, generation: int, path: str, *, gone: bool) -> Compacted:
    """Forget the rows of earlier generations, if ``gone``, within the caller's transaction; says which files may go.

    Raises `JournalError` for a row that is damaged. Reads each row, and takes 8 bytes for each that goes.
    """
    names = {row[0] for row in run("SELECT name FROM files WHERE job = ?", (job,))}
    if not names and not (gone and generation > 1):
        return Compacted()
    outdated, statuses = array("q"), Counter[int]()
    for number, identity, nth, status, body in run(ROWS, (job,)):
        told = read_row(body, Named(identity, nth), job, path)
        if gone and told.generation < generation:
            outdated.append(number)
            statuses[status] += 1
        elif isinstance(told.outcome, bytes):
            names -= files_of(pickle.loads(told.outcome))
    for number in outdated:
        run("DELETE FROM stream_items WHERE number = ?", (number,))
    run(COUNT, (statuses[COMPLETED], statuses[FAILED], len(outdated), job))
    return Compacted(0, len(outdated), frozenset(names))
