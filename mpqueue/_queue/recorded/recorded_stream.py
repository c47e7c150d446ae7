"""`RecordedStream`: a stream with a journal, so that items that ended in an earlier run do not run again.

Its items come as `StreamItem`s. Recorded items end as they are added; the others run, and each ends once its outcome is
on disk. Identities and results are held only within the window between both ends.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from mpqueue._core.messages import ItemsAdded
from mpqueue._core.state.item_table import Failure, ItemTable
from mpqueue._core.state.pending import Care
from mpqueue._options import JobOptions
from mpqueue._output.progress import Showing
from mpqueue._parent.journal.chunk_rows import Row, chunk_statement, fresh_row
from mpqueue._parent.journal.growth import ComingLot, StreamItem, StreamRecord, lot_of
from mpqueue._parent.journal.identity import (
    UNKNOWN,
    Key,
    NoIdentityError,
    digest,
    digest_of_key,
    name_unstable,
    state_of,
    unknowable,
    why_unstable,
)
from mpqueue._parent.journal.journal_writer import Entry
from mpqueue._parent.journal.kept_results import KeptResults
from mpqueue._parent.journal.kept_values import prepare
from mpqueue._parent.journal.matching import Known, KnownStream
from mpqueue._parent.journal.recorder import Recorder, Recording
from mpqueue._parent.journal.suspects import MOST, care_of, ended_program, is_guilty
from mpqueue._queue.growing.stream import OnEnded, Stream
from mpqueue._queue.host import Recorded
from mpqueue._queue.new_job import code_columns, first_columns, heed
from mpqueue._queue.recorded.code_parts import code_of
from mpqueue._queue.recorded.job_plan import case_of
from mpqueue._queue.recorded.record_options import RecordOptions
from mpqueue._queue.recorded.resume import Brought, Judge, Kind, agree
from mpqueue._wire.item_names import IdRule, find_id, rule_of
from mpqueue.errors import JournalError, shown
from mpqueue.status import JobStatus

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook
    from mpqueue._parent.journal.growth import StreamItem
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.run import JobRun

log = logging.getLogger("mpqueue")

#: The most recorded items that are read ahead while no other items come.
MOST_RECALLED = 1024
#: The most bytes of their results, about.
MOST_RECALLED_BYTES = 16 << 20


#: The most ended items that the coordinator has not received yet.
MUCH = 4096


class StreamPlace(NamedTuple):
    """The place of a stream in the journal."""

    number: int
    options: JobOptions
    known: KnownStream | None  #: the recorded ones; None: there are none
    slots: int  #: how many
    suspects: dict[int, int]  #: by slot: which items may have ended programs
    code: int  #: the number of the current code
    counts: Callable[[int], bool] = lambda _: True  #: whether a result that the code of that number made counts


def open_recorded_stream(
    queue: JobQueue,
    job_id: str,
    handler: Callable[..., Any],
    on_ended: OnEnded,
    options: JobOptions,
    options_of_record: RecordOptions,
    *,
    seed_given: bool = False,
    showing: Showing = Showing(),  # noqa: B008 - frozen
) -> RecordedStream:
    """`open_stream` for a stream that the queue's journal has, or will have, under this id.

    Raises `JournalMismatchError` if that is the id of a job with a list of items, and `JournalError`.
    """
    recorder = queue._host.engine.recorder
    assert recorder is not None
    stream = _find_place(queue, recorder, job_id, handler, options, options_of_record, seed_given=seed_given)
    table = ItemTable.of_stream()
    table.code = stream.code
    if stream.slots:
        table.slots = {}
    record = StreamRecord(stream.slots)
    recorded = Recorded(job_id, Recording(stream.number, stream=record))
    book, run = queue._host.start_table(
        table, stream.options, handler, on_ended, sealed=False, showing=showing, recorded=recorded
    )
    return RecordedStream(queue, book, table, run, recorder, record, stream, on_ended)


def _find_place(
    queue: JobQueue, recorder: Recorder, job_id: str, handler: Callable[..., Any], options: JobOptions,
    record: RecordOptions, *, seed_given: bool,
) -> StreamPlace:  # fmt: skip
    """Return the stream's place in the journal, old or new; the journal then has the run's beginning."""
    journal, reader, code = recorder.journal, recorder.journal.reader, code_of(handler)
    recorded = reader.find(job_id)

    def put(number: int | None, columns: dict[str, Any], rows: Sequence[Row] = ()) -> int:
        return journal.ask(lambda store: store.put_job(number, columns, rows=rows))

    if recorded is None:
        columns = first_columns(job_id, IdRule.POSITION, options.seed, queue._host.engine.clock.wall())
        columns |= code_columns((handler, None), code, record)
        number = put(None, columns | {"total": 0, "slots": 0, "generation": 1})
        return StreamPlace(number, options, None, 0, {}, code.code.number)
    brought = Brought(code, record, options.seed if seed_given else None)
    case = case_of(reader, recorded, Kind.STREAM, brought)
    terms = agree(case)
    heed(terms.refused, terms.warnings)
    columns = code_columns((handler, None), code, record, made=None if terms.anew else case.made)
    if not seed_given:
        options = dataclasses.replace(options, seed=recorded.seed)
    suspects = reader.suspects(recorded.number)
    known, outcomes = reader.known_items(recorded)
    rows: Sequence[Row] = ()
    if terms.anew:
        suspects, columns["suspects"] = {}, None
        rows = [fresh_row(range(recorded.count))] if recorded.count else ()
        outcomes.void(range(recorded.count))
    if suspects:
        options = dataclasses.replace(options, chunksize=min(options.chunksize or MOST, MOST))  # all are marked
    number = put(recorded.number, {**columns, **outcomes.counts(), "status": str(JobStatus.PENDING)}, rows)
    counts = Judge(case, log.warning).counts
    return StreamPlace(number, options, known, recorded.count, suspects, code.code.number, counts)


class _Found(NamedTuple):
    """An item that was read, its slot, its record, and its outcome: empty if it has to run."""

    entry: StreamItem
    slot: int
    known: Known | None = None  #: None: new or changed
    replaced: Known | None = None  #: its record, if it has changed
    outcome: tuple[object, ...] = ()


#: An item with its index in the stream.
_Coming = tuple[int, _Found]


class _Ringer:
    """Rings like a `Bell` if there is trouble with the journal."""

    def __init__(self, on_ended: OnEnded) -> None:
        self._on_ended = on_ended

    def ring(self) -> None:
        """Make the consumer look."""
        self._on_ended(())


class RecordedStream(Stream):
    """A stream made by `open_recorded_stream`. Recorded items end before the call that adds them returns."""

    def __init__(
        self,
        owner: JobQueue,
        book: JobBook,
        table: ItemTable,
        run: JobRun,
        recorder: Recorder,
        record: StreamRecord,
        place: StreamPlace,
        on_ended: OnEnded,
    ) -> None:
        super().__init__(owner, book, table, run)
        self._journal = recorder.journal
        self._record = record
        self._place = place
        self._on_ended = on_ended
        self._known = place.known
        self._results = KeptResults(recorder.journal.reader, place.number, book.id, strict=True)
        self._read_bytes = 0  #: of results, at the last look
        self._complained = False
        self._coming: deque[ItemsAdded] = deque()  #: waits for the coordinator
        self._recorded: ItemsAdded | None = None  #: ended, and follows all that waits
        self._ahead = 0  #: how many more items may be read since the last one that was not recorded
        run._alarms.append(_Ringer(on_ended))

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            log.warning("job %r: %s, so it runs again, and so do others like it", self._book.id, reason)

    def add(self, items: Sequence[StreamItem]) -> range:
        """Add items; recorded outcomes are read. Raises `JournalError`: after that, no items can be added."""
        self._record.consumer_waits = False
        found = self._find(items)
        lot = self._lot_of(found)  # which may run any code: so nothing has changed yet
        indices = self._table.add([entry.item for entry in items])
        self._give_slots(indices, found, lot)
        recorded: list[range] = []
        for care, some in self._by_care(list(zip(indices, found, strict=True))):
            stretch = range(some[0][0], some[-1][0] + 1)
            if care is None:
                self._add_recorded(stretch, self._end(stretch, some))
                recorded.append(stretch)
            else:
                self._pass_on()
                self._coming.append(ItemsAdded(self._book, stretch, care))
        self._note_ahead(sum(map(len, recorded)), len(items))
        self._tell_soon()
        for stretch in recorded:
            self._on_ended(stretch)
        return indices

    def _find(self, items: Sequence[StreamItem]) -> list[_Found]:
        """Return the records of these items, the next to come."""
        if self._known is not None and not self._known.any_left:
            self._known = None
        slot = self._table.added if self._table.slots is None else self._record.next_slot
        found, read_before = list[_Found](), self._results.read_bytes
        if self._known is None and not self._place.suspects:
            return [_Found(entry, at) for at, entry in enumerate(items, slot)]
        for entry in items:
            known = None if self._known is None else self._known.take(entry.identity, entry.state)
            if known is None or known.changed:
                each = _Found(entry, slot, None, known)
                slot += 1
            else:
                each = _Found(entry, known.slot, known, None, self._recorded_outcome(entry, known))
            found.append(self._judged(each))
        self._read_bytes = self._results.read_bytes - read_before
        return found

    def _recorded_outcome(self, entry: StreamItem, known: Known) -> tuple[object, ...]:
        if not known.row or not self._place.counts(known.code):
            return ()
        if entry.state == UNKNOWN:
            self._complain(why_unstable(entry.item))
            return ()
        try:
            return (self._results.read(known.row, known.slot),)
        except JournalError as error:
            self._complain(f"the result of an item can't be read ({error})")
            return ()

    def _lot_of(self, found: Sequence[_Found]) -> ComingLot | None:
        """Return a lot of the new ones among these items; None if there are none."""
        new = [(index, each) for index, each in enumerate(found, self._table.added) if each.known is None]
        if not new:
            return None
        replaced = [(at, each.replaced) for at, (_, each) in enumerate(new) if each.replaced is not None]
        return lot_of(new[0][1].slot, [index for index, _ in new], [each.entry for _, each in new], replaced)

    def _give_slots(self, indices: range, found: Sequence[_Found], lot: ComingLot | None) -> None:
        """Record the new ones under their slots, and look up those that run again."""
        if lot is not None:
            self._record.put(lot)
        if self._table.slots is not None:
            self._table.slots.update(zip(indices, [each.slot for each in found], strict=True))
            for index, each in zip(indices, found, strict=True):
                if each.known is not None and (not each.outcome or isinstance(each.outcome[0], Failure)):
                    self._record.runs_again(index, each.known.status)

    def _by_care(self, coming: list[_Coming]) -> Iterator[tuple[Care | None, list[_Coming]]]:
        """Yield stretches of items that are handled alike, each with how; None: they have ended."""
        if not self._place.suspects and not any(found.outcome for _, found in coming):
            if coming:
                yield Care.NONE, coming
            return
        for care, part in groupby(coming, lambda each: self._care(each[1])):
            yield care, [*part]

    def expect(self) -> None:
        """Prepare to wait: outcomes are written at once if nothing else is under way."""
        if not self._record.consumer_waits:
            self._record.consumer_waits = True  # first: items that end from now on are written soon anyway
            self._host.do_later(self._hurry, self._book)

    def _hurry(self) -> None:
        """Make the journal write at once. On the coordinator's thread, which posts ended items."""
        if self._record.consumer_waits and self._book.nothing_under_way:
            self._journal.post(Entry((), urgent=True))

    def _tell(self) -> None:
        self._telling = False  # first: items added from now on are passed on by another call
        while self._coming:
            self._host.handle(self._coming.popleft())

    def _tell_soon(self) -> None:
        """Pass items on to the coordinator; ended ones only together with items that run, or if there are many."""
        if self._recorded is not None and len(self._recorded.indices) > MUCH:
            self._pass_on()
        if self._coming:
            super()._tell_soon()

    def _add_recorded(self, indices: range, failures: int) -> None:
        """Add items that have ended, and count those that the coordinator has not received."""
        before = self._recorded
        if before is not None:
            indices, failures = range(before.indices.start, indices.stop), (before.failed or 0) + failures
        self._recorded = ItemsAdded(self._book, indices, failed=failures)

    def _pass_on(self) -> None:
        if self._recorded is not None:
            self._coming.append(self._recorded)
            self._recorded = None

    def _judged(self, found: _Found) -> _Found:
        """Return the item, as failed if it ends its program."""
        count = self._place.suspects.get(found.slot, 0)
        if found.outcome or not is_guilty(count, self._place.options.retry.max_retries):
            return found
        return found._replace(outcome=(ended_program(count),))

    def _care(self, found: _Found) -> Care | None:
        """Return how the item is handled; None if it has ended."""
        if found.outcome:
            return None
        count = self._place.suspects.get(found.slot)
        return Care.NONE if count is None else care_of(count)

    def _end(self, indices: range, some: Sequence[_Coming]) -> int:
        """End items, nearly always as in an earlier run; return how many failed because they end programs."""
        outcomes = [found.outcome[0] for _, found in some]
        failed = []
        for index, outcome in zip(indices, outcomes, strict=True) if self._place.suspects else ():
            if isinstance(outcome, Failure):
                self._table.fail_try(index, outcome, None)
                failed.append(index)
        self._table.take_over(indices, outcomes)
        if failed:
            self._write(failed)
        return len(failed)

    def _write(self, failed: Sequence[int]) -> None:
        """Write these to disk as failed. They run again the next time, and are then not suspected."""
        number, journal, suspects = self._place.number, self._journal, self._place.suspects
        # On the coordinator's thread, which takes new items as well.
        row = self._host.ask(lambda: self._record.draft(self._table, failed)).row()
        assert row is not None
        assert row.items is not None
        files = [(file, number) for file in row.files]
        for slot in self._table.slots_of(failed) or failed:
            suspects.pop(slot, None)
        statements = [*row.items.statements(number), chunk_statement(journal.next_chunk(), number, row)]
        journal.ask(lambda store: store.write(statements, files))
        journal.ask(lambda store: store.put_job(number, {"suspects": prepare(suspects)}))

    # -- how far ahead ---------------------------------------------------------------------------------------

    def window(self, workers: int) -> int:
        """Return twice `Stream.window`: ended items wait for the disk while workers go on.

        Recorded items need no worker: while only these come, more are read at a time.
        """
        return 2 * super().window(workers) + self._ahead

    def _note_ahead(self, recorded: int, count: int) -> None:
        if recorded < count:
            self._ahead = 0
            return
        most = MOST_RECALLED if not self._read_bytes else MOST_RECALLED_BYTES * count // self._read_bytes
        self._ahead = min(2 * self._ahead + count, most, MOST_RECALLED)

    # -- the end ---------------------------------------------------------------------------------------------

    def seal(self) -> None:
        self._pass_on()
        self._tell_soon()
        super().seal()


# -- `StreamItems`: the items of a stream as they are read, each with its identity. ------------------------------------
#
# An item's identity is a digest of its id, if the first item has one, else of its value, as in a job with a list.


class StreamItems(Iterator[StreamItem]):
    """The items of a stream, each with its identity and state, as they are read.

    Raises TypeError for an item without an identity, and errors of the input and of ``key``.

    Runs on the thread that reads the input, since it runs code of the items' classes. An interruption costs no item.
    """

    def __init__(self, items: Iterator[Any], key: Key | None = None) -> None:
        self._items = items
        self._key = key
        self._rule: IdRule | None = None
        self._count = 0
        self._read: list[Any] = []  #: an item whose identity is not known yet

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamItem:
        if not self._read:
            self._read.append(next(self._items))
        try:
            entry = self._entry(self._read[0])
        except StopIteration as error:  # from ``key``, or from an item's class: it would look like the end of the input
            raise RuntimeError("finding out what an item is raised StopIteration") from error
        self._count += 1
        self._read.clear()
        return entry

    def _entry(self, item: Any) -> StreamItem:
        if self._rule is None:
            self._rule = rule_of(item)
        if self._rule is IdRule.POSITION:
            identity = self._digest(item)
            state = identity if self._key is None else digest_of_key(self._key, item, self._count)
            return StreamItem(item, identity, state)
        try:
            item_id = find_id(self._rule, item, self._count)
        except (KeyError, TypeError, IndexError, AttributeError):
            where = 'an "id" key' if self._rule is IdRule.KEY else "an .id attribute"
            raise TypeError(
                f"items[{self._count}]: expected {where}, as the first item has, got {shown(item)}"
            ) from None
        identity = self._digest(item_id)
        return StreamItem(
            item, identity, state_of(item) if self._key is None else digest_of_key(self._key, item, item_id), item_id
        )

    def _digest(self, value: Any) -> bytes:
        try:
            return digest(value)
        except NoIdentityError:
            what = name_unstable([value], [self._count])
            raise unknowable(what, has_ids=self._rule is not IdRule.POSITION) from None
