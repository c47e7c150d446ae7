"""What a worker that died had logged and not sent: read from its outbox's file, where each record is left at once."""

from __future__ import annotations

import contextlib

from mpqueue._core.books import Books
from mpqueue._core.commands import AnnounceRecords
from mpqueue._engine.protocol import Lane
from mpqueue._wire.ledger import UNSENT, UNSENT_AT
from mpqueue._wire.records import load_unsent


def last_words(lane: Lane, books: Books) -> AnnounceRecords | None:
    """The records, where there are any and the job that they are of is known."""
    size = lane.ledger.words[UNSENT]
    if not size:
        return None
    with contextlib.suppress(Exception):  # a worker that dies of wild writes may leave anything
        number, records = load_unsent(lane.read_outbox(size, UNSENT_AT))
        chunk = books.lanes[lane.number].find(number)
        if chunk is not None and records:
            chunk.job.spoke = True
            return AnnounceRecords(chunk.job, lane.number, records)
    return None
