"""Log records that come without a report: of a worker that died, left in its outbox's file; of a setup's end."""

from __future__ import annotations

from collections.abc import Sequence

from mpqueue._core.commands import AnnounceRecords
from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._parent.lane_protocol import Lane
from mpqueue._wire.records import load_record, load_unsent


def records_of(job: JobBook, lane: int, records: Sequence[bytes]) -> AnnounceRecords:
    """What a worker logged while it forgot that job."""
    return AnnounceRecords(job, lane, [load_record(record) for record in records])


def last_words(lane: Lane, books: Books) -> AnnounceRecords | None:
    """The records, where there are any and the job that they are of is known."""
    unsent = load_unsent(lane.take_unsent())
    if unsent is None:
        return None
    number, records = unsent
    chunk = books.lanes[lane.number].find(number)
    if chunk is None or not records:
        return None
    chunk.job.spoke = True
    return AnnounceRecords(chunk.job, lane.number, records)
