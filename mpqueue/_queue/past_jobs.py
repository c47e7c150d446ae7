"""Jobs that a journal holds: how a new job is recorded or goes on where it was, and how an old one is looked at."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.timings import Timings
from mpqueue._options import JobOptions
from mpqueue._text import digits
from mpqueue._wire.pickling.packed_handler import PackedHandler, Travels, pack_handler
from mpqueue._wire.pickling.payload import dump_by_value, load_kept
from mpqueue.errors import JournalError, JournalMismatchError, shown
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED, FAILED, PENDING, JobStatus

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._parent.journal.recorder import Recorder, Recording
    from mpqueue._wire.frames import HandlerFrame

log = logging.getLogger("mpqueue")

#: Bytes up to which a handler is kept in the journal.
MOST_HANDLER = 4 << 20


def journal_path(journal: str | os.PathLike[str] | None) -> str | None:
    """The path in full. Raises TypeError or ValueError for what can be none."""
    if journal is None:
        return None
    try:
        path = os.fspath(journal)
    except TypeError:
        raise TypeError(f"journal: expected a path, got {shown(journal)} of type {type(journal).__name__}") from None
    if not isinstance(path, str) or not path or "\0" in path:  # type: ignore[redundant-expr]
        raise ValueError(f"journal: expected the path of a file as text, got {shown(path)}")
    from mpqueue._parent.journal.ownership import own_path  # a part of what only journals need

    return own_path(path)


class NewJob:
    """A job that is being created, and what is to be recorded of it, where there is a journal.

    Raises what `pack_handler` raises.
    """

    def __init__(
        self,
        job_id: str,
        table: ItemTable,
        options: JobOptions,
        handler: Callable[..., Any],
        setup: Callable[[], Any] | None,
        *,
        seed_given: bool = False,
        travels: Travels = Travels.IN_MEMORY,
    ) -> None:
        packed = pack_handler(job_id, handler, setup, table.rule, options.seed, travels=travels)
        #: The number is to be set before anybody starts it.
        self.book = JobBook(0, job_id, table, options, packed)
        table.replay = partial(_replay, packed)
        self._functions = (handler, setup)
        self._seed_given = seed_given

    def prepare_recording(self) -> None:
        """Pickle all items and the handler: to be done outside of locks."""
        from mpqueue._parent.journal.code_hash import hash_code  # a part of what only journals need
        from mpqueue._parent.journal.kept_payloads import keep_payloads

        self._payloads = keep_payloads(self.book.table.payloads)
        self._code_hash = hash_code(*self._functions)

    def record_or_go_on(self, recorder: Recorder, created_at: float, *, strict: bool, same_items: bool = False) -> None:
        """Have the job recorded from now on; where the journal has it, its table tells what has ended already.

        With ``same_items``, items that seem to have changed are other items. Waits until it is on disk. Raises
        `JournalMismatchError` for a job with other items, and `JournalError`.
        """
        book, reader = self.book, recorder.journal.reader
        recorded = reader.find(book.id)
        if recorded is None:
            recording = self.recording(self._add(recorder, created_at))
        else:
            self._check(reader, recorded, strict=strict, same_items=same_items)
            recording = self._go_on(reader, recorded)
        recorder.add(book, recording)

    def recording(self, number: int) -> Recording:
        """What the recorder has to know of the job, which has this number in the journal."""
        from mpqueue._parent.journal.recorder import Recording

        table = self.book.table
        tries = {index: len(history) for index, history in table.history.items()}
        failed = {index for index in table.failures if table.status[index] == FAILED}
        return Recording(number, tries, failed, self._payloads.left_out)

    def _add(self, recorder: Recorder, created_at: float) -> int:
        from mpqueue._parent.journal.chunk_rows import seal

        book, table = self.book, self.book.table
        columns = {
            "id": book.id,
            "total": len(table),
            "rule": str(table.rule),
            "ids": None,
            "payload_hash": self._payloads.hash,
            "code_hash": self._code_hash,
            "handler": _keep_handler(*self._functions),
            "seed": digits(book.options.seed),
            "created_at": created_at,
            "status": str(JobStatus.PENDING),
        }
        if table.ids is not None:
            try:
                columns["ids"] = seal(table.ids)
            except Exception as error:
                raise TypeError(f"items: expected ids that can be pickled for the journal, got {error}") from error
        return recorder.journal.ask(lambda store: store.add_job(columns, self._payloads.bodies))

    def _check(self, reader: Reader, recorded: RecordedJob, *, strict: bool, same_items: bool) -> None:
        from mpqueue._parent.journal.code_hash import differs

        book = self.book
        where, what = f"job {book.id!r} in {reader.path}", "nothing was changed; give the new one another id"
        if recorded.total != len(book.table):
            raise JournalMismatchError(
                f"{where}: expected its {recorded.total} items, got {len(book.table)}; {what}, "
                "or clear_job() the old one"
            )
        ids = reader.ids(recorded)
        if ids != book.table.ids or recorded.rule != str(book.table.rule):
            raise JournalMismatchError(
                f"{where}: expected the ids that it was created with, got others; {what}, or clear_job() the old one"
            )
        changed = []
        if recorded.payload_hash != self._payloads.hash:
            changed.append("its items")
        if differs(recorded.code_hash, self._code_hash):
            changed.append("its handler's code")
        if self._seed_given and recorded.seed != book.options.seed:
            changed.append("its seed")
        if same_items and recorded.payload_hash != self._payloads.hash:
            raise JournalMismatchError(
                f"{where}: expected the items that it was recorded with, got others, which can't be told apart by ids; "
                "nothing was changed; give each call a journal of its own, or use create_job()"
            )
        if not changed:
            return
        seem = "seems" if changed in (["its handler's code"], ["its seed"]) else "seem"
        text = f"{where}: {' and '.join(changed)} {seem} to have changed since it was recorded"
        if strict:
            raise JournalMismatchError(f"{text}; with strict=True that is refused, and {what}")
        log.warning("%s; what is done is not done again", text)

    def _go_on(self, reader: Reader, recorded: RecordedJob) -> Recording:
        book, table = self.book, self.book.table
        unreadable = reader.fill(table, recorded)
        for index in unreadable:
            table.status[index], table.results[index] = PENDING, None
        if unreadable:
            log.warning("job %r: the results of %d items can't be read from %s, so these run again; the first is %s",
                        book.id, len(unreadable), reader.path, shown(table.id_of(unreadable[0])))  # fmt: skip
        if not self._seed_given:
            self._take_seed(recorded.seed)
        book.retries = recorded.retries
        book.go_on()
        if book.all_ended and recorded.status in (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS):
            book.restored = True
            restore_end(book, recorded)
        return self.recording(recorded.number)

    def _take_seed(self, seed: int) -> None:
        book = self.book
        book.options = dataclasses.replace(book.options, seed=seed)
        book.handler = book.handler._replace(frame=book.handler.frame._replace(seed=seed))
        book.table.replay = partial(_replay, book.handler)


def restore_end(book: JobBook, recorded: RecordedJob) -> None:
    """The job is in the state in which it was recorded."""
    book.status = recorded.status
    book.started_at, book.finished_at, book.duration = recorded.started_at, recorded.finished_at, recorded.duration


def _keep_handler(handler: Callable[..., Any], setup: Callable[[], Any] | None) -> bytes | None:
    """The functions by value, and where modules were found; None where that is too much."""
    from mpqueue._parent.journal.chunk_rows import seal

    kept = []
    for function in (handler, setup):
        data, buffers = dump_by_value(function)
        if len(data) + sum(buffer.nbytes for buffer in buffers) > MOST_HANDLER:
            return None
        kept.append((data, [bytes(buffer) for buffer in buffers]))
    return seal((kept, [os.path.abspath(entry) for entry in sys.path]))


def load_handler(reader: Reader, recorded: RecordedJob) -> tuple[Callable[..., Any], Callable[[], Any] | None]:
    """The handler and the setup of a recorded job. Raises `JournalError` where they were not kept, or can't be loaded.

    Folders in which modules were found then are searched last from now on.
    """
    kept = reader.handler(recorded)
    where = f"{reader.path}: the handler of job {recorded.id!r}"
    if kept is None:
        raise JournalError(f"{where}: expected one that is in the journal, got one that was too big; create_job() the "
                           "job with its items and its handler instead")  # fmt: skip
    functions, path = kept
    sys.path += [entry for entry in path if entry not in sys.path]
    try:
        handler, setup = (load_kept(data, [bytearray(buffer) for buffer in buffers]) for data, buffers in functions)
    except Exception as error:
        raise JournalError(f"{where} can't be loaded here ({type(error).__name__}: {error}); create_job() the job with "
                           "its items and its handler instead") from error  # fmt: skip
    return handler, setup


class RecordedBook:
    """The books of a job that only the journal has: like a `JobBook`, whose items are read when they are asked for."""

    cancelled = False
    paused = False

    def __init__(self, reader: Reader, recorded: RecordedJob) -> None:
        self._reader = reader
        self.recorded = recorded
        self.id = recorded.id
        self.total = recorded.total
        #: What ran when its program ended is pending again.
        self.status = recorded.status if recorded.status.final else JobStatus.PENDING
        self.cancelled = recorded.status is JobStatus.CANCELLED
        self.completed, self.failed, self.retries = recorded.completed, recorded.failed, recorded.retries
        self.started_at, self.finished_at = recorded.started_at, recorded.finished_at
        self.duration = recorded.duration
        self.options = JobOptions(RetryPolicy(), seed=recorded.seed)
        self.timings = Timings()  # where its time went is not in the journal

    @property
    def over(self) -> bool:
        """True where it ended by itself."""
        return self.status.final and not self.cancelled

    @cached_property
    def table(self) -> ItemTable:
        """The items. Raises `JournalError` where they can't be read."""
        table = self._reader.table(self.recorded)
        table.replay = self._replay
        return table

    def _replay(self, table: ItemTable, index: int) -> Any:
        handler, setup = load_handler(self._reader, self.recorded)
        check_item_kept(self, index)
        packed = pack_handler(self.id, handler, setup, self.recorded.rule, self.recorded.seed)
        return _run_here(packed.frame, table, index)

    def to_new_job(self, options: JobOptions, *, travels: Travels) -> NewJob:
        """The same as a job that can be run, its failed items once more. Raises `JournalError`."""
        handler, setup = load_handler(self._reader, self.recorded)
        options = dataclasses.replace(options, seed=self.recorded.seed)
        new = NewJob(self.id, self.table, options, handler, setup, travels=travels)
        new.book.retries = self.retries
        new.book.go_on()
        if self.over:
            restore_end(new.book, self.recorded)
        new.prepare_recording()
        return new


def _replay(packed: PackedHandler, table: ItemTable, index: int) -> Any:
    return _run_here(packed.frame, table, index)


def _run_here(handler: HandlerFrame, table: ItemTable, index: int) -> Any:
    from mpqueue._worker.handlers.replay import replay  # most programs never do, and start sooner without

    return replay(handler, table.payloads[index], index, table.attempts[index] + 1)


def check_item_kept(book: RecordedBook, index: int) -> None:
    """Raise `JournalError` where an item can't be run again."""
    from mpqueue._parent.journal.kept_values import NotKept, Unreadable

    table = book.table
    if isinstance(table.payloads[index], NotKept | Unreadable):
        raise JournalError(
            f"job {book.id!r}: expected item {shown(table.id_of(index))} in the journal, got "
            f"{shown(table.payloads[index])}; create_job() the job with its items and its handler instead"
        )


def check_kept(book: RecordedBook) -> None:
    """Raise `JournalError` where what is to run again can't be: the failed items, or all that has not ended."""
    table = book.table
    again = sorted(table.failures) if book.over else table.unfinished()
    for index in again:
        if table.status[index] != COMPLETED:
            check_item_kept(book, index)
