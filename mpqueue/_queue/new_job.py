"""`NewJob`: a job that is being created, recorded in a journal, or continued from there."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import logging
import math
import os
import platform
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.columns import Column
from mpqueue._core.state.item_table import DISCARD, ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.resources import JobNeeds
from mpqueue._options import GivenOptions, JobOptions
from mpqueue._parent.deliveries import Delivery
from mpqueue._queue.recorded.job_plan import Compared, compare
from mpqueue._queue.recorded.record_options import RecordOptions
from mpqueue._text import digits
from mpqueue._wire.item_names import IdRule, Label
from mpqueue._wire.memory.shared import notes_shared, size_of
from mpqueue._wire.pickling.packed_handler import HandlerTransport, PackedHandler, pack_handler
from mpqueue._wire.pickling.payload import dump_by_value, whole
from mpqueue.errors import JournalMismatchError, shown
from mpqueue.status import FAILED, OVER, JobStatus

if TYPE_CHECKING:
    from mpqueue._core.state.stated_needs import Uses
    from mpqueue._parent.journal.chunk_rows import Row
    from mpqueue._parent.journal.journal_reader import RecordedJob
    from mpqueue._parent.journal.kept_values import Unsealed
    from mpqueue._parent.journal.recorder import Recorder, Recording
    from mpqueue._queue.recorded.code_parts import Code, CodeNow
    from mpqueue._queue.recorded.inventory import Inventory
    from mpqueue._queue.recorded.resume import Brought, MadeBy, Plan

log = logging.getLogger("mpqueue")

#: A number for each item, the way to get it, or (`RECORDED`) from the journal; None: the items keep their own order.
Cost = Callable[[Any], float] | Sequence[float] | str | None
#: The costs are the items' times in their last run, from the journal.
RECORDED = "recorded"
#: The largest handler, in bytes, that is kept in the journal.
MOST_HANDLER = 4 << 20


class NewJob:
    """A job that is being created, and its record, if there is a journal.

    Raises the errors of `pack_handler`.
    """

    _uses: str | None = None  #: its items' needs, for the journal

    def __init__(
        self,
        job_id: str,
        table: ItemTable,
        options: JobOptions,
        handler: Callable[..., Any],
        asked: GivenOptions,
        *,
        is_open: bool = False,
        transport: HandlerTransport = HandlerTransport.IN_MEMORY,
        results: Any = None,
        needs: JobNeeds | None = None,
    ) -> None:
        setup, cost = asked.setup, asked.cost
        table.label = asked.label
        packed = pack_handler(
            job_id, handler, setup, table.rule, options.seed, transport=transport, items=table.payloads
        )
        if results is DISCARD:
            packed = packed._replace(frame=packed.frame._replace(discards=True))
        if is_open:
            packed = packed._replace(frame=packed.frame._replace(is_open=True))
        if options.profile:
            packed = packed._replace(frame=packed.frame._replace(profile=True))
        #: The job's number is set before it is started.
        self.book = JobBook(0, job_id, table, options, packed, sealed=not is_open)
        sample(self.book)
        if needs is not None:
            self.book.need(needs)
        if results is not None:
            send_results_to(results, self.book)
        if cost is not None and not isinstance(cost, str):
            self.book.order_by(costs_of(cost, table))
        self._by_recorded_cost = isinstance(cost, str)
        table.replay = partial(replay_item, packed)
        self._functions = (handler, setup)
        self._seed_given = asked.seed is not None
        if asked.uses is not None:
            self._uses = _written_uses(asked.uses)

    def record_or_go_on(self, recorder: Recorder, created_at: float, options: RecordOptions) -> None:
        """Record the job from now on; if the journal has it, its table takes over the items that have ended.

        Waits until it is on disk. Call it outside of locks, since it runs code of the items' classes. Raises
        `JournalMismatchError` for a job with other items, unless ``update``; `JournalError`; TypeError for items that
        have no identity; and errors of ``key``.
        """
        from mpqueue._parent.journal.chunk_rows import Results  # only journals need it
        from mpqueue._parent.journal.kept_results import KeptResults
        from mpqueue._queue.recorded.inventory import Inventory

        book, reader = self.book, recorder.journal.reader
        inventory, code = Inventory(book.table, options.key), self._take_code()
        recorded = recorder.journal.find(book.id)
        if recorded is None:
            number = inventory.add(recorder.journal, self._columns(created_at, code, options))
            book.table.source = KeptResults(reader, number, book.id, strict=True)
            recorder.add(book, self.recording(number, inventory.left_out))
            return
        compared = compare(reader, recorded, inventory, self._brought(code, options), Results.CHECKED)
        heed(compared.plan.refused, compared.plan.warnings)
        columns = self._code_columns(code, options, None if compared.terms.anew else compared.case.made)
        columns |= self._new_uses(recorded)
        failed = self._go_on(recorder, inventory, compared, columns)
        recording = self.recording(recorded.number, inventory.left_out)
        recorder.add(book, dataclasses.replace(recording, failed=failed))

    def record_as_it_is(self, recorder: Recorder, number: int) -> None:
        """Record from now on a job that was read from the journal, where it has this number.

        Raises `JournalError`.
        """
        from mpqueue._parent.journal.kept_values import NotKept

        self._note_code(recorder, number)
        self._take_up_suspects(recorder, number)
        payloads = self.book.table.payloads
        left_out = frozenset(index for index, payload in enumerate(payloads) if isinstance(payload, NotKept))
        recorder.add(self.book, self.recording(number, left_out))

    def _note_code(self, recorder: Recorder, number: int) -> None:
        """Note the handler's code if it has changed, as it may if the journal has the handler by name."""
        from mpqueue._queue.recorded.resume import MadeBy

        reader = recorder.journal.reader
        recorded = reader.line(number)
        assert recorded is not None
        made = MadeBy(reader.codes(recorded), self._take_code())
        if made.is_new:
            codes = written_codes(made.all())
            recorder.journal.ask(lambda store: store.put_job(number, {"codes": codes}))

    def recording(self, number: int, left_out: frozenset[int]) -> Recording:
        """Return the recorder's view of the job, which has this number in the journal."""
        from mpqueue._parent.journal.recorder import Recording  # only journals need it

        table = self.book.table
        tries = {index: len(history) for index, history in table.history.items()}
        failed = {index for index in table.failures if table.status[index] == FAILED}
        return Recording(number, tries, failed, left_out)

    def _take_code(self) -> CodeNow:
        """Return the functions' current code; results from now on count as made by it."""
        from mpqueue._queue.recorded.code_parts import code_of  # only journals need it

        code = code_of(*self._functions)
        self.book.table.code = code.code.number
        return code

    def _columns(self, created_at: float, code: CodeNow, options: RecordOptions) -> dict[str, Any]:
        book = self.book
        columns = first_columns(book.id, book.table.rule, book.options.seed, created_at)
        return {**columns, "uses": self._uses, **self._code_columns(code, options)}

    def _new_uses(self, recorded: RecordedJob) -> dict[str, Any]:
        """Return the column of the items' needs, if the journal's differs."""
        return {} if recorded.uses == self._uses else {"uses": self._uses}

    def _code_columns(self, code: CodeNow, options: RecordOptions, made: MadeBy | None = None) -> dict[str, Any]:
        return code_columns(self._functions, code, options, self.book.table.label, made)

    def _brought(self, code: CodeNow, options: RecordOptions) -> Brought:
        """Return the program's side of a recorded job: its code, its options, and the seed if one was given."""
        from mpqueue._queue.recorded.resume import Brought  # only journals need it

        given = self.book.options
        seed = given.seed if self._seed_given else None
        return Brought(code, options, seed, given.retry.max_retries, self.book.table.sink is not DISCARD)

    def _go_on(self, recorder: Recorder, inventory: Inventory, compared: Compared, columns: dict[str, Any]) -> set[int]:
        """Take over the items that have ended, and update the journal; returns the items that it has as failed."""
        from mpqueue._queue.recorded.resume import AFRESH, RETRIED

        book, table, reader = self.book, self.book.table, recorder.journal.reader
        recorded, match, plan = compared.case.recorded, compared.match, compared.plan
        places = reader.places(recorded)
        tell_of_lost(book.id, plan, table, "results", reader.path)
        if plan.unknown:
            log.warning("job %r: whether %d of its items have changed can't be known, so they run again: %s",
                        book.id, len(plan.unknown), inventory.name_unknown(plan.unknown[0]))  # fmt: skip
        self._order_by_record()
        self._take_seed(recorded.seed)
        book.retries, book.past = recorded.retries, recorded.past
        self._follow(plan)
        failed = {index for index in table.failures if table.status[index] == FAILED}
        if plan.any(RETRIED):
            table.forget_failures()
        row = self._handle_suspects(plan)
        failed.update(plan.guilty)
        same = match.is_same and places == table.slots
        if not same or plan.any(*AFRESH) or columns:
            columns |= {"completed": book.completed, "failed": book.failed, "status": str(plan.status)}
            anew = compared.terms.anew
            inventory.write(recorder.journal, recorded, match, columns, plan.those(*AFRESH), everything=anew)
        if compared.suspects:
            self._record_suspects(recorder, recorded.number, plan, row)
        if book.all_ended and plan.status in OVER:
            book.restored = True
            restore_end(book, dataclasses.replace(recorded, status=plan.status))
        return failed

    def _follow(self, plan: Plan) -> None:
        plan.follow(self.book.table)

    def _take_up_suspects(self, recorder: Recorder, number: int) -> None:
        """Judge only the items that workers had when programs ended without closing the journal, by the `Plan`."""
        from mpqueue._queue.recorded.resume import Plan, judge

        table, counts = self.book.table, recorder.journal.reader.suspects(number)
        plan, slots = Plan(bytearray(table.status)), range(len(table)) if table.slots is None else table.slots
        judge(plan, slots, counts, self.book.options.retry.max_retries)
        row = self._handle_suspects(plan)
        if counts:
            self._record_suspects(recorder, number, plan, row)

    def _handle_suspects(self, plan: Plan) -> Row | None:
        """Fail the items that end their programs, and return a row about them; the book goes on with the rest."""
        from mpqueue._parent.journal.chunk_rows import make_row
        from mpqueue._parent.journal.suspects import care_of, ended_program

        table = self.book.table
        tries = {index: len(history) for index, history in table.history.items()}
        for index, count in plan.guilty.items():
            failure = ended_program(count)
            table.fail_try(index, failure, None)
            table.fail(index, failure)
        self.book.go_on({index: care_of(count) for index, count in plan.suspects.items()})
        return make_row(table, [*plan.guilty], tries) if plan.guilty else None

    def _record_suspects(self, recorder: Recorder, number: int, plan: Plan, row: Row | None) -> None:
        from mpqueue._parent.journal.kept_values import prepare  # only journals need it

        slots = self.book.table.slots
        counts = {index if slots is None else slots[index]: count for index, count in plan.suspects.items()}
        columns = {"suspects": prepare(counts), "completed": self.book.completed, "failed": self.book.failed}
        rows = [] if row is None else [row]
        recorder.journal.ask(lambda store: store.put_job(number, columns, rows=rows))

    def _order_by_record(self) -> None:
        """Order the items by their recorded times, if the user chose that."""
        if self._by_recorded_cost:
            self.book.order_by(_with_mean(self.book.table.elapsed))

    def _take_seed(self, seed: int) -> None:
        """Take the record's seed, unless the user has given one."""
        if self._seed_given:
            return
        reseed(self.book, seed)
        self.book.table.replay = partial(replay_item, self.book.handler)


def reseed(book: JobBook, seed: int) -> None:
    """Give the job, or stage, this seed."""
    book.options = dataclasses.replace(book.options, seed=seed)
    book.handler = book.handler._replace(frame=book.handler.frame._replace(seed=seed))


def sample(book: JobBook) -> None:
    """Make room for the samples of its handler, if the job is profiled."""
    if book.options.profile:
        from mpqueue._report.profile import JobSamples  # few programs need it

        book.samples = JobSamples()


def send_results_to(sink: Any, book: JobBook) -> None:
    """Send the job's results to the sink, or (`DISCARD`) nowhere."""
    book.table.sink = sink
    if sink is not DISCARD:
        from mpqueue._output.row_outlet import RowOutlet  # few programs need it

        outlet = RowOutlet(sink, book.table, book.id, captured=book.options.capture_output)
        book.delivery = Delivery(outlet)


def check_cost(asked: GivenOptions, *, has_journal: bool) -> None:
    """Raise TypeError or ValueError if it is no valid cost."""
    cost = asked.cost
    if cost is None:
        return
    if isinstance(cost, str) and cost != RECORDED:
        raise ValueError(f"cost: expected a function, a number for each item or {RECORDED!r}, got {shown(cost)}")
    if isinstance(cost, str) and not has_journal:
        raise ValueError(f"cost: expected a queue with a journal for {RECORDED!r}, got one without")
    if not callable(cost) and (isinstance(cost, Mapping | AbstractSet) or not isinstance(cost, Iterable)):
        raise TypeError(
            f"cost: expected a function of an item, or a list of numbers, got {shown(cost)} of type "
            f"{type(cost).__name__}"
        )


def costs_of(cost: Callable[[Any], float] | Sequence[float], table: ItemTable) -> array[float]:
    """Return each item's cost. Raises TypeError or ValueError if one is no number, and errors of ``cost``."""
    count = len(table)
    given = map(cost, table.payloads) if callable(cost) else islice(cost, count + 1)  # it may be endless
    costs: array[float] = array("d")
    for index, value in enumerate(given):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(
                f"{_cost_of(table, index)}: expected a number, got {shown(value)} of type {type(value).__name__}"
            ) from None
        if not math.isfinite(number):
            raise ValueError(f"{_cost_of(table, index)}: expected a finite number, got {number}")
        costs.append(number)
    if len(costs) != count:
        got = len(cost) if isinstance(cost, Sized) else len(costs) if len(costs) < count else "more"
        raise ValueError(f"cost: expected a number for each of {count} items, got {got} in {shown(cost)}")
    return costs


def _cost_of(table: ItemTable, index: int) -> str:
    return f"cost of item {table.named(index)}" if index < len(table) else "cost"


def _with_mean(took: Column[float]) -> array[float]:
    """Return the seconds, with the mean for unknown ones."""
    known = [seconds for seconds in took if seconds > 0]
    mean = math.fsum(known) / len(known) if known else 0.0
    return array("f", (seconds if seconds > 0 else mean for seconds in took))


def first_columns(job_id: str, rule: IdRule, seed: int, created_at: float) -> dict[str, Any]:
    """Return the journal's columns of a new job, without those of its functions and items."""
    columns = {"id": job_id, "rule": str(rule), "seed": digits(seed), "created_at": created_at}
    return {**columns, "status": str(JobStatus.PENDING)}


def code_columns(
    functions: tuple[Callable[..., Any], Callable[..., Any] | None] | None,
    code: CodeNow,
    options: RecordOptions,
    label: Label = None,
    made: MadeBy | None = None,
) -> dict[str, Any]:
    """Return the journal's columns of the handler, the setup, and the items' labels; for stages (None) their code.

    With ``made``, only new ones, if results are kept.
    """
    if made is not None and not made.is_new:
        return {}
    columns: dict[str, Any] = {}
    if functions is not None:
        columns = {
            "handler": _keep_handler(*functions, label),
            "python": platform.python_version(),
            "handler_name": _names(*functions),
        }
    if made is not None:
        return columns | {"codes": written_codes(made.all())}
    return columns | {"codes": written_codes([code.code]), "version": options.version}


def _written_uses(uses: Uses) -> str:
    """Return the items' checked needs as a journal has them; functions are only noted as such."""
    from mpqueue._core.state.stated_needs import any_function  # few programs need it

    if not isinstance(uses, Mapping) or any_function(uses):
        return "null"
    amounts: dict[Any, Any] = dict(uses)
    return json.dumps({str(name): str(one) if isinstance(one, str) else int(one) for name, one in amounts.items()})


def written_codes(codes: Iterable[Code]) -> Unsealed:
    """Return codes as they are written in their job's line."""
    from mpqueue._parent.journal.kept_values import prepare

    return prepare([(code.python, dict(code.parts), dict(code.packages)) for code in codes])


def heed(refused: str, warnings: Iterable[str] = ()) -> None:
    """Log these warnings. Raises `JournalMismatchError` if continuing a recorded job is ``refused``."""
    if refused:
        raise JournalMismatchError(refused)
    for warning in warnings:
        log.warning("%s", warning)


def tell_of_lost(job_id: str, plan: Plan, items: ItemTable, what: str, path: str) -> None:
    """Log which items run again because ``what`` they had brought, or they themselves, are missing."""
    if plan.unreadable:
        log.warning("job %r: the %s of %d items can't be read from %s, so these run again; the first is %s",
                    job_id, what, len(plan.unreadable), path, items.named(plan.unreadable[0]))  # fmt: skip
    if plan.discarded:
        log.warning("job %r: the results of %d items were discarded when these ran, by %s, so these run again; the "
                    "first is %s", job_id, len(plan.discarded), path, items.named(plan.discarded[0]))  # fmt: skip
    if plan.lost:
        log.warning("job %r: %d items that are to run can't be read from %s: the makers of those that handlers had "
                    "added run again; the others run once their program adds them again; the first is %r",
                    job_id, len(plan.lost), path, items.payloads[plan.lost[-1]])  # fmt: skip


def restore_end(book: JobBook, recorded: RecordedJob) -> None:
    """Put the job into the state in which it was recorded."""
    book.status = recorded.status
    book.started_at, book.finished_at, book.duration = recorded.started_at, recorded.finished_at, recorded.duration


def _keep_handler(handler: Callable[..., Any], setup: Callable[..., Any] | None, label: Label) -> Unsealed | None:
    """Return the functions by value, and the folders of their modules; None if that is too much.

    A third function labels items. If there is none, or it can't be kept, there are two.
    """
    from mpqueue._parent.journal.kept_values import prepare

    kept = []
    for function in (handler, setup):
        with notes_shared() as noted:
            data, buffers = dump_by_value(function)
        if sum(map(size_of, noted)) > MOST_HANDLER:
            return None
        if noted:
            with whole:
                data, buffers = dump_by_value(function)
        if len(data) + sum(buffer.nbytes for buffer in buffers) > MOST_HANDLER:
            return None
        kept.append((data, [bytes(buffer) for buffer in buffers]))
    if label is not None:
        with contextlib.suppress(Exception):  # past items are then shown without it
            data, buffers = dump_by_value(label)
            if len(data) + sum(buffer.nbytes for buffer in buffers) <= MOST_HANDLER:
                kept.append((data, [bytes(buffer) for buffer in buffers]))
    return prepare((kept, [os.path.abspath(entry) for entry in sys.path]))


def _names(*functions: Callable[..., Any] | None) -> str | None:
    """Return names to import the functions by, for a Python that can't run the kept code; None if one has none."""
    names = []
    for function in functions:
        name = (
            "" if function is None else f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
        )
        if function is not None and find_named(name) is not function:
            return None
        names.append(name)
    return " ".join(names)


def find_named(name: str) -> Any:
    """Return the object with this name, `module:name`; None if there is none."""
    module, _, path = name.partition(":")
    try:
        return attrgetter(path)(importlib.import_module(module))
    except Exception:  # noqa: BLE001 - whatever importing raises
        return None


def replay_item(packed: PackedHandler, table: ItemTable, index: int) -> Any:
    """Run an item once more in this process, as `JobItem.replay` describes."""
    from mpqueue._worker.handlers.replay import replay  # most programs don't need it, and start faster without

    return replay(packed.frame, table.payloads[index], index, table.attempts[index] + 1, table.slots_of([index]))
