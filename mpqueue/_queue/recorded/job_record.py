"""`JobRecord`: the record of a job in its queue's journal: begun, or continued when the job is created again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import platform
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from mpqueue._core.state.columns import Column
from mpqueue._core.state.item_table import DISCARD, ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.stated_needs import Uses, any_function
from mpqueue._options import GivenOptions
from mpqueue._parent.journal.chunk_rows import Results, make_row
from mpqueue._parent.journal.kept_results import KeptResults
from mpqueue._parent.journal.kept_values import NotKept, Unsealed, prepare
from mpqueue._parent.journal.recorder import Recorder, Recording
from mpqueue._parent.journal.suspects import care_of, ended_program
from mpqueue._queue.new_job import find_named, replay_item, reseed, restore_end
from mpqueue._queue.recorded.code_parts import Code, CodeNow, code_of
from mpqueue._queue.recorded.inventory import Inventory
from mpqueue._queue.recorded.job_plan import Compared, compare
from mpqueue._queue.recorded.record_options import RecordOptions
from mpqueue._queue.recorded.resume import AFRESH, RETRIED, Brought, Case, MadeBy, Plan, Terms, judge
from mpqueue._text import digits
from mpqueue._wire.item_names import Label
from mpqueue._wire.memory.shared import NotesShared, size_of
from mpqueue._wire.pickling.payload import dump_by_value, whole
from mpqueue.errors import JournalMismatchError
from mpqueue.status import FAILED, OVER, JobStatus

log = logging.getLogger("mpqueue")

#: A handler and its setup.
Functions = tuple[Callable[..., Any], Callable[..., Any] | None]
#: The largest handler, in bytes, that is kept in the journal.
MOST_HANDLER = 4 << 20


class JobRecord:
    """The record of a job that has not started, with a list of items. ``functions`` are its handler and its setup."""

    def __init__(self, book: JobBook, functions: Functions | None, asked: GivenOptions) -> None:
        self.book = book
        self._functions = functions
        self._seed_given = asked.seed is not None
        self._by_recorded_cost = isinstance(asked.cost, str)
        #: Its items' needs, for the journal.
        self._uses = None if asked.uses is None else _written_uses(asked.uses)

    def record_or_go_on(self, recorder: Recorder, created_at: float, options: RecordOptions) -> None:
        """Record the job from now on; if the journal has it, its table takes over the items that have ended.

        Waits until it is on disk. Call it outside of locks, since it runs code of the items' classes. Raises
        `JournalMismatchError` for a job with other items, unless ``update``; `JournalError`; TypeError for items that
        have no identity; and errors of ``key``.
        """
        book, reader = self.book, recorder.journal.reader
        inventory, code = Inventory(book.table, options.key), self._take_code()
        recorded = recorder.journal.find(book.id)
        if recorded is None:
            number = inventory.add(recorder.journal, self._columns(created_at, code, options))
            book.table.source = KeptResults(reader, number, book.id, strict=True)
            recorder.add(book, Recording(number, unkept=inventory.left_out))
            return
        compared = compare(reader, recorded, inventory, self._brought(code, options), Results.CHECKED)
        heed(compared.plan.refused, compared.plan.warnings)
        columns = self._changes(compared.case, compared.terms)
        recorder.add(book, self._go_on(recorder, inventory, compared, columns))

    def record_as_it_is(self, recorder: Recorder, number: int) -> None:
        """Record from now on a job that was read from the journal, where it has this number.

        Raises `JournalError`.
        """
        self._note_code(recorder, number)
        self._write_found(recorder)
        recording = self._take_up(recorder, number)
        payloads = self.book.table.payloads
        recording.unkept = frozenset(index for index, payload in enumerate(payloads) if isinstance(payload, NotKept))
        recorder.add(self.book, recording)

    def _write_found(self, recorder: Recorder) -> None:
        """Write what is found out when the job is read."""

    def _note_code(self, recorder: Recorder, number: int) -> None:
        """Note the handler's code if it has changed, as it may if the journal has the handler by name."""
        reader = recorder.journal.reader
        recorded = reader.line(number)
        assert recorded is not None
        made = MadeBy(reader.codes(recorded), self._take_code())
        if made.is_new:
            codes = written_codes(made.all())
            recorder.journal.ask(lambda store: store.put_job(number, {"codes": codes}))

    def _take_code(self) -> CodeNow:
        """Return the functions' current code; results from now on count as made by it."""
        assert self._functions is not None
        code = code_of(*self._functions)
        self.book.table.code = code.code.number
        return code

    def _columns(self, created_at: float, code: CodeNow, options: RecordOptions) -> dict[str, Any]:
        """Return the journal's columns of a new job, without those of its items."""
        book = self.book
        columns: dict[str, Any] = {"id": book.id, "rule": str(book.table.rule), "seed": digits(book.options.seed)}
        columns |= {"created_at": created_at, "status": str(JobStatus.PENDING), "uses": self._uses}
        return columns | self._code_columns(code, options)

    def _changes(self, case: Case, terms: Terms) -> dict[str, Any]:
        """Return the columns that differ from those of the recorded job, without those of its items."""
        columns = self._code_columns(case.brought.code, case.options, None if terms.anew else case.made)
        return columns if case.recorded.uses == self._uses else columns | {"uses": self._uses}

    def _code_columns(self, code: CodeNow, options: RecordOptions, made: MadeBy | None = None) -> dict[str, Any]:
        """Return the journal's columns of the handler, the setup and the items' labels; for stages only their code.

        With ``made``, only new ones, if results are kept.
        """
        if made is not None and not made.is_new:
            return {}
        columns: dict[str, Any] = {}
        if self._functions is not None:
            columns = {
                "handler": _keep_handler(*self._functions, self.book.table.label),
                "python": platform.python_version(),
                "handler_name": _names(*self._functions),
            }
        if made is not None:
            return columns | {"codes": written_codes(made.all())}
        return columns | {"codes": written_codes([code.code]), "version": options.version}

    def _brought(self, code: CodeNow, options: RecordOptions) -> Brought:
        """Return the program's side of a recorded job: its code, its options, and the seed if one was given."""
        given = self.book.options
        seed = given.seed if self._seed_given else None
        return Brought(code, options, seed, given.retry.max_retries, self.book.table.sink is not DISCARD)

    def _go_on(
        self, recorder: Recorder, inventory: Inventory, compared: Compared, columns: dict[str, Any]
    ) -> Recording:
        """Take over the items that have ended, and update the journal."""
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
        recording = self._carry_out(recorder, recorded.number, plan)
        same = match.is_same and places == table.slots
        if not same or plan.any(*AFRESH) or columns:
            columns |= {"completed": book.completed, "failed": book.failed, "status": str(plan.status)}
            anew = compared.terms.anew
            inventory.write(recorder.journal, recorded, match, columns, plan.those(*AFRESH), everything=anew)
        recording.unkept = inventory.left_out
        if book.all_ended and plan.status in OVER:
            book.restored = True
            restore_end(book, dataclasses.replace(recorded, status=plan.status))
        return recording

    def _follow(self, plan: Plan) -> None:
        plan.follow(self.book.table)

    def _take_up(self, recorder: Recorder, number: int, *, retried: bool = False) -> Recording:
        """Go on with the items as they stand in the table; ``retried``: failed ones are tried again."""
        table, counts = self.book.table, recorder.journal.reader.suspects(number)
        plan, slots = Plan(bytearray(table.status)), range(len(table)) if table.slots is None else table.slots
        if retried:
            plan.stands = plan.stands.replace(bytes((FAILED,)), bytes((RETRIED,)))
        judge(plan, slots, counts, self.book.options.retry.max_retries)
        return self._carry_out(recorder, number, plan)

    def _carry_out(self, recorder: Recorder, number: int, plan: Plan) -> Recording:
        """Try failed items again, and fail those that end their programs, also in the journal; the book goes on."""
        book, table = self.book, self.book.table
        tries = {index: len(history) for index, history in table.history.items()}
        recording = Recording(number, tries, {index for index in table.failures if table.status[index] == FAILED})
        if plan.any(RETRIED):
            table.forget_failures()
        for index, count in plan.guilty.items():
            failure = ended_program(count)
            table.fail_try(index, failure, None)
            table.fail(index, failure)
        book.go_on({index: care_of(count) for index, count in plan.suspects.items()})
        if plan.guilty:
            recording.failed.update(plan.guilty)
            row, counts = make_row(table, [*plan.guilty], tries), {"completed": book.completed, "failed": book.failed}
            recorder.journal.ask(lambda store: store.put_job(number, counts, rows=[row]))
        return recording

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


def _keep_handler(handler: Callable[..., Any], setup: Callable[..., Any] | None, label: Label) -> Unsealed | None:
    """Return the functions by value, and the folders of their modules; None if that is too much.

    A third function labels items. If there is none, or it can't be kept, there are two.
    """
    kept = []
    for function in (handler, setup):
        with NotesShared() as noted:
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
