"""The recorder: what the scheduler announces goes into the journal on its way to those who are told.

It stands between the coordinator and the announcements' readers, on the coordinator's thread. An announcement goes on
at once, but where an item of it took longer than a group commit, brought something big, or ended its job: that is on
disk before anybody hears of it, and what comes after it in the same job waits for its turn.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from mpqueue._core.commands import (
    AnnounceFinished,
    AnnounceItems,
    AnnounceRecords,
    AnnounceStarted,
    AnnounceState,
)
from mpqueue._core.messages import JobPaused, JobResumed
from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._parent.journal.chunk_rows import make_row
from mpqueue._parent.journal.journal_file import Statement
from mpqueue._parent.journal.journal_writer import GROUP, Entry, Journal
from mpqueue._parent.journal.kept_values import BigFile
from mpqueue.errors import JournalError, shown
from mpqueue.status import FAILED, JobStatus

if TYPE_CHECKING:
    from mpqueue._parent.coordinator import Coordinator

log = logging.getLogger("mpqueue")

Announcement = AnnounceStarted | AnnounceItems | AnnounceRecords | AnnounceState | AnnounceFinished
Forward = Callable[[Any], None]

ADD_CHUNK = "INSERT INTO chunks (job, body) VALUES (?, ?)"
COUNTS = "UPDATE jobs SET completed = ?, failed = ?, retries = ? WHERE number = ?"
STARTED = "UPDATE jobs SET status = ?, started_at = ?, finished_at = NULL, duration = NULL, failed = ? WHERE number = ?"
STATUS = "UPDATE jobs SET status = ? WHERE number = ?"
ENDED = "UPDATE jobs SET status = ?, started_at = ?, finished_at = ?, duration = ? WHERE number = ?"


@dataclass(slots=True)
class _Held:
    """An announcement that waits: until it is on disk, or (``ready``) for one before it."""

    forward: Forward
    announcement: Announcement
    ready: bool


@dataclass(slots=True)
class Recording:
    """What is known of a job's place in the journal. ``number`` is its number there."""

    number: int
    tries_kept: dict[int, int] = field(default_factory=dict)  #: failed tries that are in the journal, by item
    failed: set[int] = field(default_factory=set)  #: items that the journal has as failed
    unkept: frozenset[int] = frozenset()  #: items that are too big to be kept, unless they fail
    complained: bool = False
    held: deque[_Held] = field(default_factory=deque)


class Recorder:
    """Everything happens on the coordinator's thread, but for `add` and `remove`, which the makers of jobs call."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.trouble: JournalError | None = None  #: why the journal can't be written now
        #: Hears of trouble, and (None) of its end.
        self.tell_trouble: Callable[[JournalError | None], object] = lambda _: None
        self._recordings: dict[int, Recording] = {}
        self._coordinator: Coordinator | None = None
        self._paused: list[JobBook] = []
        self._closing = False

    def add(self, book: JobBook, recording: Recording) -> None:
        """This job, which has not started, is recorded from now on."""
        self._recordings[book.number] = recording

    def remove(self, book: JobBook) -> None:
        """This job, which has ended, is not recorded any more."""
        self._recordings.pop(book.number, None)

    def join(self, coordinator: Coordinator, actions: dict[type, Forward]) -> None:
        """Stand before those who tell of what happened."""
        self._coordinator = coordinator
        for kind in (AnnounceStarted, AnnounceItems, AnnounceRecords, AnnounceState, AnnounceFinished):
            actions[kind] = partial(self._take, actions[kind])
        self.journal.on_trouble = lambda trouble: coordinator.do_later(partial(self._troubled, trouble))

    def check(self) -> None:
        """Raise `JournalError` where the journal can't be written now."""
        if self.trouble is not None:
            raise JournalError(str(self.trouble))

    # -- announcements ---------------------------------------------------------------------------------------

    def _take(self, forward: Forward, announcement: Announcement) -> None:
        recording = self._recordings.get(announcement.job.number)
        if recording is None:
            forward(announcement)
            return
        statements, files, waits = self._write(recording, announcement)
        waits = waits and not self._closing_in_trouble
        if not waits:
            if statements:
                self.journal.post(Entry(statements, files))
            if not recording.held:
                forward(announcement)
                return
        held = _Held(forward, _as_of_now(announcement), not waits)
        recording.held.append(held)
        if waits:
            self.journal.post(Entry(statements, files, partial(self._on_disk, recording, held)))

    def _on_disk(self, recording: Recording, held: _Held) -> None:
        """On the journal's thread."""
        assert self._coordinator is not None
        self._coordinator.do_later(partial(self._release, recording, held), held.announcement.job)

    def _release(self, recording: Recording, held: _Held) -> None:
        held.ready = True
        while recording.held and recording.held[0].ready:
            first = recording.held.popleft()
            first.forward(first.announcement)

    def _write(
        self, recording: Recording, announcement: Announcement
    ) -> tuple[list[Statement], Sequence[tuple[BigFile, int]], bool]:
        """What is to be written, and whether the announcement waits for it."""
        job, number = announcement.job, recording.number
        if job.fault is not None:
            # Nothing is wrong with its items: as after a crash of the program, the next run goes on.
            return [], (), isinstance(announcement, AnnounceFinished)
        match announcement:
            case AnnounceItems():
                recording.failed |= announcement.failed
                return self._write_items(recording, job, announcement.indices)
            case AnnounceStarted():
                again = [index for index in sorted(recording.failed) if job.table.status[index] != FAILED]
                recording.failed.difference_update(again)
                statements, files, _ = self._write_items(recording, job, again)
                began: Statement = (STARTED, (str(job.status), job.started_at, job.failed, number))
                return [*statements, began], files, False
            case AnnounceState():
                return [(STATUS, (str(announcement.status), number))], (), False
            case AnnounceFinished():
                kept, history = recording.tries_kept, job.table.history
                unfinished = [index for index in history if len(history[index]) > kept.get(index, 0)]
                statements, files, _ = self._write_items(recording, job, sorted(unfinished))
                ended = (str(announcement.status), job.started_at, job.finished_at, job.duration, number)
                return [*statements, (ENDED, ended)], files, True
            case _:
                return [], (), False

    def _write_items(
        self, recording: Recording, job: JobBook, indices: Sequence[int]
    ) -> tuple[list[Statement], Sequence[tuple[BigFile, int]], bool]:
        if not indices:
            return [], (), False
        row = make_row(job.table, indices, recording.tries_kept, recording.unkept)
        if row.left_out and not recording.complained:
            recording.complained = True
            index, reason = row.left_out[0]
            log.warning("job %r: the result of item %s is not in the journal, since it can't be pickled (%s); it will "
                        "run again, and so will others like it",
                        job.id, shown(job.table.id_of(index)), reason)  # fmt: skip
        counts = (job.completed, job.failed, job.retries, recording.number)
        files = [(file, recording.number) for file in row.files]
        waits = bool(files) or _longest(job.table, indices) > GROUP
        return [(ADD_CHUNK, (recording.number, row.body)), (COUNTS, counts)], files, waits

    # -- trouble ---------------------------------------------------------------------------------------------

    @property
    def _closing_in_trouble(self) -> bool:
        return self._closing and self.trouble is not None

    def _troubled(self, trouble: JournalError | None) -> None:
        """The journal can't be written, or (None) can again."""
        coordinator, self.trouble = self._coordinator, trouble
        assert coordinator is not None
        if trouble is not None:
            log.error("%s. Its running jobs are paused, and go on by themselves then", trouble)
            for book in list(coordinator.scheduler.books.jobs.values()):
                if book.number in self._recordings and book.status is JobStatus.RUNNING and not book.cancelled:
                    self._paused.append(book)
                    coordinator.handle(JobPaused(book))
            self.tell_trouble(trouble)
        else:
            paused, self._paused = self._paused, []
            log.warning("%s: written again; its jobs go on", self.journal.path)
            self.tell_trouble(None)  # first: who hears that a job goes on may wait for it again
            for book in paused:
                if book.status is JobStatus.PAUSED:
                    coordinator.handle(JobResumed(book))
        self._give_up_where_closing()

    def close(self) -> None:
        """The queue closes: from now on nobody waits for a journal that can't be written."""
        self._closing = True
        self._give_up_where_closing()

    def _give_up_where_closing(self) -> None:
        if self._closing_in_trouble:
            self.give_up()

    def give_up(self) -> None:
        """What is not on disk by now will not be: nobody waits for it any more."""
        for recording in list(self._recordings.values()):
            for held in list(recording.held):
                self._release(recording, held)


def _as_of_now(announcement: Announcement) -> Announcement:
    """The announcement, which will be told later, with what may change until then."""
    if not isinstance(announcement, AnnounceItems):
        return announcement
    table = announcement.job.table
    rows: dict[int, ItemTable] = {index: table.row(index) for index in (*announcement.failed, *announcement.retrying)}
    return announcement._replace(rows=rows)


def _longest(table: ItemTable, indices: Sequence[int]) -> float:
    """Seconds that the longest of these items took."""
    if isinstance(indices, range):
        return max(table.elapsed[indices.start : indices.stop])
    return max(table.elapsed[index] for index in indices)
