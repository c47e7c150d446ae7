"""`PastJob`: a job that only a journal has, to be viewed or run again."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from mpqueue._core.state.item_table import ItemTable, refuse_pickling
from mpqueue._core.state.resources import JobNeeds
from mpqueue._core.state.timings import Timings
from mpqueue._options import GivenOptions, JobOptions
from mpqueue._queue.arguments import make_job, replay_item, restore_end
from mpqueue._wire.pickling import main_names
from mpqueue._wire.pickling.packed_handler import HandlerTransport, pack_handler
from mpqueue._wire.pickling.payload import load_parts
from mpqueue.errors import JournalError, WorkerStartError, shown
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED, JobKind, JobStatus

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._queue.recorded.job_record import JobRecord


log = logging.getLogger("mpqueue")

#: Numbers of recorded jobs begin here, so that a queue's own jobs have others.
FIRST_NUMBER = 1 << 40


class PastJob:
    """The books of a job that only the journal has: a `JobView` whose items are read on first use.

    If the job's record has changed by then, the book changes too, so that all of it is of one moment.
    """

    paused = False
    sealed = True
    active = False
    here = False
    epoch = 0
    lanes = 0
    retries_before = 0  # a journal does not have the retries of the last run
    tries_before: Mapping[int, int] = MappingProxyType({})
    stopped_why: str | None = None
    interrupted: WorkerStartError | None = None

    def __init__(self, reader: Reader, recorded: RecordedJob) -> None:
        self._reader = reader
        self._say(recorded)

    def _say(self, recorded: RecordedJob) -> None:
        """Take the journal's record of the job."""
        self._recorded = recorded
        self.id = recorded.id
        self.number = FIRST_NUMBER + recorded.number
        self.total = recorded.total
        #: Items that ran when their program ended are pending again.
        self.status = recorded.status if recorded.status.final else JobStatus.PENDING
        self.cancelled = recorded.status is JobStatus.CANCELLED
        self.completed, self.failed, self.retries = recorded.completed, recorded.failed, recorded.retries
        self.started_at, self.finished_at = recorded.started_at, recorded.finished_at
        self.duration = recorded.duration
        before = self.completed + self.failed - (recorded.ran or 0)  # a journal does not tell which of them ran last
        self.completed_before = min(self.completed, max(0, before))
        self.failed_before = max(0, before - self.completed_before)
        self.options = JobOptions(RetryPolicy(), seed=recorded.seed)
        self.past = recorded.past
        self.timings = recorded_timings(self.duration, recorded)

    def __reduce__(self) -> NoReturn:
        refuse_pickling()

    @property
    def over(self) -> bool:
        """True if it ended by itself."""
        return self.status.final and not self.cancelled

    @cached_property
    def table(self) -> ItemTable:
        """The items. Raises `JournalError` if they can't be read, or the job has been removed."""
        reader = self._reader
        recorded, table = reader.at_once(lambda: (reader.now(self._recorded), reader.table(self._recorded)))
        if recorded != self._recorded:
            self._say(recorded)
        table.replay = partial(_replay, self._reader, self._recorded)  # not of this object: that would be a cycle
        table.label = self._recorded.label
        table.recorded_of = self.id
        return table

    def uses(self) -> dict[str, int | str] | None:
        """Return the items' recorded needs. Warns if functions gave them, since these are not kept."""
        said = self._recorded.uses
        if said == "null":
            log.warning(
                "job %r: what its items need (uses=) was said by functions, which a journal does not keep: "
                "the items run as if they needed nothing",
                self.id,
            )
        if said is None:
            return None
        import json  # takes 2 ms

        found: dict[str, int | str] = json.loads(said)
        return found

    def to_record(self, options: JobOptions, needs: JobNeeds | None, *, transport: HandlerTransport) -> JobRecord:
        """Make a job that can run its failed items again, and its record. Raises `JournalError`."""
        from mpqueue._queue.recorded.growing_record import OpenRecord
        from mpqueue._queue.recorded.job_record import JobRecord  # only few readers need it

        functions, is_open = _load_handler(self._reader, self._recorded), self._recorded.kind is JobKind.OPEN
        asked = GivenOptions(setup=functions[1], label=self.table.label)
        options = dataclasses.replace(options, seed=self._recorded.seed)
        book = make_job(
            self.id, self.table, options, functions[0], asked, is_open=is_open, transport=transport, needs=needs
        )
        if is_open:
            record: JobRecord = OpenRecord(book, functions, asked)
            assert isinstance(record, OpenRecord)
            record.regrow(self._reader, self._recorded)
            book.sealed = True  # its user is not there
        else:
            record = JobRecord(book, functions, asked)
            book.retries, book.past = self.retries, self.past
        if self.over:
            restore_end(book, self._recorded)
        return record


def recorded_timings(duration: float | None, recorded: RecordedJob) -> Timings:
    """Return the recorded times: those of the last run, and its CPU time, but not where the time went."""
    timings = Timings(handler_name=recorded.handler_name or "", python=recorded.python or "")
    if duration is not None:
        timings.finished = duration
        timings.sums = dataclasses.replace(timings.sums, cpu=recorded.cpu or 0.0, items=recorded.ran or 0)
    return timings


def _replay(reader: Reader, recorded: RecordedJob, table: ItemTable, index: int) -> Any:
    """Run one recorded item here, as `JobItem.replay` does."""
    handler, setup = _load_handler(reader, recorded)
    _check_item_kept(recorded.id, table, index)
    packed = pack_handler(recorded.id, handler, setup, recorded.rule, recorded.seed)
    packed = packed._replace(frame=packed.frame._replace(is_open=recorded.kind is JobKind.OPEN))
    return replay_item(packed, table, index)


def _load_handler(reader: Reader, recorded: RecordedJob) -> tuple[Callable[..., Any], Callable[[], Any] | None]:
    """Load a recorded job's handler and setup. Raises `JournalError` if they were not kept, or can't be loaded.

    The folders in which modules were found when it was recorded are searched last from now on.
    """
    from mpqueue._parent.journal.kept_values import check_version, has_code

    now, kept = reader.at_once(lambda: (reader.now(recorded), reader.handler(recorded)))
    where = f"{reader.path}: the handler of job {recorded.id!r}"
    if (now.code, now.version, now.seed) != (recorded.code, recorded.version, recorded.seed):
        raise JournalError(f"{where}: expected that with which its items were read, got another one: the job was "
                           "created anew meanwhile; get it again, with get_job() say")  # fmt: skip
    if recorded.kind is JobKind.STAGES:
        raise JournalError(f"{where}: expected a job with one handler, got one with stages; call run_stages() with its "
                           "items and its stages instead")  # fmt: skip
    if kept is None:
        raise JournalError(f"{where}: expected one that is in the journal, got one that was too big; call "
                           "create_job() with its items and its handler instead")  # fmt: skip
    functions, path = kept
    sys.path += [entry for entry in path if entry not in sys.path]
    try:
        if any(has_code(data) for data, _ in functions):
            check_version(".".join((recorded.python or "").split(".")[:2]))
        with main_names.together():
            handler, setup = [load_parts(data, [*map(bytearray, buffers)]) for data, buffers in functions]
    except Exception as error:
        raise JournalError(f"{where} can't be loaded here ({type(error).__name__}: {error}); call create_job() with "
                           "its items and its handler instead") from error  # fmt: skip
    return handler, setup


def _check_item_kept(job_id: str, table: ItemTable, index: int) -> None:
    """Raise `JournalError` if an item can't run again."""
    from mpqueue._parent.journal.kept_values import NotKept, Unreadable

    if isinstance(table.payloads[index], NotKept | Unreadable):
        raise JournalError(
            f"job {job_id!r}: expected item {table.named(index)} in the journal, got "
            f"{shown(table.payloads[index])}; call create_job() with its items and its handler instead"
        )


def check_kept(book: PastJob) -> None:
    """Raise `JournalError` if items that have to run again can't: the failed ones, or all that have not ended."""
    table = book.table
    again = sorted(table.failures) if book.over else table.unfinished()
    for index in again:
        if table.status[index] != COMPLETED:
            _check_item_kept(book.id, table, index)
