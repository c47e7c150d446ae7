"""`NewJob`: a job that is being created, and how a journal comes to hold it or tells where it was."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import JobOptions
from mpqueue._text import digits
from mpqueue._wire.pickling.packed_handler import PackedHandler, Travels, pack_handler
from mpqueue._wire.pickling.payload import dump_by_value
from mpqueue.errors import JournalMismatchError, shown
from mpqueue.status import FAILED, PENDING, JobStatus

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._parent.journal.recorder import Recorder, Recording
    from mpqueue._parent.journal.sealed import Unsealed

log = logging.getLogger("mpqueue")

#: Bytes up to which a handler is kept in the journal.
MOST_HANDLER = 4 << 20


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
        table.replay = partial(replay_item, packed)
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
        from mpqueue._parent.journal.sealed import prepare

        book, table = self.book, self.book.table
        columns: dict[str, Any] = {
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
                columns["ids"] = prepare(table.ids)
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
        book.table.replay = partial(replay_item, book.handler)


def restore_end(book: JobBook, recorded: RecordedJob) -> None:
    """The job is in the state in which it was recorded."""
    book.status = recorded.status
    book.started_at, book.finished_at, book.duration = recorded.started_at, recorded.finished_at, recorded.duration


def _keep_handler(handler: Callable[..., Any], setup: Callable[[], Any] | None) -> Unsealed | None:
    """The functions by value, and where modules were found; None where that is too much."""
    from mpqueue._parent.journal.sealed import prepare

    kept = []
    for function in (handler, setup):
        data, buffers = dump_by_value(function)
        if len(data) + sum(buffer.nbytes for buffer in buffers) > MOST_HANDLER:
            return None
        kept.append((data, [bytes(buffer) for buffer in buffers]))
    return prepare((kept, [os.path.abspath(entry) for entry in sys.path]))


def replay_item(packed: PackedHandler, table: ItemTable, index: int) -> Any:
    """See `JobItem.replay`."""
    from mpqueue._worker.handlers.replay import replay  # most programs never do, and start sooner without

    return replay(packed.frame, table.payloads[index], index, table.attempts[index] + 1)
