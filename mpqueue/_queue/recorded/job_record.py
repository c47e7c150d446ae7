"""`JobRecord`: the record of a job in its queue's journal, with the `Inventory` of its items, and the `JobPlan`."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import platform
import sys
from array import array
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import eq
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.state.columns import Column
from mpqueue._core.state.item_table import DISCARD, ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.resources import Uses, any_function
from mpqueue._options import GivenOptions
from mpqueue._parent.journal.chunk_rows import Row, fresh_row, make_row
from mpqueue._parent.journal.identity import SIZE, Key, What, identify, why_unstable
from mpqueue._parent.journal.journal_outlet import JournalJob, JournalOutlet
from mpqueue._parent.journal.kept_results import KeptResults, Outcomes
from mpqueue._parent.journal.kept_values import Statement, Unsealed, prepare
from mpqueue._parent.journal.lots import CUT, OF_LIST, Lot, keep_ids, slots_in
from mpqueue._parent.journal.matching import Match, match
from mpqueue._parent.journal.suspects import care_of, ended_program
from mpqueue._queue.arguments import replay_item, reseed, restore_end
from mpqueue._queue.recorded.code_parts import Code, CodeNow, code_of
from mpqueue._queue.recorded.record_options import Rerun
from mpqueue._queue.recorded.resume import (
    AGAIN,
    NEW,
    RETRIED,
    Brought,
    Case,
    Found,
    MadeBy,
    Plan,
    agree,
    check_kind,
    decide,
    judge,
)
from mpqueue._text import counted, digits
from mpqueue._wire.memory.shared import Shared, size_of
from mpqueue._wire.pickling import beside
from mpqueue._wire.pickling.beside import within
from mpqueue._wire.pickling.packed_handler import name_of
from mpqueue._wire.pickling.payload import dump_by_value
from mpqueue.errors import shown
from mpqueue.status import FAILED, OVER, JobKind, JobStatus

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._parent.journal.journal_writer import Journal

log = logging.getLogger("mpqueue")

#: A handler and its setup.
Functions = tuple[Callable[..., Any], Callable[..., Any] | None]
#: What they are, for people.
ROLES = ("the handler", "the setup")
#: The largest handler, in bytes, that is kept in the journal.
MOST_HANDLER = 4 << 20


class JobRecord:
    """The record of a job that has not started, with a list of items. ``functions`` are its handler and its setup.

    ``names_one`` is False for a job named after its handler: another handler may have that name, so other code is
    refused.
    """

    kind = JobKind.LIST

    def __init__(
        self, book: JobBook, functions: Functions | None, asked: GivenOptions, *, names_one: bool = True
    ) -> None:
        self.book = book
        self.rerun = asked.rerun or Rerun()
        self._functions = functions
        self._parts = () if functions is None else tuple(zip(ROLES, functions, strict=True))
        self._names_one = names_one
        self._seed_given = asked.seed is not None
        self._by_recorded_cost = isinstance(asked.cost, str)
        #: Its items' needs, for the journal.
        self._uses = None if asked.uses is None else _written_uses(asked.uses)

    def record_or_go_on(self, outlet: JournalOutlet, created_at: float) -> int:
        """Record the job from now on; if the journal has it, its table takes over the items that have ended.

        Returns the job's number there. Waits until it is on disk. Call it outside of locks, since it runs code of the
        items' classes. Raises `JournalMismatchError` for a job with other items, unless ``update``; `JournalError`;
        TypeError for items that have no identity; and errors of ``key``.
        """
        code, recorded = self._take_code(), outlet.journal.find(self.book.id)
        journal_job = None
        if recorded is not None:
            check_kind(recorded, self.kind, outlet.journal.path)
            journal_job = self._go_on(outlet, recorded, self._brought(code))
        if journal_job is None:
            journal_job = self._begin(outlet, self._columns(created_at, code))
        outlet.add(self.book, journal_job)
        return journal_job.number

    def _begin(self, outlet: JournalOutlet, columns: dict[str, Any]) -> JournalJob:
        """Begin a new record, with these columns beside those of its items."""
        book, inventory = self.book, Inventory(self.book.table, self.rerun.key)
        number = inventory.add(outlet.journal, columns)
        book.table.source = KeptResults(outlet.journal.reader, number, book.id, strict=True)
        return JournalJob(number)

    def record_as_it_is(self, outlet: JournalOutlet, number: int) -> None:
        """Record from now on a job that was read from the journal, where it has this number.

        Raises `JournalError`.
        """
        reader = outlet.journal.reader
        recorded = reader.line(number)
        assert recorded is not None
        made = MadeBy(reader.codes(recorded), self._take_code())
        if made.is_new:  # as it may be if the journal has the handler by name
            codes = written_codes(made.all())
            outlet.journal.ask(lambda store: store.put_job(number, {"codes": codes}))
        outlet.add(self.book, self._take_up(outlet, number))

    def _take_code(self) -> CodeNow:
        """Return the functions' current code; results from now on count as made by it."""
        code = code_of(self._parts)
        self.book.table.code = code.code.number
        return code

    def _columns(self, created_at: float, code: CodeNow) -> dict[str, Any]:
        """Return the journal's columns of a new job, without those of its items."""
        book = self.book
        columns: dict[str, Any] = {"id": book.id, "kind": self.kind, "rule": str(book.table.rule)}
        columns |= {"seed": digits(book.options.seed), "created_at": created_at}
        label = book.table.label
        columns |= {"status": str(JobStatus.PENDING), "uses": self._uses}
        columns |= {"label": label if isinstance(label, str) else None}
        return columns | self._code_columns(code)

    def _changes(self, case: Case) -> dict[str, Any]:
        """Return the columns that differ from those of the recorded job, without those of its items."""
        columns = self._code_columns(case.brought.code, None if case.anew else case.made)
        return columns if case.recorded.uses == self._uses else columns | {"uses": self._uses}

    def _code_columns(self, code: CodeNow, made: MadeBy | None = None) -> dict[str, Any]:
        """Return the journal's columns of the handler and the setup; for stages only their code.

        With ``made``, only new ones, if results are kept.
        """
        if made is not None and not made.is_new:
            return {}
        columns: dict[str, Any] = {}
        if self._functions is not None:
            columns = {
                "handler": _keep_handler(*self._functions),
                "python": platform.python_version(),
                "handler_name": name_of(self._functions[0]),
            }
        if made is not None:
            return columns | {"codes": written_codes(made.all())}
        return columns | {"codes": written_codes([code.code]), "version": self.rerun.version}

    def _brought(self, code: CodeNow) -> Brought:
        """Return the program's side of a recorded job: its code, its options, and the seed if one was given."""
        given, wants_results = self.book.options, self.book.table.sink is not DISCARD
        seed = given.seed if self._seed_given else None
        return Brought(code, self.rerun, seed, given.retry.max_retries, wants_results, self._names_one)

    def _go_on(self, outlet: JournalOutlet, recorded: RecordedJob, brought: Brought) -> JournalJob | None:
        """Take over the items that have ended, and update the journal; None if all of it is to begin anew."""
        book, table, reader = self.book, self.book.table, outlet.journal.reader
        inventory = Inventory(table, self.rerun.key)
        compared = compare(reader, recorded, inventory, brought, checked=True)
        recorded, match, plan = compared.case.recorded, compared.match, compared.plan
        warn(plan.warnings)
        columns = self._changes(compared.case)
        places = reader.places(recorded)
        tell_of_lost(book.id, plan, table, "results", reader.path)
        if self._by_recorded_cost:
            book.order_by(_with_mean(table.elapsed))
        self._take_seed(recorded.seed)
        book.retries, book.past = recorded.retries, recorded.past
        plan.follow(table)
        journal_job = self._carry_out(outlet, recorded.number, plan)
        same = match.is_same and places == table.slots
        if not same or plan.any(AGAIN) or columns:
            columns |= {"completed": book.completed, "failed": book.failed, "status": str(plan.status)}
            inventory.write(outlet.journal, recorded, match, columns, plan.those(AGAIN), everything=compared.case.anew)
        if book.all_ended and plan.status in OVER:
            book.restored = True
            restore_end(book, dataclasses.replace(recorded, status=plan.status))
        return journal_job

    def _take_up(self, outlet: JournalOutlet, number: int, *, retried: bool = False) -> JournalJob:
        """Go on with the items as they stand in the table; ``retried``: failed ones are tried again."""
        table, counts = self.book.table, outlet.journal.reader.suspects(number)
        plan, slots = Plan(bytearray(table.status)), range(len(table)) if table.slots is None else table.slots
        if retried:
            plan.stands = plan.stands.replace(bytes((FAILED,)), bytes((RETRIED,)))
        judge(plan, slots, counts, self.book.options.retry.max_retries)
        return self._carry_out(outlet, number, plan)

    def _carry_out(self, outlet: JournalOutlet, number: int, plan: Plan) -> JournalJob:
        """Try failed items again, and fail those that end their programs, also in the journal; the book goes on."""
        book, table = self.book, self.book.table
        tries = {index: len(history) for index, history in table.history.items()}
        journal_job = JournalJob(number, tries, {index for index in table.failures if table.status[index] == FAILED})
        if plan.any(RETRIED):
            table.forget_failures()
        for index, count in plan.guilty.items():
            failure = ended_program(count)
            table.fail_try(index, failure, None)
            table.fail(index, failure)
        book.go_on({index: care_of(count) for index, count in plan.suspects.items()})
        if plan.guilty:
            journal_job.failed.update(plan.guilty)
            row, counts = make_row(table, [*plan.guilty], tries), {"completed": book.completed, "failed": book.failed}
            outlet.journal.ask(lambda store: store.put_job(number, counts, rows=[row]))
        return journal_job

    def _take_seed(self, seed: int) -> None:
        """Take the record's seed, unless the user has given one."""
        if self._seed_given:
            return
        reseed(self.book, seed)
        self.book.table.replay = partial(replay_item, self.book.handler)


def _with_mean(took: Column[float]) -> array[float]:
    """Return the seconds, with the mean for unknown ones."""
    known = [seconds for seconds in took if seconds > 0]
    mean = math.fsum(known) / len(known) if known else 0.0
    return array("f", (seconds if seconds > 0 else mean for seconds in took))


def _written_uses(uses: Uses) -> str:
    """Return the items' checked needs as a journal has them; functions are only noted as such."""
    if not isinstance(uses, Mapping) or any_function(uses):
        return "null"
    amounts: dict[Any, Any] = dict(uses)
    return json.dumps({str(name): str(one) if isinstance(one, str) else int(one) for name, one in amounts.items()})


def written_codes(codes: Iterable[Code]) -> Unsealed:
    """Return codes as they are written in their job's line."""
    return prepare([(code.python, dict(code.parts), dict(code.packages)) for code in codes])


def warn(warnings: Iterable[str]) -> None:
    """Log these warnings."""
    for warning in warnings:
        log.warning("%s", warning)


def tell_of_lost(job_id: str, plan: Plan, items: ItemTable, what: str, path: str) -> None:
    """Log which items run again because ``what`` they had brought, or they themselves, are missing, or may differ."""
    if plan.unreadable:
        log.warning("job %r: the %s of %s can't be read from %s, so they run again; the first is %s",
                    job_id, what, counted(len(plan.unreadable), "item"), path,
                    items.named(plan.unreadable[0]))  # fmt: skip
    if plan.discarded:
        log.warning("job %r: the results of %s were discarded in an earlier run, by %s, so they run again; the first "
                    "is %s", job_id, counted(len(plan.discarded), "item"), path,
                    items.named(plan.discarded[0]))  # fmt: skip
    if plan.lost:
        log.warning("job %r: %s that should run can't be read from %s: the makers of those that handlers had added "
                    "run again; the others run once their program adds them again; the first is %r",
                    job_id, counted(len(plan.lost), "item"), path, items.payloads[plan.lost[-1]])  # fmt: skip
    if plan.unknown:
        first = plan.unknown[0]
        payload = items.payloads_of([first])[0]
        why = why_unstable(payload) or f"the journal does not say what {shown(payload)} was"
        log.warning("job %r: whether %d of its items have changed can't be known, so they run again: items[%d]: %s",
                    job_id, len(plan.unknown), first, why)  # fmt: skip


def _keep_handler(handler: Callable[..., Any], setup: Callable[..., Any] | None) -> Unsealed | None:
    """Return the functions by value, and the folders of their modules; None if that is too much."""
    kept = []
    for function in (handler, setup):
        noted = list[Shared[Any]]()
        data, buffers = within(partial(dump_by_value, function), (beside.noted, noted))
        if sum(map(size_of, noted)) > MOST_HANDLER:
            return None
        if noted:
            data, buffers = within(partial(dump_by_value, function), (beside.whole, True))
        if len(data) + sum(buffer.nbytes for buffer in buffers) > MOST_HANDLER:
            return None
        kept.append((data, [bytes(buffer) for buffer in buffers]))
    return prepare((kept, [os.path.abspath(entry) for entry in sys.path]))


# -- The items of a job on their way into a journal: which are recorded, and the rows to write for the rest. -----------
#
# Everything here runs on the thread that creates the job, since it may run code of the items' classes.

#: Items looked at together; and items written in one transaction.
BLOCK = 4096
BATCH = 16 * BLOCK


class Inventory:
    """The items of one job. Raises TypeError for items without identity, and errors of ``key``."""

    def __init__(self, table: ItemTable, key: Key | None) -> None:
        self.table = table
        self._key = key

    # -- what the items are ----------------------------------------------------------------------------------

    def _values(self, indices: Sequence[int]) -> tuple[list[Any], list[Any] | None]:
        ids = self.table.ids
        return self.table.payloads_of(indices), None if ids is None else [ids[index] for index in indices]

    def _lot(self, first: int, indices: Sequence[int]) -> Lot:
        """Make a lot of these items, in the slots from the first on."""
        payloads, ids = self._values(indices)
        identities, states = identify(payloads, ids, indices, self._key)
        try:
            named = None if ids is None else keep_ids(ids)
        except Exception as error:
            raise TypeError(f"items: expected ids that can be pickled for the journal, got {error}") from error
        return Lot.of(first, payloads, identities, states, named)

    def _lots(self, first: int, indices: Sequence[int]) -> list[Lot]:
        """Make lots of these items, in the slots from the first on."""
        return [self._lot(first + lo, indices[lo : lo + OF_LIST]) for lo in range(0, len(indices), OF_LIST)]

    # -- a job that the journal has not ----------------------------------------------------------------------

    def add(self, journal: Journal, columns: dict[str, Any]) -> int:
        """Write a new job; returns its number. The job counts once all of it is on disk. Raises `JournalError`."""
        count = len(self.table)
        number: int | None = None
        try:
            for lo in range(0, max(count, 1), BATCH):
                hi = min(lo + BATCH, count)
                lots = self._lots(lo, range(lo, hi))
                total = {"total": count, "slots": count} if hi == count else {"total": -1}
                changes = {**columns, **total} if number is None else total
                number = journal.ask(_put(number, changes, lots))
        except BaseException:
            if number is not None:
                journal.ask(_remove(number))
            raise
        assert number is not None
        return number

    # -- a job that the journal has

    def match(self, reader: Reader, recorded: RecordedJob) -> Match:
        """Find which items are recorded. Sets the table's slots, those of new items too. Raises `JournalError`."""
        places = reader.places(recorded)
        order: Sequence[int] = range(recorded.count)
        lots = reader.lots(recorded, items=False)
        what: Iterable[What] = (lot.what() for lot in lots)
        present = None
        if places is not None:
            present = slots_in(places, recorded.count)
            order, what = _in_order(places, present, lots)
        count = len(self.table)
        blocks = (range(lo, min(lo + BLOCK, count)) for lo in range(0, count, BLOCK))
        found = match((identify(*self._values(block), block, self._key) for block in blocks), what, order)
        if present is not None:
            found.note_absent(present)
        found.number_new(recorded.count)
        trivial = recorded.count + len(found.new) == count and all(map(eq, found.slots, range(count)))
        self.table.slots = None if trivial else found.slots
        return found

    def write(
        self,
        journal: Journal,
        recorded: RecordedJob,
        found: Match,
        columns: dict[str, Any],
        afresh: Iterable[int],
        *,
        everything: bool,
    ) -> None:
        """Write the items' current states; those at the indices ``afresh`` become as if they had never run.

        With ``everything`` all recorded items do, gone ones too. Raises `JournalError`; then nothing has changed.
        """
        table = self.table
        cut: Statement = (CUT, (recorded.number, recorded.count))
        journal.ask(lambda store: store.write([cut] if found.new else []))
        for lo in range(0, len(found.new), BATCH):  # they count once the job's line is written
            journal.ask(_put(recorded.number, {}, self._lots(recorded.count + lo, found.new[lo : lo + BATCH])))
        reader = journal.reader
        lots = reader.at_once(lambda: [*self._changed_lots(reader, recorded, found)])
        if everything:
            slots = range(recorded.count)
            rows = [fresh_row(slots[lo : lo + BATCH]) for lo in range(0, len(slots), BATCH)]
        else:
            slots_afresh = sorted(found.slots[index] for index in afresh)
            rows = [fresh_row(slots_afresh)] if slots_afresh else []
        places = None if table.slots is None else prepare(table.slots.tobytes())
        columns = {
            **columns,
            "total": len(table),
            "slots": recorded.count + len(found.new),
            "places": places,
            "rule": str(table.rule),
        }
        journal.ask(_put(recorded.number, columns, lots, rows))

    def _changed_lots(self, reader: Reader, recorded: RecordedJob, found: Match) -> Iterator[Lot]:
        slot_of = found.slots.__getitem__
        changed = deque(sorted(found.changed, key=slot_of))
        while changed:
            lot, indices = reader.lot_with(recorded, slot_of(changed[0])), list[int]()
            while changed and slot_of(changed[0]) in lot.slots:
                indices.append(changed.popleft())
            yield lot.changed([slot_of(index) - lot.first for index in indices], self._lot(lot.first, indices))


def _put(
    number: int | None, columns: dict[str, Any], lots: Sequence[Lot], rows: Sequence[Row] = ()
) -> Callable[[Any], int]:
    return lambda store: store.put_job(number, columns, lots, rows)


def _remove(number: int) -> Callable[[Any], None]:
    return lambda store: store.remove_job(number)


def _in_order(places: array[int], present: bytearray, lots: Iterable[Lot]) -> tuple[Sequence[int], Iterator[What]]:
    """Return the slots in the order of the last list, then the gone ones; with their identities and states."""
    identities, states = bytearray(), bytearray()
    known = bytearray(b"\1") * len(present)
    for lot in lots:
        columns = lot.what()
        identities += columns[0]
        states += columns[1]
        for at in lot.gone:  # forgotten
            known[lot.first + at] = 0
    gone = array("I", (slot for slot, there in enumerate(present) if not there and known[slot]))
    order = places + gone

    def pieces() -> Iterator[What]:
        for lo in range(0, len(order), BLOCK):
            part = order[lo : lo + BLOCK]
            which = b"".join([identities[slot * SIZE : (slot + 1) * SIZE] for slot in part])
            state = b"".join([states[slot * SIZE : (slot + 1) * SIZE] for slot in part])
            yield which, state

    return order, pieces()


# -- `JobPlan`: what a job would do, given its record in a journal; runs begin with the same comparison. ---------------


@dataclass(frozen=True, slots=True)
class JobPlan:
    """The plan of `JobQueue.create_job` with ``Rerun(update=True)``. Each field but the last two has items' ids.

    ``same`` are recorded and unchanged; ``failed`` are those among them that failed for good and do not run again by
    themselves. ``changed`` would run again, ``new`` for the first time. ``gone`` are recorded, but are no longer among
    the items; if ids are positions, these are the items themselves.
    """

    same: tuple[Hashable, ...] = ()
    changed: tuple[Hashable, ...] = ()
    new: tuple[Hashable, ...] = ()
    gone: tuple[Any, ...] = ()
    failed: tuple[Hashable, ...] = ()
    to_run: int = 0  #: how many items would run
    code_changed: bool = False  #: the handler's code has changed since some of the results were made

    def __str__(self) -> str:
        counts = (
            f"{len(ids)} {what}"
            for what, ids in (
                ("same", self.same), ("changed", self.changed), ("new", self.new), ("gone", self.gone),
                ("failed", self.failed),
            )
        )  # fmt: skip
        return f"{', '.join(counts)}; {self.to_run} to run"


class Compared(NamedTuple):
    """A job's items, compared with the journal's. ``gone`` are as in `JobPlan`."""

    case: Case
    match: Match
    plan: Plan
    gone: tuple[Any, ...] = ()


def case_of(
    reader: Reader,
    recorded: RecordedJob,
    brought: Brought,
    slots: Sequence[int],
    outcomes: Outcomes | None = None,
) -> Case:
    """Return a recorded job and its program's side, after a look at the outcomes in these slots."""
    made = MadeBy(reader.codes(recorded), brought.code)
    if made.may_differ:
        made.look((outcomes or reader.outcomes(recorded)).ended_by(slots))
    return Case(recorded, reader.path, made, brought)


def compare(
    reader: Reader,
    recorded: RecordedJob,
    inventory: Inventory,
    brought: Brought,
    *,
    checked: bool,
) -> Compared:
    """Note in the inventory's table how its items ended, and what the run does with them. Changes nothing else.

    Results that are not ``checked`` are not read: no item runs again because that fails. Raises the errors of
    `create_job` about journals and items.
    """
    table = inventory.table

    def find() -> Compared:
        now = reader.now(recorded)
        match = inventory.match(reader, now)
        table.start_afresh(range(len(table)) if any(table.status) else ())  # a look before this one was incomplete
        outcomes, missing = reader.fill(table, now, checked=checked)
        case = case_of(reader, now, brought, match.slots, outcomes)
        ids = range(len(table)) if table.ids is None else table.ids
        discarded = table.discarded() if brought.wants_results else ()
        warnings, found = agree(case), Found(table.status, ids, missing, discarded, reader.suspects(now.number))
        plan = decide(case, warnings, match, found)
        names = reader.names(now) if match.gone and not checked else ()
        return Compared(case, match, plan, tuple(names[slot] for slot in match.gone) if names else ())

    return reader.at_once(find)


def plan(
    reader: Reader | None,
    recorded: RecordedJob | None,
    table: ItemTable,
    functions: tuple[Any, Any],
    rerun: Rerun,
    *,
    max_retries: int,
    wants_results: bool,
) -> JobPlan:
    """Plan a job of these items, by its journal (None: there is none yet) and its ``recorded`` job (None: a new job).

    Changes nothing. Raises the errors of `compare`.
    """
    if reader is None or recorded is None:
        return JobPlan(new=tuple(map(table.id_of, range(len(table)))), to_run=len(table))
    check_kind(recorded, JobKind.LIST, reader.path)
    inventory = Inventory(table, rerun.key)
    rerun = dataclasses.replace(rerun, update=True, strict=False)
    brought = Brought(code_of(zip(ROLES, functions, strict=True)), rerun, None, max_retries, wants_results)
    compared = compare(reader, recorded, inventory, brought, checked=False)
    found, gone, code_changed = compared.plan, compared.gone, bool(compared.case.made.changed)
    del compared, inventory  # the tuples of ids take as much as all the rest
    table.results.clear()
    ids: Sequence[Hashable] = range(len(table)) if table.ids is None else table.ids
    others = set(range(256)).difference((AGAIN, NEW))
    return JobPlan(
        tuple(found.pick(ids, *others)),
        tuple(found.pick(ids, AGAIN)),
        tuple(found.pick(ids, NEW)),
        gone,
        tuple(found.pick(ids, FAILED, RETRIED)),
        found.to_run,
        code_changed,
    )
