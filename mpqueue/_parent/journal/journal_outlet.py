"""`JournalOutlet`: writes the scheduler's announcements into the journal on their way to the listeners.

It stands between the coordinator and the announcements' readers, on the coordinator's thread. The end of an item, or of
a job, is on disk before it is announced, and later announcements of the same job wait for it. It is written with the
next group commit; at once if an item took longer than that, brought big data, or ended its job.

Results and errors are pickled for the journal here if that runs no users' code; else on the job's own thread, and the
announcement waits for that.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.commands import (
    AnnounceFinished,
    AnnounceItems,
    AnnounceRecords,
    AnnounceStarted,
    AnnounceState,
    SendChunk,
)
from mpqueue._core.messages import JobPaused, JobResumed
from mpqueue._core.state.columns import take
from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._parent.deliveries import OBJECT, Backlog
from mpqueue._parent.inbox import text_of
from mpqueue._parent.journal.chunk_rows import NO_ROW, Row, RowDraft, chunk_statement
from mpqueue._parent.journal.journal_writer import GROUP, Entry, Journal
from mpqueue._parent.journal.kept_values import BigFile, Statement
from mpqueue._parent.journal.lots import REMOVE_ALL, PassRecord, RecordedGrowth, StreamGrowth
from mpqueue._parent.replies import Reply
from mpqueue._parent.users_threads import Picklers, PickleTask
from mpqueue.errors import JournalError, WorkerStartError
from mpqueue.status import FAILED, OVER, JobStatus

if TYPE_CHECKING:
    from mpqueue._core.state.pipeline import StageBook
    from mpqueue._parent.coordinator import Coordinator

log = logging.getLogger("mpqueue")

#: The most bytes of results, in their written form, that stay in memory: the newest, which listeners look at.
MOST_RECENT = 32 << 20

Announcement = AnnounceStarted | AnnounceItems | AnnounceRecords | AnnounceState | AnnounceFinished
Forward = Callable[[Any], None]

COUNTS = "UPDATE jobs SET completed = ?, failed = ?, retries = ? WHERE number = ?"
#: Without a count of a stream, whose counts change with its rows.
STARTED = """UPDATE jobs SET status = ?, started_at = ?, finished_at = NULL, duration = NULL,
failed = coalesce(?, failed) WHERE number = ?"""
STATUS = "UPDATE jobs SET status = ? WHERE number = ?"
RETRIED = "UPDATE jobs SET retries = retries + ? WHERE number = ?"
ENDED = "UPDATE jobs SET status = ?, started_at = ?, finished_at = ?, duration = ?, cpu = ?, ran = ? WHERE number = ?"
#: None of its items will end a program any more.
CLEARED = "UPDATE jobs SET suspects = NULL WHERE number = ? AND suspects IS NOT NULL"


@dataclass(slots=True)
class _Held:
    """An announcement that waits: until it is on disk, or (``ready``) for earlier ones."""

    tell: Callable[[], object]
    announcement: Announcement | None
    ready: bool
    size: int = 0  #: bytes that it has in the backlog


@dataclass(slots=True)
class _Stored:
    """Results that are in the journal, in the row of that number, once it is on disk."""

    table: weakref.ref[ItemTable]
    indices: Sequence[int]
    row: int
    size: int


class _Note(NamedTuple):
    """An announcement's entry for the journal.

    With ``waits``, it is announced once the entry is on disk; an ``urgent`` entry is written at once.
    """

    draft: RowDraft | None = None
    statements: Sequence[Statement] = ()  #: run after the draft's row is written
    waits: bool = False
    urgent: bool = False


@dataclass(slots=True)
class JournalJob:
    """A job's place in the journal. ``number`` is its number there."""

    number: int
    tries_kept: dict[int, int] = field(default_factory=dict)  #: failed tries that are in the journal, by item
    failed: set[int] = field(default_factory=set)  #: items that the journal has as failed
    alone: dict[int, int] = field(default_factory=dict)  #: items sent by themselves: where they are marked
    complained: bool = False
    unmade: int = 0  #: rows that the job's own thread has to make; later ones wait for them
    stream: StreamGrowth | None = None  #: for items that come and go
    removed: bool = False  #: the journal has no data of the job any more
    held: deque[_Held] = field(default_factory=deque)


class JournalOutlet:
    """The outlet of a queue's jobs into its journal.

    On the coordinator's thread, except `add` and `remove`, for jobs' makers.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.trouble: JournalError | None = None  #: why the journal can't be written now
        #: Called with trouble, and with None at its end.
        self.tell_trouble: Callable[[JournalError | None], object] = lambda _: None
        self._journal_jobs: dict[int, JournalJob] = {}
        self.picklers: Picklers  #: where rows are made that run code of users' classes
        self.backlog: Backlog  #: results that wait to be pickled, or to be written
        self._coordinator: Coordinator
        self._paused: list[JobBook] = []
        self._closing = False
        self._recent: deque[_Stored] = deque()  #: results that are in memory, the oldest first
        self._recent_size = 0
        self._evicting = threading.Lock()  #: held while results in memory are replaced

    def add(self, book: JobBook, journal_job: JournalJob) -> None:
        """Record this job, which has not started, from now on."""
        self._journal_jobs[book.number] = journal_job

    def remove(self, book: JobBook) -> None:
        """Stop writing this job, which has ended."""
        journal_job = self._journal_jobs.pop(book.number, None)
        if journal_job is not None:
            journal_job.removed = True

    def join(self, coordinator: Coordinator, actions: dict[type, Forward]) -> None:
        """Take its place before the announcements' readers."""
        self._coordinator = coordinator
        self.picklers = coordinator.picklers
        self.backlog = Backlog(coordinator.hold_back)
        for kind in (AnnounceStarted, AnnounceItems, AnnounceRecords, AnnounceState, AnnounceFinished):
            actions[kind] = partial(self._take, actions[kind])
        actions[SendChunk] = partial(self._send_chunk, actions[SendChunk])
        self.journal.on_trouble = lambda trouble: coordinator.do_later(partial(self._troubled, trouble))

    def _send_chunk(self, forward: Forward, command: SendChunk) -> None:
        """Mark items that are sent to a worker, in case they end the program."""
        chunk = command.chunk
        journal_job = self._journal_jobs.get(chunk.job.number)
        if journal_job is not None:
            marked = chunk.job.table.slots_of(chunk.indices) or chunk.indices
            place = 2 * command.lane + chunk.number % 2
            is_one = len(marked) == 1
            self.journal.running.mark(place, journal_job.number, marked, alone=is_one and self._is_alone(command))
            if is_one:
                journal_job.alone[chunk.indices[0]] = place
        else:
            self.journal.running.mark_beside()
        forward(command)

    def _is_alone(self, command: SendChunk) -> bool:
        """True if no worker has other items."""
        books = self._coordinator.scheduler.books
        lane = books.lanes[command.lane]
        return books.at_work == lane.bit and len(lane.chunks) == 1

    def check(self) -> None:
        """Raise `JournalError` if the journal can't be written now."""
        if self.trouble is not None:
            raise JournalError(str(self.trouble))

    # -- announcements ---------------------------------------------------------------------------------------

    def _take(self, forward: Forward, announcement: Announcement) -> None:
        journal_job = self._journal_jobs.get(announcement.job.number)
        if journal_job is None:
            self._pass_on(announcement.job.stage)
            forward(announcement)
            return
        if journal_job.alone and isinstance(announcement, AnnounceItems):
            self._unmark(journal_job, announcement.indices)
        job, note = announcement.job, self._note(journal_job, announcement)
        if isinstance(announcement, AnnounceState) and self.trouble is not None:
            self.journal.post(self._entry(journal_job, note, NO_ROW))
            _tell_ahead(journal_job, forward, announcement)
        elif note.draft is not None or note.statements or note.waits:
            held = self._hold(journal_job, forward, announcement)
            self._make(job, journal_job, note.draft, partial(self._kept, journal_job, note, held))
        elif journal_job.held:
            self._hold(journal_job, forward, announcement, ready=True)
        else:
            forward(announcement)

    def _unmark(self, journal_job: JournalJob, ended: Sequence[int]) -> None:
        """Remove the marks of ended items: they end no program any more."""
        for index in ended:
            if (place := journal_job.alone.pop(index, None)) is not None:
                self.journal.running.clear(place)

    def _pass_on(self, stage: StageBook | None) -> None:
        """Write the values that a stage has passed on; no caller waits for that."""
        record = None if stage is None else stage.pipeline.record
        if stage is None or not isinstance(record, PassRecord) or self._closing_in_trouble:
            return
        head = stage.pipeline.head
        journal_job = self._journal_jobs.get(head.number)
        if journal_job is not None and (statements := record.statements(journal_job.number)):
            self.journal.post(Entry(statements))

    def items_added(self, job: JobBook, posted: Reply[None] | None) -> None:
        """Write the items that the user of an open job has added, with the next group commit.

        ``posted`` is given once the journal's thread has them.
        """
        journal_job, growth = self._journal_jobs[job.number], job.table.growth
        assert isinstance(growth, RecordedGrowth)
        draft = RowDraft(job.table, coming=growth.take(job.table))
        self._make(job, journal_job, draft, partial(self._added, journal_job, posted))

    def _added(self, journal_job: JournalJob, posted: Reply[None] | None, row: Row) -> None:
        try:
            if row.items is not None and not journal_job.removed:
                self.journal.post(self._entry(journal_job, _Note(), row))
        finally:
            if posted is not None:
                posted.set_result(None)

    def in_turn(self, job: JobBook, call: Callable[[], object]) -> None:
        """Call the function once all earlier announcements of the job have been delivered."""
        journal_job = self._journal_jobs.get(job.number)
        if journal_job is not None and journal_job.held:
            journal_job.held.append(_Held(call, None, ready=True))
        else:
            call()

    def untold(self, job: JobBook) -> list[Announcement]:
        """Return the job's announcements that have not been delivered yet."""
        journal_job = self._journal_jobs.get(job.number)
        held = () if journal_job is None else journal_job.held
        return [each.announcement for each in held if each.announcement is not None]

    def _hold(
        self, journal_job: JournalJob, forward: Forward, announcement: Announcement, *, ready: bool = False
    ) -> _Held:
        announcement = _as_of_now(announcement)
        held = _Held(partial(forward, announcement), announcement, ready)
        if isinstance(announcement, AnnounceItems) and not ready:
            held.size = self.backlog.add(announcement)
        journal_job.held.append(held)
        return held

    def _written(self, journal_job: JournalJob, held: _Held, stored: _Stored | None) -> None:
        self._release(journal_job, held)
        if stored is not None:
            self._evict(stored)

    def _evict(self, stored: _Stored) -> None:
        """Free results that are in the journal; the newest of them stay in memory."""
        self._recent.append(stored)
        self._recent_size += stored.size
        while self._recent_size > MOST_RECENT:
            oldest = self._recent.popleft()
            self._recent_size -= oldest.size
            table = oldest.table()
            with self._evicting:
                if table is not None:
                    results = table.evict(oldest.indices, oldest.row)
                    if table.live.has_user_objects:
                        self._coordinator.scheduler.books.free_later(results)

    def recall(self, table: ItemTable, number: int) -> None:
        """Load a job's results into memory, unless they are many: the journal will forget the job. Any thread."""
        if table.source is not None and self.journal.reader.size_of(number) <= MOST_RECENT:
            with self._evicting, contextlib.suppress(JournalError):
                table.recall()

    def _entry(self, journal_job: JournalJob, note: _Note, row: Row, held: _Held | None = None) -> Entry:
        number = journal_job.number
        statements, files, stored = list[Statement](), list[BigFile](), None
        if row.items is not None:  # first: the items' outcomes, in any row, come after that
            statements += row.items.statements(number)
            files += row.items.files
        if row.body is not None:
            chunk = self.journal.next_chunk()
            statements.append(chunk_statement(chunk, number, row))
            files += row.files
            if held is not None and held.announcement is not None and row.done and journal_job.stream is None:
                size = len(row.body.data) + sum(file.size for file in row.files) + OBJECT * len(row.done)
                stored = _Stored(weakref.ref(held.announcement.job.table), row.done, chunk, size)
        done = None if held is None else partial(self._on_disk, journal_job, held, stored)
        named = [(file, number) for file in files]
        return Entry([*statements, *note.statements], named, done, note.urgent or bool(files))

    def _on_disk(self, journal_job: JournalJob, held: _Held, stored: _Stored | None, is_written: bool) -> None:
        """Let the coordinator go on with an entry that is on disk, or never will be. On the journal's thread."""
        self._coordinator.do_later(partial(self._written, journal_job, held, stored if is_written else None))

    def _release(self, journal_job: JournalJob, held: _Held) -> None:
        held.ready = True
        self.backlog.remove(held.size)
        held.size = 0
        while journal_job.held and journal_job.held[0].ready:
            journal_job.held.popleft().tell()

    def _note(self, journal_job: JournalJob, announcement: Announcement) -> _Note:
        job, number = announcement.job, journal_job.number
        stream = journal_job.stream
        match announcement:
            case AnnounceItems() if stream is not None:
                return _note_of_stream(job, stream, announcement, number)
            case AnnounceItems():
                journal_job.failed |= announcement.failed
                note = self._note_items(journal_job, job, announcement.indices)
                passed = _passed_by(job)
                if passed is None:
                    return note
                return note._replace(statements=[*note.statements, *passed.ended(number, announcement.indices)])
            case AnnounceStarted():
                again = [index for index in sorted(journal_job.failed) if job.table.status[index] != FAILED]
                journal_job.failed.difference_update(again)
                note = self._note_items(journal_job, job, again)
                failed = job.failed if stream is None else None
                began: Statement = (STARTED, (str(job.status), job.started_at, failed, number))
                return _Note(note.draft, [*note.statements, began])
            case AnnounceState():
                return _Note(None, [(STATUS, (str(announcement.status), number))])
            case AnnounceFinished():
                kept, history = journal_job.tries_kept, job.table.history
                ran = () if stream is not None else history  # a stream's tries count once their item has ended
                unfinished = [index for index in ran if len(history[index]) > kept.get(index, 0)]
                note = self._note_items(journal_job, job, sorted(unfinished))
                ended = _ended(job, announcement, number)
                if _passed_by(job) is not None and announcement.status in OVER:
                    ended.append((REMOVE_ALL, (number,)))
                return _Note(note.draft, [*note.statements, *ended], waits=True, urgent=True)
            case _:
                return _Note()

    def _note_items(self, journal_job: JournalJob, job: JobBook, indices: Sequence[int]) -> _Note:
        if not indices:
            return _Note()
        growth = job.table.growth
        coming = growth.take(job.table) if isinstance(growth, RecordedGrowth) else None
        draft = RowDraft(job.table, indices, journal_job.tries_kept, coming)
        counts = (job.completed, job.failed, job.retries, journal_job.number)
        return _Note(draft, [(COUNTS, counts)], waits=True, urgent=_longest(job.table, indices) > GROUP)

    def _kept(self, journal_job: JournalJob, note: _Note, held: _Held, row: Row) -> None:
        """Write a row that was made. Its announcement is delivered once it is on disk, or now if nothing waits."""
        waits = note.waits and not self._closing_in_trouble
        if not journal_job.removed:
            self.journal.post(self._entry(journal_job, note, row, held if waits else None))
        if journal_job.removed or not waits:
            self._release(journal_job, held)

    def _make(
        self, job: JobBook, journal_job: JournalJob, draft: RowDraft | None, then: Callable[[Row], object]
    ) -> None:
        """Make the row: here if that runs no users' code and no earlier one waits for it; else on the job's thread."""
        draft = draft or RowDraft(job.table)  # an empty row, which waits for earlier ones
        row = None if journal_job.unmade else draft.plain_row()
        if row is None:
            journal_job.unmade += 1
            self.picklers.put(job, _Keeping(job, journal_job, draft), partial(self._made, journal_job, then))
        else:
            then(row)

    def _made(self, journal_job: JournalJob, then: Callable[[Row], object], row: Row) -> None:
        journal_job.unmade -= 1
        then(row)

    # -- trouble ---------------------------------------------------------------------------------------------

    @property
    def _closing_in_trouble(self) -> bool:
        return self._closing and self.trouble is not None

    def _troubled(self, trouble: JournalError | None) -> None:
        """Pause the recorded jobs while the journal can't be written; None: let them go on, since it can again."""
        coordinator, self.trouble = self._coordinator, trouble
        if trouble is not None:
            log.error("%s. Its running jobs are paused, and go on by themselves then", trouble)
            for book in list(coordinator.scheduler.books.jobs.values()):
                if book.number in self._journal_jobs and book.status is JobStatus.RUNNING and not book.cancelled:
                    self._paused.append(book)
                    coordinator.handle(JobPaused(book))
            self.tell_trouble(trouble)
        else:
            paused, self._paused = self._paused, []
            log.warning("%s: written again; its jobs go on", self.journal.path)
            self.tell_trouble(None)  # first: a listener that sees a job continue may wait for it again
            for book in paused:
                if book.status is JobStatus.PAUSED:
                    coordinator.handle(JobResumed(book))
        self._give_up_where_closing()

    def close(self) -> None:
        """Let no caller wait any more for a journal that can't be written: the queue closes."""
        self._closing = True
        self._give_up_where_closing()

    def _give_up_where_closing(self) -> None:
        if self._closing_in_trouble:
            self.give_up()

    def give_up(self) -> None:
        """Give up entries that are not on disk by now: no caller waits for them any more."""
        for journal_job in list(self._journal_jobs.values()):
            for held in list(journal_job.held):
                self._release(journal_job, held)


class _Keeping(PickleTask[Row]):
    """A row that is made on the job's own thread."""

    ends_with_job = False

    def __init__(self, job: JobBook, journal_job: JournalJob, draft: RowDraft) -> None:
        self._job = job
        self._journal_job = journal_job
        self._draft = draft

    @property
    def step(self) -> int:
        """The number of objects pickled so far (implements `PickleTask`)."""
        return self._draft.step

    def run(self) -> Row | None:
        """Pickle the draft and return its row, on the job's thread (implements `PickleTask`)."""
        try:
            row: Row | None = self._draft.row()
        except BaseException as error:  # for example `SystemExit` in a user's `__reduce__`
            row = self._draft.cut_short(text_of(error))
        if row is not None:
            self._complain(row)
        return row

    def cut_short(self) -> Row | None:
        """Return a row without the parts not pickled by now; the items left out run again (implements `PickleTask`)."""
        row = self._draft.cut_short("it takes too long")
        if row is not None and row.left_out:
            log.warning("job %r: what %d of its items returned takes too long to be pickled and is not in the journal; "
                        "they will run again", self._job.id, len(row.left_out))  # fmt: skip
        return row

    def takes_long(self) -> Row | None:
        """Warn and go on: the item's end is not announced before it is on disk (implements `PickleTask`)."""
        log.warning("job %r: pickling what one of its items returned takes long; its end is announced once it is in "
                    "the journal. cancel(kill=True) ends the job without it", self._job.id)  # fmt: skip
        return None

    def _complain(self, row: Row) -> None:
        if row.left_out and not self._journal_job.complained:
            self._journal_job.complained = True
            index, reason = row.left_out[0]
            log.warning("job %r: the result of item %s is not in the journal, since it can't be pickled (%s); it will "
                        "run again, and so will others like it",
                        self._job.id, self._job.table.named_plainly(index), reason)  # fmt: skip


def _note_of_stream(job: JobBook, stream: StreamGrowth, announcement: AnnounceItems, number: int) -> _Note:
    """Return the entry of a stream's items.

    It is urgent if items take long, or if the consumer waits while nothing else is under way.
    """
    indices, again = announcement.indices, announcement.retrying
    ended = [index for index in indices if index not in again] if again else indices
    if announcement.failed:  # items without a possible worker have not failed: the next run goes on with them
        ended = [index for index in ended if not _is_interrupted(job, index)]
    statements: list[Statement] = [(RETRIED, (len(again), number))] if again else []
    draft = stream.draft(job.table, ended) if ended else None
    seconds = job.sizer.seconds_per_item
    starves = stream.consumer_waits and job.nothing_under_way
    urgent = seconds is None or seconds > GROUP or starves
    return _Note(draft, statements, waits=draft is not None, urgent=urgent)


def _passed_by(job: JobBook) -> PassRecord | None:
    """Return the record of the values that a job's stages have passed on; None if it has none."""
    record = None if job.pipeline is None else job.pipeline.record
    return record if isinstance(record, PassRecord) else None


def _is_interrupted(job: JobBook, index: int) -> bool:
    failure = job.table.failures.get(index)
    return failure is not None and not failure.charged and isinstance(failure.error, WorkerStartError)


def _ended(job: JobBook, announcement: AnnounceFinished, number: int) -> list[Statement]:
    past, sums = job.past, job.timings.sums
    used: tuple[float | None, int | None] = (sums.cpu or None, sums.items)
    if not job.timings.lanes:  # no item has run here
        used = (None, None) if past is None else (past.cpu, past.items)
    run = (job.started_at, job.finished_at, job.duration, *used)
    ended: Statement = (ENDED, (str(announcement.status), *run, number))
    return [ended, (CLEARED, (number,))] if announcement.status in OVER else [ended]


def _tell_ahead(journal_job: JournalJob, forward: Forward, announcement: AnnounceState) -> None:
    """Announce a pause while nothing can be written, with the counts announced by then."""
    for held in journal_job.held:
        first = held.announcement
        if isinstance(first, AnnounceItems):
            announcement = announcement._replace(completed=first.completed_before, failed=first.failed_before)
            break
    forward(announcement)


def _as_of_now(announcement: Announcement) -> Announcement:
    """Return the announcement for later delivery, with copies of data that may change until then."""
    if not isinstance(announcement, AnnounceItems):
        return announcement
    table = announcement.job.table
    rows: dict[int, ItemTable] = {index: table.row(index) for index in (*announcement.failed, *announcement.retrying)}
    return announcement._replace(rows=rows)


def _longest(table: ItemTable, indices: Sequence[int]) -> float:
    """Return the seconds of the longest of these items."""
    longest: float = max(take(table.elapsed, indices))
    return longest
