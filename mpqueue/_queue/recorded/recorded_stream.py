"""`RecordedStream`: a stream whose items a journal knows, so that what has ended in an earlier run does not run again.

Its items come as `StreamItem`s. Those that are recorded end as they are added; the others run, and each ends once its
outcome is on disk. Neither identities nor results are held beyond the window between both ends.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.messages import ItemsAdded, ItemsRecalled
from mpqueue._core.state.item_table import Failure
from mpqueue._core.state.pending import Care
from mpqueue._options import JobOptions
from mpqueue._output.progress import Showing
from mpqueue._parent.journal.code.code_parts import CodeNow, code_of
from mpqueue._parent.journal.code.made_by import MadeBy
from mpqueue._parent.journal.guards.running_marks import MOST
from mpqueue._parent.journal.guards.suspects import care_of, ended_program, is_guilty
from mpqueue._parent.journal.items.streams.recall import Found, Recall
from mpqueue._parent.journal.items.streams.stream_rows import Awaited, RecordedStreamTable, StreamDraft, keep_item
from mpqueue._parent.journal.journal_file import JobItems
from mpqueue._parent.journal.journal_writer import Entry
from mpqueue._parent.journal.recorder import Recorder, Recording
from mpqueue._parent.journal.sealed import prepare
from mpqueue._queue.growing.stream import OnEnded, Stream
from mpqueue._queue.host import Recorded
from mpqueue._queue.new_job import NOT_AGAIN, WAYS, RecordOptions, code_columns, other_callable
from mpqueue._text import digits
from mpqueue._wire.ids import IdRule
from mpqueue.errors import JournalMismatchError
from mpqueue.status import JobStatus

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook
    from mpqueue._parent.journal.items.streams.stream_items import StreamItem
    from mpqueue._parent.journal.journal_reader import RecordedJob
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.run import JobRun

log = logging.getLogger("mpqueue")

#: How many recorded items are read ahead, at most, where nothing else comes.
MOST_RECALLED = 1024
#: And how many bytes of their results, about.
MOST_RECALLED_BYTES = 16 << 20


#: How many items have ended that the coordinator has not got yet, at most.
MUCH = 4096


class StreamPlace(NamedTuple):
    """Where a stream is in the journal."""

    number: int
    generation: int
    options: JobOptions
    recorded: int  #: rows that it has
    suspects: dict[int, int]  #: which items may have ended programs, by slot
    code: int  #: the number of the code that runs now
    counts: Callable[[int], bool]  #: whether a result counts that the code of that number made


def open_recorded_stream(
    queue: JobQueue,
    job_id: str,
    handler: Callable[..., Any],
    on_ended: OnEnded,
    options: JobOptions,
    record: RecordOptions,
    *,
    seed_given: bool = False,
    showing: Showing = Showing(),  # noqa: B008 - frozen
) -> RecordedStream:
    """`open_stream` for a stream that the queue's journal knows by this id, or will.

    Raises `JournalMismatchError` where that is the id of a job with a list of items, and `JournalError`.
    """
    recorder = queue._host.engine.recorder
    assert recorder is not None
    stream = _Opening(queue, recorder, job_id, handler, record, seed_given=seed_given).place(options)
    table = RecordedStreamTable(stream.generation)
    table.code = stream.code
    recorded = Recorded(job_id, Recording(stream.number))
    book, run = queue._host.start_table(
        table, stream.options, handler, on_ended, sealed=False, showing=showing, recorded=recorded
    )
    return RecordedStream(queue, book, table, run, recorder, stream, on_ended)


class _Opening:
    """Finds the stream in the journal, or begins it there."""

    def __init__(
        self,
        queue: JobQueue,
        recorder: Recorder,
        job_id: str,
        handler: Callable[..., Any],
        record: RecordOptions,
        *,
        seed_given: bool,
    ) -> None:
        self._queue = queue
        self._recorder = recorder
        self._id = job_id
        self._handler = handler
        self._record = record
        self._seed_given = seed_given

    def place(self, options: JobOptions) -> StreamPlace:
        """Where it is from now on. Its journal says that it is about to run."""
        reader = self._recorder.journal.reader
        recorded = reader.find(self._id)
        code = code_of(self._handler)
        columns: dict[str, Any] = {"status": str(JobStatus.PENDING)}
        if recorded is None:
            columns |= {
                "id": self._id,
                "rule": str(IdRule.POSITION),
                "seed": digits(options.seed),
                "created_at": self._queue._host.engine.clock.wall(),
                "total": 0,
                "slots": 0,
                "generation": 1,
                **code_columns((self._handler, None), code, self._record),
            }
            return StreamPlace(self._put(None, columns), 1, options, 0, {}, code.code.number, lambda _: True)
        if recorded.generation is None:
            raise JournalMismatchError(
                f"job {self._id!r} in {reader.path}: expected a stream, got a job with a list of items; nothing was "
                "changed; take another job_id"
            )
        made = MadeBy(reader, recorded, code)
        generation = self._generation(recorded, code, made, options, columns)
        if not self._seed_given:
            options = dataclasses.replace(options, seed=recorded.seed)
        suspects = self._recorder.journal.suspects.pop(recorded.number, {})
        if suspects and generation != recorded.generation:
            suspects, columns["suspects"] = {}, None
        if suspects:
            options = dataclasses.replace(options, chunksize=min(options.chunksize or MOST, MOST))  # all are marked
        number, judge = self._put(recorded.number, columns), _Judge(recorded, reader.path, made, self._record)
        return StreamPlace(number, generation, options, recorded.total, suspects, code.code.number, judge)

    def _generation(
        self, recorded: RecordedJob, code: CodeNow, made: MadeBy, options: JobOptions, columns: dict[str, Any]
    ) -> int:
        """The next one where everything is to run again."""
        assert recorded.generation is not None
        version, redo = self._record.version, self._record.redo
        other_version = version is not None and version != recorded.version
        is_anew = other_version or redo == "all"
        columns |= code_columns((self._handler, None), code, self._record, made=None if is_anew else made)
        if self._record.names_one or is_anew or version is not None or redo == "changed-code":
            change = ""
        else:
            change = made.describe_codes()
        if change:
            raise JournalMismatchError(other_callable(f"job {self._id!r} in {self._recorder.journal.path}", change))
        if is_anew:
            columns["generation"] = recorded.generation + 1
            return recorded.generation + 1
        if self._seed_given and recorded.seed != options.seed:
            log.warning("job %r in %s: its seed has changed since it was recorded; %s",
                        recorded.id, self._recorder.journal.path, NOT_AGAIN)  # fmt: skip
        return recorded.generation

    def _put(self, number: int | None, columns: dict[str, Any]) -> int:
        return self._recorder.journal.ask(lambda store: store.put_job(number, columns, JobItems()))


class _Judge:
    """Whether results count, by the numbers of the code that made them. Says once what has changed since."""

    def __init__(self, recorded: RecordedJob, path: str, made: MadeBy, options: RecordOptions) -> None:
        self._where = f"job {recorded.id!r} in {path}"
        self._made = made
        self._redo = options.redo == "changed-code"
        self._tells = options.version is None

    def __call__(self, number: int) -> bool:
        """True where a result of that code counts."""
        if self._made.is_other(number):
            if self._redo:
                return False
            self._tell(f"{self._made.describe_others([number], 'some')}; {NOT_AGAIN}; {WAYS}")
        elif self._made.is_unknown(number) and (self._made.is_new or self._redo):
            self._tell(self._made.describe_incomparable([number], "some"))
        return True

    def _tell(self, text: str) -> None:
        if self._tells:
            self._tells = False
            log.warning("%s: %s", self._where, text)


#: An item that has come: its index, what it is, and what is known of it.
_Coming = tuple[int, "StreamItem", Found]


class _Ringer:
    """Rings like a `Bell` where there is trouble with the journal."""

    def __init__(self, on_ended: OnEnded) -> None:
        self._on_ended = on_ended

    def ring(self) -> None:
        """Have the consumer look."""
        self._on_ended(())


class RecordedStream(Stream):
    """Made by `open_recorded_stream`. Items that are recorded end before the call that adds them returns."""

    def __init__(
        self,
        owner: JobQueue,
        book: JobBook,
        table: RecordedStreamTable,
        run: JobRun,
        recorder: Recorder,
        place: StreamPlace,
        on_ended: OnEnded,
    ) -> None:
        super().__init__(owner, book, table, run)
        self._rows = table
        self._journal = recorder.journal
        self._place = place
        self._on_ended = on_ended
        reader = recorder.journal.reader
        self._recall = Recall(
            reader.path,
            reader.read_file,
            place.number,
            place.generation,
            place.recorded,
            self._complain,
            place.counts,
        )
        self._complained = False
        self._coming: deque[ItemsAdded | ItemsRecalled] = deque()  #: what the coordinator is to get
        self._recorded: ItemsRecalled | None = None  #: what has ended, and follows all that is coming
        self._ahead = 0  #: how many more items may be read since all that came were recorded
        run._alarms.append(_Ringer(on_ended))

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            log.warning("job %r: %s, so it runs again, and so do others like it", self._book.id, reason)

    def add(self, items: Sequence[StreamItem]) -> range:
        """See `Stream`. Costs a look into the journal. Raises `JournalError`: then no more can be added."""
        self._rows.consumer_waits = False
        found = self._recall.find(items)
        if self._place.suspects:
            found = [self._judged(each) for each in found]
        indices = self._rows.extend([entry.item for entry in items])
        recorded: list[range] = []
        for care, some in self._by_care(list(zip(indices, items, found, strict=True))):
            stretch = range(some[0][0], some[-1][0] + 1)
            if care is None:
                self._add_recorded(stretch, self._end(stretch, some))
                recorded.append(stretch)
            else:
                self._rows.awaited.update((index, _awaited(entry, each)) for index, entry, each in some)
                self._pass_on()
                self._coming.append(ItemsAdded(self._book, stretch, care))
        self._note_ahead(sum(map(len, recorded)), len(items))
        self._tell_soon()
        for stretch in recorded:
            self._on_ended(stretch)
        return indices

    def _by_care(self, coming: list[_Coming]) -> Iterator[tuple[Care | None, list[_Coming]]]:
        """Those that follow each other and are handled alike; None: have ended."""
        if not self._place.suspects and not any(found.result for _, _, found in coming):
            if coming:
                yield Care.NONE, coming
            return
        for care, part in groupby(coming, lambda each: self._care(each[2])):
            yield care, [*part]

    def expect(self) -> None:
        """See `Stream`: what waits for the disk is written at once where nothing else is under way."""
        if not self._rows.consumer_waits:
            self._rows.consumer_waits = True  # first: what ends from now on is urgent by itself
            self._host.do_later(self._hurry, self._book)

    def _hurry(self) -> None:
        """On the coordinator's thread, which posts what has ended."""
        if self._rows.consumer_waits and self._book.nothing_under_way:
            self._journal.post(Entry((), urgent=True))

    def _tell(self) -> None:
        self._telling = False  # first: items that come from now on are passed on by another call
        while self._coming:
            self._host.handle(self._coming.popleft())

    def _tell_soon(self) -> None:
        """Pass what has come to the coordinator; what has ended only with items that are to run, or if it is much."""
        if self._recorded is not None and len(self._recorded.indices) > MUCH:
            self._pass_on()
        if self._coming:
            super()._tell_soon()

    def _add_recorded(self, indices: range, failures: int) -> None:
        """These have ended, and follow those that the coordinator has not got."""
        before = self._recorded
        if before is not None:
            indices, failures = range(before.indices.start, indices.stop), before.failures + failures
        self._recorded = ItemsRecalled(self._book, indices, failures)

    def _pass_on(self) -> None:
        if self._recorded is not None:
            self._coming.append(self._recorded)
            self._recorded = None

    def _judged(self, found: Found) -> Found:
        """The same; or that the item has failed, since it ends its program."""
        count = self._place.suspects.get(found.named.slot, 0)
        if found.result or not is_guilty(count, self._place.options):
            return found
        return found._replace(result=(ended_program(count),))

    def _care(self, found: Found) -> Care | None:
        """How the item is to be handled; None where it has ended."""
        if found.result:
            return None
        count = self._place.suspects.get(found.named.slot)
        return Care.NONE if count is None else care_of(count)

    def _end(self, indices: range, some: Sequence[tuple[int, StreamItem, Found]]) -> int:
        """These items have ended, nearly always in an earlier run; returns how many failed, since they end programs."""
        outcomes = [found.result[0] for _, _, found in some]
        failures = 0
        for index, entry, found in some if self._place.suspects else ():
            outcome = found.result[0]
            if isinstance(outcome, Failure):
                failures += 1
                self._rows.awaited[index] = _awaited(entry, found)
                self._rows.fail_try(index, outcome, None)
        self._rows.take_over(indices, outcomes)
        if failures:
            self._write([(index, found) for index, _, found in some if isinstance(found.result[0], Failure)])
        return failures

    def _write(self, failed: Sequence[tuple[int, Found]]) -> None:
        """Have these on disk as failed. They run again the next time, and are not suspected then."""
        rows, number = StreamDraft(self._rows, [index for index, _ in failed]).row(), self._place.number
        assert rows is not None
        files = [(file, number) for file in rows.files]
        suspects = self._place.suspects
        for _, found in failed:
            suspects.pop(found.named.slot, None)
        self._journal.ask(lambda store: store.write(rows.statements(number), files))
        self._journal.ask(lambda store: store.put_job(number, {"suspects": prepare(suspects)}, JobItems()))

    # -- how far ahead ---------------------------------------------------------------------------------------

    def window(self, workers: int) -> int:
        """See `Stream`; twice as many, since what has ended waits for the disk, while workers go on.

        What is recorded needs no worker: where nothing else comes, more is read at a time.
        """
        return 2 * super().window(workers) + self._ahead

    def _note_ahead(self, recorded: int, count: int) -> None:
        if recorded < count:
            self._ahead = 0
            return
        most = MOST_RECALLED if not self._recall.size else MOST_RECALLED_BYTES * count // self._recall.size
        self._ahead = min(2 * self._ahead + count, most, MOST_RECALLED)

    # -- the end ---------------------------------------------------------------------------------------------

    def seal(self) -> None:
        """See `Stream`."""
        self._recall.close()
        self._pass_on()
        self._tell_soon()
        super().seal()

    def cancel(self, *, kill: bool = True) -> None:
        """See `Stream`."""
        self._recall.close()
        super().cancel(kill=kill)


def _awaited(entry: StreamItem, found: Found) -> Awaited:
    return Awaited(found.named, entry.state, *keep_item(entry.item, entry.id), found.status)
