"""`RecordedStream`: a stream with a journal, so that items that ended in an earlier run do not run again.

An item's identity is a digest of its id, if the first item has one, else of its value, as in a job with a list.
Recorded items end as they are added; the others run, and each ends once its outcome is on disk. Identities and results
are held only within the window between both ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from mpqueue._core.messages import ItemsAdded
from mpqueue._core.rules.chunking import ChunkSizer
from mpqueue._core.state.item_table import Failure, ItemTable
from mpqueue._core.state.pending import Care
from mpqueue._options import GivenOptions, JobOptions
from mpqueue._output.progress import Showing
from mpqueue._parent.journal.chunk_rows import Row, fresh_row
from mpqueue._parent.journal.growth import StreamGrowth, StreamItems
from mpqueue._parent.journal.identity import (
    SIZE,
    UNKNOWN,
    Key,
    NoIdentityError,
    digest_of_key,
    digests,
    name_unstable,
    states_of,
    unknowable,
    why_unstable,
)
from mpqueue._parent.journal.journal_writer import Entry
from mpqueue._parent.journal.kept_results import KeptResults
from mpqueue._parent.journal.matching import Known, KnownStream
from mpqueue._parent.journal.recorder import Recorder, Recording
from mpqueue._parent.journal.suspects import MOST, care_of, ended_program, is_guilty
from mpqueue._queue.growing.stream import OnEnded, Stream
from mpqueue._queue.recorded.job_plan import case_of
from mpqueue._queue.recorded.job_record import JobRecord, heed
from mpqueue._queue.recorded.record_options import RecordOptions
from mpqueue._queue.recorded.resume import Brought, Judge, Kind, agree
from mpqueue._wire.item_names import IdRule, find_id, rule_of
from mpqueue.errors import JournalError, shown
from mpqueue.status import JobStatus

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook
    from mpqueue._parent.journal.journal_reader import RecordedJob
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.run import JobRun

log = logging.getLogger("mpqueue")

T = TypeVar("T")

#: The most recorded items that are read ahead while no other items come.
MOST_RECALLED = 1024
#: The most bytes of their results, about.
MOST_RECALLED_BYTES = 16 << 20


#: The most ended items that the coordinator has not received yet.
MUCH = 4096


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
    engine, table, records = queue._host.engine, ItemTable.of_stream(), list[StreamRecord]()
    recorder = engine.recorder
    assert recorder is not None
    asked = GivenOptions(seed=options.seed if seed_given else None)

    def begin(book: JobBook) -> None:
        record = StreamRecord(book, (handler, None), asked)
        record.record_or_go_on(recorder, engine.clock.wall(), options_of_record)
        records.append(record)

    book, run = queue._host.start_table(
        table, options, handler, on_ended, sealed=False, showing=showing, job_id=job_id, record=begin
    )
    return RecordedStream(queue, book, table, run, recorder, records[0], on_ended, options_of_record.key)


class StreamRecord(JobRecord):
    """The record of a stream that has not started: its items come later."""

    known: KnownStream | None = None  #: the recorded items; None: there are none
    suspects: Mapping[int, int] = MappingProxyType({})  #: by slot: which items may have ended programs
    _judge: Judge | None = None

    def record_or_go_on(self, recorder: Recorder, created_at: float, options: RecordOptions) -> None:
        """Record the stream, or continue its record."""
        journal, code = recorder.journal, self._take_code()
        recorded = journal.find(self.book.id)
        if recorded is None:
            columns = self._columns(created_at, code, options) | {"total": 0, "slots": 0, "generation": 1}
            self.number, slots = journal.ask(lambda store: store.put_job(None, columns)), 0
        else:
            self.number, slots = recorded.number, recorded.count
            self._resume(recorder, recorded, self._brought(code, options))
        if slots:
            self.book.table.slots = {}
        self.growth = StreamGrowth(slots)
        recorder.add(self.book, Recording(self.number, stream=self.growth))

    def _resume(self, recorder: Recorder, recorded: RecordedJob, brought: Brought) -> None:
        book, journal = self.book, recorder.journal
        case = case_of(journal.reader, recorded, Kind.STREAM, brought)
        terms = agree(case)
        heed(terms.refused, terms.warnings)
        columns = self._changes(case, terms)
        self._take_seed(recorded.seed)
        self.known, outcomes = journal.reader.known_items(recorded)
        rows: Sequence[Row] = ()
        if terms.anew:
            columns["suspects"] = None
            rows = [fresh_row(range(recorded.count))] if recorded.count else ()
            outcomes.void(range(recorded.count))
        elif suspects := journal.reader.suspects(recorded.number):
            self.suspects = suspects
            book.options = dataclasses.replace(book.options, chunksize=min(book.options.chunksize or MOST, MOST))
            book.sizer = ChunkSizer(book.options.chunksize)  # so that all are marked
        columns |= {**outcomes.counts(), "status": str(JobStatus.PENDING)}
        journal.ask(lambda store: store.put_job(recorded.number, columns, rows=rows))
        self._judge = Judge(case, log.warning)

    def counts(self, code: int) -> bool:
        """True if a result that the code of that number made counts."""
        return self._judge is None or self._judge.counts(code)


#: Stands for the outcome of an item that runs.
_RUNS: Any = object()


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
        on_ended: OnEnded,
        key: Key | None,
    ) -> None:
        super().__init__(owner, book, table, run)
        self._journal = recorder.journal
        self._record = record
        self._growth = record.growth
        self._on_ended = on_ended
        self._key = key
        self._rule: IdRule | None = None  #: that of the first item
        self._known, record.known = record.known, None  # let go of once all have come
        self._results = KeptResults(recorder.journal.reader, record.number, book.id, strict=True)
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

    # -- what the items are ----------------------------------------------------------------------------------

    def look_at(self, items: list[Any]) -> tuple[StreamItems, int, Exception | None]:
        """Return these items with their identities and states. Their errors are those of the input, and of ``key``."""
        if self._key is None:  # all at once, unless one of them is at fault
            with contextlib.suppress(Exception):
                return self._identified(items, self.next_index), len(items), None
        looked_at: list[StreamItems] = []
        for nth, item in enumerate(items, self.next_index):
            try:
                looked_at.append(self._identified([item], nth))
            except Exception as error:  # noqa: BLE001 - whatever users' code raises
                return StreamItems.of(looked_at), len(looked_at), error
        return StreamItems.of(looked_at), len(items), None

    def _identified(self, items: list[Any], first: int) -> StreamItems:
        if self._rule is None and items:
            self._rule = rule_of(items[0])
        ids: list[Hashable] | None = None
        if self._rule not in (None, IdRule.POSITION):
            ids = [self._id_of(item, nth) for nth, item in enumerate(items, first)]
        named = items if ids is None else ids
        try:
            identities = digests(named)
        except NoIdentityError:
            what = name_unstable(named, range(first, first + len(items)))
            raise unknowable(what, has_ids=ids is not None) from None
        states = identities if ids is None else states_of(items)
        if self._key is not None:
            names = range(first, first + len(items)) if ids is None else ids
            # No `map`, which a StopIteration of the key would end.
            states = b"".join([digest_of_key(self._key, *each) for each in zip(items, names, strict=True)])
        return StreamItems(items, identities, states, ids)

    def _id_of(self, item: Any, nth: int) -> Hashable:
        assert self._rule is not None
        try:
            return find_id(self._rule, item, nth)
        except (KeyError, TypeError, IndexError, AttributeError):
            where = 'an "id" key' if self._rule is IdRule.KEY else "an .id attribute"
            raise TypeError(f"items[{nth}]: expected {where}, as the first item has, got {shown(item)}") from None

    # -- added -----------------------------------------------------------------------------------------------

    def add(self, items: StreamItems) -> range:
        """Add items; recorded outcomes are read. Raises `JournalError`: after that, no items can be added."""
        self._growth.consumer_waits = False
        if self._known is not None and not self._known.any_left:
            self._known = None
        known = [None] * len(items.items) if self._known is None else self._known.take(items.identities, items.states)
        same = [None if one is None or one.changed else one for one in known]
        new = [at for at, one in enumerate(same) if one is None]
        free = itertools.count(self.next_index if self._table.slots is None else self._growth.next_slot)
        slots = [next(free) if one is None else one.slot for one in same]
        outcomes = self._outcomes_of(items, same, slots)
        replaced = [(at, one) for at, place in enumerate(new) if (one := known[place]) is not None]
        lot = None
        if new:  # which may run any code: so nothing has changed yet
            lot = items.only(new).lot(slots[new[0]], [(at, one.first) for at, one in replaced])
        indices = self._table.add(items.items)
        if lot is not None:
            self._growth.put(lot, [indices[at] for at in new], [one.status for _, one in replaced])
        if self._table.slots is not None:
            self._table.slots.update(zip(indices, slots, strict=True))
        for index, one, outcome in zip(indices, same, outcomes, strict=True) if len(new) < len(known) else ():
            if one is not None and outcome is _RUNS:
                self._growth.runs_again(index, one.status)
        recorded: list[range] = []
        for how, part in self._parts(outcomes, slots):
            if how is None:
                self._table.take_over(indices[part], outcomes[part])
                self._add_recorded(indices[part])
                recorded.append(indices[part])
            else:
                self._pass_on()
                self._coming.append(ItemsAdded(self._book, indices[part], how))
        self._note_ahead(sum(map(len, recorded)), len(indices))
        self._tell_soon()
        for some in recorded:
            self._on_ended(some)
        return indices

    def _outcomes_of(self, items: StreamItems, same: Sequence[Known | None], slots: Sequence[int]) -> list[Any]:
        """Return the recorded results, and `_RUNS` for the others; ``same``: what is known of those not changed."""
        outcomes, read_before = [_RUNS] * len(same), self._results.read_bytes
        made_by_each = (None if one is None else (one.row, one.code) for one in same)
        for made_by, some in _parts(made_by_each) if self._known is not None else ():
            if made_by is not None and made_by[0] and self._record.counts(made_by[1]):
                outcomes[some] = self._read(made_by[0], items, slots, some)
        self._read_bytes = self._results.read_bytes - read_before
        return outcomes

    def _read(self, row: int, items: StreamItems, slots: Sequence[int], some: slice) -> list[Any]:
        """Return the results of some items from that row; `_RUNS` for one that may have changed, or can't be read."""
        if UNKNOWN not in items.states[some.start * SIZE : some.stop * SIZE]:
            with contextlib.suppress(JournalError):  # one of them can't be read
                return self._results.read_all(row, slots[some])
        found = []
        for at in range(len(slots))[some]:
            outcome = _RUNS
            if items.states[at * SIZE : (at + 1) * SIZE] == UNKNOWN:
                self._complain(why_unstable(items.items[at]))
            else:
                try:
                    outcome = self._results.read(row, slots[at])
                except JournalError as error:
                    self._complain(f"the result of an item can't be read ({error})")
            found.append(outcome)
        return found

    def _parts(self, outcomes: Sequence[Any], slots: Sequence[int]) -> Iterator[tuple[Care | Failure | None, slice]]:
        """Yield parts that are handled alike, each with how; None: they have ended. A `Failure`: they end programs."""
        how: list[Care | Failure | None] = [Care.NONE if outcome is _RUNS else None for outcome in outcomes]
        for at, slot in enumerate(slots) if self._record.suspects else ():
            if how[at] is not None and (count := self._record.suspects.get(slot)):
                most = self._book.options.retry.max_retries
                how[at] = ended_program(count) if is_guilty(count, most) else care_of(count)
        return _parts(how)

    def expect(self) -> None:
        """Prepare to wait: outcomes are written at once if nothing else is under way."""
        if not self._growth.consumer_waits:
            self._growth.consumer_waits = True  # first: items that end from now on are written soon anyway
            self._host.do_later(self._hurry, self._book)

    def _hurry(self) -> None:
        """Make the journal write at once. On the coordinator's thread, which posts ended items."""
        if self._growth.consumer_waits and self._book.nothing_under_way:
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

    def _add_recorded(self, indices: range) -> None:
        """Add items that have ended, together with those that the coordinator has not received."""
        first = indices.start if self._recorded is None else self._recorded.indices.start
        self._recorded = ItemsAdded(self._book, range(first, indices.stop), None)

    def _pass_on(self) -> None:
        if self._recorded is not None:
            self._coming.append(self._recorded)
            self._recorded = None

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


def _parts(values: Iterable[T]) -> Iterator[tuple[T, slice]]:
    """Yield the stretches of equal values, each with one of them."""
    at = 0
    for value, those in groupby(values):
        yield value, slice(at, at := at + len([*those]))
