"""The records of jobs whose items come while they run: `OpenRecord`, `RecordedStream` and `StagesRecord`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from mpqueue._core.messages import ItemsAdded
from mpqueue._core.rules.chunking import ChunkSizer
from mpqueue._core.state.item_table import DISCARD, Failure, ItemTable
from mpqueue._core.state.pending import Care
from mpqueue._core.state.pipeline import Pipeline
from mpqueue._options import GivenOptions, JobOptions
from mpqueue._output.progress import Showing
from mpqueue._parent.journal.chunk_rows import RowDraft, chunk_statement, fresh_row
from mpqueue._parent.journal.identity import SIZE, UNKNOWN, identify, why_unstable
from mpqueue._parent.journal.journal_file import Store
from mpqueue._parent.journal.journal_outlet import JournalJob, JournalOutlet
from mpqueue._parent.journal.journal_writer import Entry
from mpqueue._parent.journal.kept_results import NO_ROW, KeptResults
from mpqueue._parent.journal.kept_values import NotKept, Statement, Unreadable
from mpqueue._parent.journal.lots import (
    BY_USER,
    REMOVE_ALL,
    GivenItems,
    PassRecord,
    RecordedGrowth,
    StreamGrowth,
    Value,
    present_slots,
    read_passed,
)
from mpqueue._parent.journal.matching import Known, KnownStream
from mpqueue._parent.journal.suspects import MOST, care_of, ended_program, is_guilty
from mpqueue._queue.arguments import replay_item, reseed, send_results_to, take_rule
from mpqueue._queue.growing_jobs import OnEnded, Stream, seed_of
from mpqueue._queue.recorded.job_record import JobRecord, case_of, tell_of_lost, warn
from mpqueue._queue.recorded.resume import (
    AGAIN,
    GONE,
    Brought,
    Found,
    Plan,
    agree,
    regrow,
)
from mpqueue._wire.item_names import IdRule, ids_of, rule_of
from mpqueue._wire.parcels import Parcel, plain_ids
from mpqueue.errors import JournalError
from mpqueue.status import COMPLETED, FAILED, JobKind, JobStatus

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.run import JobRun


class OpenRecord(JobRecord):
    """The record of an open job that has not started. Its table has the items that its user gives it now.

    Recorded items come before them.
    """

    kind = JobKind.OPEN

    def _begin(self, outlet: JournalOutlet, columns: dict[str, Any]) -> JournalJob:
        """Begin a new record, with the items that are given; a recorded job of that id is removed."""
        book, journal = self.book, outlet.journal
        first, before = self._first_items(None), journal.find(book.id)
        if before is not None:
            journal.ask(lambda store: store.remove_job(before.number))
        number = journal.ask(lambda store: store.put_job(None, {**columns, "total": 0, "slots": 0}))
        empty = ItemTable([], None, IdRule.POSITION, grows=True)
        empty.growth = RecordedGrowth()
        self._have(empty)
        book.table.source = KeptResults(journal.reader, number, book.id, strict=True)
        self._add_first(outlet, number, *first)
        return JournalJob(number)

    def _go_on(self, outlet: JournalOutlet, recorded: RecordedJob, brought: Brought) -> JournalJob | None:
        """Continue the record: recorded items count even if they are not given; others are new.

        With another ``version``, or if ``redo`` asks for it, the job begins anew.
        """
        book, journal, redo = self.book, outlet.journal, self.rerun.redo
        case = case_of(journal.reader, recorded, brought, range(recorded.count))
        warnings = agree(case)
        if case.anew:
            return None
        first = self._first_items(recorded)
        warn(warnings)
        columns = self._changes(case)
        ids = () if redo is None or isinstance(redo, str) else redo
        self.regrow(journal.reader, recorded, ids, wants_results=book.table.sink is not DISCARD)
        if columns:
            journal.ask(lambda store: store.put_job(recorded.number, columns))
        if len(book.table):
            take_rule(book, IdRule(recorded.rule))
        self._take_seed(recorded.seed)
        journal_job = self._take_up(outlet, recorded.number, retried=redo == "failed")
        self._add_first(outlet, recorded.number, *first)
        return journal_job

    def _take_up(self, outlet: JournalOutlet, number: int, *, retried: bool = False) -> JournalJob:
        """Write what does not count any more, and go on with the rest. Only its handlers add more items."""
        assert self._regrown is not None
        outlet.journal.ask(self._regrown.write)
        return super()._take_up(outlet, number, retried=retried)

    _regrown: Regrown | None = None

    def regrow(
        self, reader: Reader, recorded: RecordedJob, redo: Collection[Any] = (), *, wants_results: bool = False
    ) -> None:
        """Return the journal's items, see `Regrown`. Changes nothing there. Raises `JournalError`."""
        self._regrown = reader.at_once(lambda: Regrown(reader, reader.now(recorded), redo, wants_results=wants_results))
        self._have(self._regrown.table)
        tell_of_lost(recorded.id, self._regrown.plan, self._regrown.items, "outcomes", reader.path)
        self.book.retries, self.book.past = recorded.retries, recorded.past

    # -- what it has -----------------------------------------------------------------------------------------

    def _have(self, table: ItemTable) -> None:
        book, sink, label = self.book, self.book.table.sink, self.book.table.label
        table.code = book.table.code
        book.table = table
        table.label = label
        book.order_by(None)
        if sink is not None:
            send_results_to(sink, book)
        table.replay = partial(replay_item, book.handler)

    # -- what it is given ------------------------------------------------------------------------------------

    def _first_items(self, recorded: RecordedJob | None) -> tuple[GivenItems, IdRule]:
        """Look at the given items. Raises TypeError, and then nothing has changed."""
        given = self.book.table
        rule = IdRule(recorded.rule) if recorded is not None and recorded.count else given.rule
        ids = plain_ids(rule, given.payloads)
        return RecordedGrowth.look_at(given.payloads, ids), rule

    def _add_first(self, outlet: JournalOutlet, number: int, given: GivenItems, rule: IdRule) -> None:
        """Add the given items on the thread that creates the job: no other has it yet."""
        book, table, growth = self.book, self.book.table, self.book.table.growth
        assert isinstance(growth, RecordedGrowth)
        chosen, _ = table.choose(given, None)
        if not chosen.items:
            table.take_in(chosen, rule)
            return
        if not len(table):
            take_rule(book, rule)
        book.take_in(chosen, rule)
        row = RowDraft(table, coming=growth.take(table)).row()
        assert row is not None
        assert row.items is not None
        statements, files = row.items.statements(number), [(file, number) for file in row.items.files]
        outlet.journal.ask(lambda store: store.write(statements, files))


# -- `Regrown`: the recorded items of an open job, from which a run continues, even if items are added again. ----------
#
# `regrow` decides which of them count, and which run again. One transaction has to write that items do not count, and
# that their maker runs again. Otherwise, if the program ended in between, a later program that has the maker's result
# would never get its items.

TOTAL = "UPDATE jobs SET total = ?, completed = ?, failed = ? WHERE number = ?"


class Regrown:
    """The recorded items of an open job. ``redo`` are the ids to run again, only of a job with ids.

    If it ``wants_results``, items whose results were discarded run again. ``plan`` has the decision for each slot;
    ``table`` has the items that count. Raises `JournalError` if the items' records are damaged, since some might be
    lost.
    """

    def __init__(self, reader: Reader, recorded: RecordedJob, redo: Collection[Any], *, wants_results: bool) -> None:
        self._number = recorded.number
        self._rows = [*reader.lots(recorded, items=True)]
        rule = IdRule(recorded.rule)
        payloads, ids = reader.items(recorded, self._rows)
        makers = array("q", itertools.chain.from_iterable(row.all_makers() for row in self._rows))
        self._present = present_slots(self._rows, recorded.count)
        #: All items, by slot.
        self.items = ItemTable(payloads, None if rule is IdRule.POSITION else ids, rule)
        _, missing = reader.fill(self.items, recorded, checked=True)
        discarded = self.items.discarded() if wants_results else ()
        self.plan = regrow(
            Found(self.items.status, ids, missing, discarded),
            redo,
            present=self._present,
            makers=makers,
            is_lost=lambda slot: isinstance(payloads[slot], NotKept | Unreadable),
            have_no_ids=rule is IdRule.POSITION,
        )
        self.plan.follow(self.items)
        stands = self.plan.stands
        slots: Sequence[int] = [slot for slot, how in enumerate(stands) if how != GONE]
        kept_ids = None if self.items.ids is None else [self.items.ids[slot] for slot in slots]
        self.table = table = self.items.picked(slots, kept_ids, grows=True)
        table.source = KeptResults(reader, recorded.number, recorded.id, strict=True)
        table.slots = None if len(slots) == len(self._present) else array("I", slots)
        table.growth = growth = RecordedGrowth(len(self._present))
        if rule is IdRule.POSITION:
            places = ((lot, at, slot) for lot in self._rows for at, slot in enumerate(lot.slots))
            growth.expected.update(
                lot.identity(at) for lot, at, slot in places if stands[slot] != GONE and makers[slot] == BY_USER
            )

    def write(self, store: Store) -> None:
        """Write which items no longer count, and which run again. Raises `sqlite3.Error`."""
        gone = {slot for slot in self.plan.those(GONE) if self._present[slot]}
        afresh = [*self.plan.those(AGAIN)]
        if not gone and not afresh:
            return
        statements: list[Statement] = []
        for row in self._rows:
            places = [at for at in range(row.size) if row.first + at in gone]
            if places:
                statements.append(row.without(places).put(self._number))
        if afresh:
            statements.append(chunk_statement(store.next_chunk(), self._number, fresh_row(afresh)))
        status = self.table.status
        counts = len(status), status.count(COMPLETED), status.count(FAILED), self._number
        store.write([*statements, (TOTAL, counts)])


# -- `RecordedStream`: a stream with a journal, so that items that ended in an earlier run do not run again. -----------
#
# An item's identity is a digest of its id, if the first item has one, else of its value, as in a job with a list.
# Recorded items end as they are added; the others run, and each ends once its outcome is on disk. Identities and
# results are held only within the window between both ends.

log = logging.getLogger("mpqueue")

T = TypeVar("T")

#: The most recorded items that are read ahead while no other items come.
MOST_RECALLED = 1024
#: The most bytes of their results, about.
MOST_RECALLED_BYTES = 16 << 20


def open_recorded_stream(
    queue: JobQueue,
    job_id: str,
    handler: Callable[..., Any],
    on_ended: OnEnded,
    options: JobOptions,
    asked: GivenOptions,
    *,
    names_one: bool,
    showing: Showing,
) -> RecordedStream:
    """`open_stream` for a stream that the queue's journal has, or will have, under this id.

    ``names_one`` is as for `JobRecord`. Raises `JournalMismatchError` if that is the id of a job with a list of items,
    and `JournalError`.
    """
    engine, table, records = queue._host.engine, ItemTable.of_stream(), list[StreamRecord]()
    outlet = engine.journal_outlet
    assert outlet is not None

    def begin(book: JobBook) -> None:
        record = StreamRecord(book, (handler, None), asked, names_one=names_one)
        record.record_or_go_on(outlet, engine.clock.wall())
        records.append(record)

    book, run = queue._host.start_table(
        table, options, handler, on_ended, sealed=False, showing=showing, job_id=job_id, record=begin
    )
    return RecordedStream(queue, book, table, run, outlet, records[0], on_ended)


class StreamRecord(JobRecord):
    """The record of a stream that has not started: its items come later."""

    kind = JobKind.STREAM
    known: KnownStream | None = None  #: the recorded items; None: there are none
    suspects: Mapping[int, int] = MappingProxyType({})  #: by slot: which items may have ended programs

    def _begin(self, outlet: JournalOutlet, columns: dict[str, Any]) -> JournalJob:
        columns |= {"total": 0, "slots": 0}
        return self._grow(outlet.journal.ask(lambda store: store.put_job(None, columns)), 0)

    def _grow(self, number: int, slots: int) -> JournalJob:
        self.number, self.growth = number, StreamGrowth(slots)
        if slots:
            self.book.table.slots = {}
        return JournalJob(number, stream=self.growth)

    def _go_on(self, outlet: JournalOutlet, recorded: RecordedJob, brought: Brought) -> JournalJob | None:
        book, journal = self.book, outlet.journal
        known, outcomes = journal.reader.known_items(recorded)
        case = case_of(journal.reader, recorded, brought, range(recorded.count), outcomes)
        warn(agree(case))
        columns = self._changes(case)
        self._take_seed(recorded.seed)
        self.known = known
        again: Sequence[int] = case.made.changed if self.rerun.redo == "changed-code" else ()
        if case.anew:
            columns["suspects"] = None
            again = range(recorded.count)
        elif suspects := journal.reader.suspects(recorded.number):
            self.suspects = suspects
            book.options = dataclasses.replace(book.options, chunksize=min(book.options.chunksize or MOST, MOST))
            book.sizer = ChunkSizer(book.options.chunksize)  # so that all are marked
        outcomes.void(again)
        columns |= {**outcomes.counts(), "status": str(JobStatus.PENDING)}
        journal.ask(lambda store: store.put_job(recorded.number, columns, rows=[fresh_row(again)] if again else ()))
        return self._grow(recorded.number, recorded.count)


#: Stands for the outcome of an item that runs.
_RUNS: Any = object()


class RecordedStream(Stream):
    """A stream made by `open_recorded_stream`. Recorded items end before the call that adds them returns."""

    def __init__(
        self,
        owner: JobQueue,
        book: JobBook,
        table: ItemTable,
        run: JobRun,
        outlet: JournalOutlet,
        record: StreamRecord,
        on_ended: OnEnded,
    ) -> None:
        super().__init__(owner, book, table, run)
        self._journal = outlet.journal
        self._record = record
        self._growth = record.growth
        self._on_ended = on_ended
        self._rule: IdRule | None = None  #: that of the first item
        self._known, record.known = record.known, None  # let go of once all have come
        self._results = KeptResults(outlet.journal.reader, record.number, book.id, strict=True)
        self._read_bytes = 0  #: of results, at the last look
        self._complained = False
        self._coming: deque[ItemsAdded] = deque()  #: waits for the coordinator
        self._ahead = 0  #: how many more items may be read since the last one that was not recorded
        run._alarms.append(partial(on_ended, ()))  # so that the consumer looks if there is trouble with the journal

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            log.warning("job %r: %s, so it runs again, and so do others like it", self._book.id, reason)

    # -- what the items are ----------------------------------------------------------------------------------

    def look_at(self, items: list[Any]) -> tuple[GivenItems, int, Exception | None]:
        """Return these items with their identities and states. Their errors are those of the input, and of ``key``."""
        first = self.next_index
        with contextlib.suppress(Exception):
            return self._identified(items, first), len(items), None
        for good, item in enumerate(items):  # one of them is at fault
            try:
                self._identified([item], first + good)
            except Exception as error:  # noqa: BLE001 - whatever users' code raises
                return self._identified(items[:good], first), good, error
        return self._identified(items, first), len(items), None

    def _identified(self, items: list[Any], first: int) -> GivenItems:
        if self._rule is None and items:
            self._rule = rule_of(items[0])
        ids = None if self._rule is None else ids_of(self._rule, items, first)
        identities, states = identify(items, ids, range(first, first + len(items)), self._record.rerun.key)
        return GivenItems(items, ids, identities=identities, states=states)

    # -- added -----------------------------------------------------------------------------------------------

    def add(self, items: GivenItems) -> range:
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
        before = [one.status for one, outcome in zip(known, outcomes, strict=True) if one and outcome is _RUNS]
        if lot is not None or before:
            self._growth.put(lot, before)
        if self._table.slots is not None:
            self._table.slots.update(zip(indices, slots, strict=True))
        recorded: list[range] = []
        for how, part in self._parts(outcomes, slots):
            if how is None:
                self._table.take_over(indices[part], outcomes[part])
                recorded.append(indices[part])
            self._coming.append(ItemsAdded(self._book, indices[part], how))
        if sum(map(len, recorded)) < len(indices):
            self._ahead = 0
        else:
            count, read = len(indices), self._read_bytes
            most = MOST_RECALLED_BYTES * count // read if read else MOST_RECALLED
            self._ahead = min(2 * self._ahead + count, most, MOST_RECALLED)
        self._tell_soon()
        for some in recorded:
            self._on_ended(some)
        return indices

    def _outcomes_of(self, items: GivenItems, same: Sequence[Known | None], slots: Sequence[int]) -> list[Any]:
        """Return the recorded results, and `_RUNS` for the others; ``same``: what is known of those not changed."""
        outcomes, read_before = [_RUNS] * len(same), self._results.read_bytes
        for row, some in _parts(NO_ROW if one is None else one.row for one in same) if self._known is not None else ():
            if row != NO_ROW:
                outcomes[some] = self._read(row, items, slots, some)
        self._read_bytes = self._results.read_bytes - read_before
        return outcomes

    def _read(self, row: int, items: GivenItems, slots: Sequence[int], some: slice) -> list[Any]:
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
            self._engine.coordinator().do_later(self._hurry)

    def _hurry(self) -> None:
        """Make the journal write at once. On the coordinator's thread, which posts ended items."""
        if self._growth.consumer_waits and self._book.nothing_under_way:
            self._journal.post(Entry((), urgent=True))

    def _tell(self) -> None:
        self._telling = False  # first: items added from now on are passed on by another call
        while self._coming:
            self._engine.handle(self._coming.popleft())

    # -- how far ahead ---------------------------------------------------------------------------------------

    def window(self, workers: int) -> int:
        """Return twice `Stream.window`: ended items wait for the disk while workers go on.

        Recorded items need no worker: while only these come, more are read at a time.
        """
        return 2 * super().window(workers) + self._ahead


def _parts(values: Iterable[T]) -> Iterator[tuple[T, slice]]:
    """Yield the stretches of equal values, each with one of them."""
    at = 0
    for value, those in groupby(values):
        yield value, slice(at, at := at + len([*those]))


# -- `StagesRecord`: the record of a job with stages in its queue's journal. -------------------------------------------
#
# A journal has the inputs, like the items of a list; their outcomes; and the values on their way between stages.

#: The name of a stage, its handler and its setup.
StageFunctions = tuple[str, Callable[..., Any], Callable[..., Any] | None]


class StagesRecord(JobRecord):
    """The record of a pipeline that has not started. Its book is the pipeline's head."""

    kind = JobKind.STAGES

    def __init__(self, pipeline: Pipeline, stages: Sequence[StageFunctions], asked: GivenOptions) -> None:
        super().__init__(pipeline.head, None, asked)
        self._pipeline = pipeline
        for number, (name, handler, setup) in enumerate(stages, 1):  # their order is code, too
            self._parts += ((f"stage {number}, {name!r}", handler),)
            if setup is not None:
                self._parts += ((f"the setup of stage {number}, {name!r}", setup),)

    def record_or_go_on(self, outlet: JournalOutlet, created_at: float) -> int:
        """Record the job, or continue its record."""
        number = super().record_or_go_on(outlet, created_at)
        pipeline, head = self._pipeline, self.book
        if pipeline.record is None:
            pipeline.record = PassRecord(range(len(head.table)))
        if head.restored:
            for job in pipeline.jobs:
                job.status = head.status
        return number

    def _carry_out(self, outlet: JournalOutlet, number: int, plan: Plan) -> JournalJob:
        """Go on, with the values that stages had passed on, for inputs that have not ended.

        Inputs that run as if for the first time don't use theirs, and if the code of any stage has changed, none does:
        these may be values of other stages. Such values leave the journal before it says that inputs or code are new,
        so a program that ends in between can't leave them for those.
        """
        journal_job = super()._carry_out(outlet, number, plan)
        pipeline, table = self._pipeline, self.book.table
        slots = range(len(table)) if table.slots is None else table.slots
        record = pipeline.record = PassRecord(slots)
        pipeline.jobs[0].table.slots = table.slots
        passed = {} if plan.code_is_new else read_passed(outlet.journal.reader, number)
        values = self._on_their_way(passed, slots, {*plan.those(AGAIN)})
        for root in values:
            record.keep(root, passed[slots[root]])
        outlet.journal.ask(lambda store: store.write([(REMOVE_ALL, (number,)), *record.statements(number)]))
        pipeline.go_on({root: [(path, at, Parcel(data)) for path, at, data in own] for root, own in values.items()})
        return journal_job

    def _on_their_way(
        self, passed: dict[int, list[Value]], slots: Sequence[int], afresh: Collection[int]
    ) -> dict[int, list[Value]]:
        """Return the values on their way that can be unpickled, for inputs that go on: by index, with today's paths."""
        table, count = self.book.table, len(self._pipeline.jobs)
        found = {}
        for root, slot in enumerate(slots) if passed else ():
            own = passed.get(slot)
            if own is None or table.ended(root) or root in afresh:
                continue
            places = {place for _, place, _ in own}
            if max(places) < count and self._pipeline.can_go_on(places) and all(_can_be_had(data) for *_, data in own):
                found[root] = [((root, *path[1:]), place, data) for path, place, data in own]
        return found

    def _take_seed(self, seed: int) -> None:
        """Take the record's seed, unless the user has given one; each stage's seed follows from it."""
        if self._seed_given:
            return
        self.book.options = dataclasses.replace(self.book.options, seed=seed)
        for place, job in enumerate(self._pipeline.jobs):
            reseed(job, seed_of(place, seed))


def _can_be_had(data: bytes) -> bool:
    """Return False for a value that can't be unpickled, say because its class is gone: its stage runs again."""
    try:
        Parcel(data).load()
    except Exception:  # noqa: BLE001 - whatever unpickling raises
        return False
    return True
