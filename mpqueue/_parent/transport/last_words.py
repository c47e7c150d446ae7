"""Log records that come without a report: of a worker that died, left in its outbox's file; of a setup's end."""

from __future__ import annotations

from collections.abc import Sequence

from mpqueue._core.commands import AnnounceRecords
from mpqueue._core.messages import RecordsLeft
from mpqueue._core.state.job_book import JobBook
from mpqueue._parent.lane_protocol import Lane
from mpqueue._wire.records import load_record, load_unsent


def records_of(job: JobBook, lane: int, records: Sequence[bytes]) -> AnnounceRecords:
    """What a worker logged while it forgot that job."""
    return AnnounceRecords(job, lane, [load_record(record) for record in records])


def last_words(lane: Lane) -> RecordsLeft | None:
    """What a dead worker had logged and not sent, where there is any."""
    unsent = load_unsent(lane.take_unsent())
    if unsent is None:
        return None
    number, records = unsent
    return RecordsLeft(lane.number, lane.generation, number, records) if records else None
