"""`NewJob`: a job that is being created, and how a journal comes to hold it or tells where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import math
import os
import platform
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import chain, compress, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.state.columns import Column
from mpqueue._core.state.item_table import DISCARD, ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.needs.resources import JobNeeds
from mpqueue._core.state.pending import Care
from mpqueue._options import JobOptions, check_bool, check_text
from mpqueue._parent.users_code.deliveries import Delivery
from mpqueue._queue.recorded.again import Again, Redo, check_redo, choose_again
from mpqueue._text import digits
from mpqueue._wire.item_labels import Label
from mpqueue._wire.memory.shared import notes_shared, size_of
from mpqueue._wire.pickling.packed_handler import PackedHandler, Travels, pack_handler
from mpqueue._wire.pickling.payload import dump_by_value, whole
from mpqueue.errors import JournalMismatchError, shown
from mpqueue.status import FAILED, OVER, PENDING, JobStatus

if TYPE_CHECKING:
    from mpqueue._parent.journal.chunk_rows import Row
    from mpqueue._parent.journal.code.code_parts import CodeNow
    from mpqueue._parent.journal.code.made_by import MadeBy
    from mpqueue._parent.journal.items.inventory import Inventory, Key
    from mpqueue._parent.journal.items.matching import Match
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._parent.journal.recorder import Recorder, Recording
    from mpqueue._parent.journal.sealed import Unsealed

log = logging.getLogger("mpqueue")

#: A number for each item, how to get it, or (`RECORDED`) from the journal; None: the items have an order of their own.
Cost = Callable[[Any], float] | Sequence[float] | str | None
#: By what the items took when they ran last, as the journal has it.
RECORDED = "recorded"
#: Bytes up to which a handler is kept in the journal.
MOST_HANDLER = 4 << 20


#: What can be done about changed code.
WAYS = "redo='changed-code' (--redo changed-code), or a new version=, runs them again"
#: What happens without that.
NOT_AGAIN = "what is done is not done again"


class RecordOptions(NamedTuple):
    """How a job and what a journal has of it go together, see `create_job`."""

    strict: bool = False
    update: bool = False
    key: Key | None = None
    version: str | None = None
    redo: Redo = None
    #: False for a job that is called after its handler, where other handlers may have that name: other code is refused.
    names_one: bool = True

    def begins_anew(self, recorded: RecordedJob) -> bool:
        """True where all of that job is to run again."""
        return self.redo == "all" or (self.version is not None and self.version != recorded.version)


#: Those that users give, by name.
RECORD_OPTIONS = ("strict", "update", "key", "version", "redo")


def record_options(
    *,
    strict: bool = False,
    update: bool = False,
    key: Key | None = None,
    version: str | None = None,
    redo: Redo = None,
) -> RecordOptions:
    """The same, checked. Raises TypeError or ValueError."""
    check_bool("strict", strict)
    check_bool("update", update)
    if key is not None and not callable(key):
        raise TypeError(f"key: expected a function of an item, got {shown(key)} of type {type(key).__name__}")
    if version is not None:
        version = check_text("version", version)
    return RecordOptions(strict, update, key, version, check_redo(redo))


def check_open_record(options: RecordOptions) -> None:
    """Raise ValueError for what an open job has not: its items can't be compared with those that it had before."""
    for name, given in (("update", options.update), ("key", options.key)):
        if given:
            raise ValueError(
                f"{name}: expected none for an open job, got {shown(given)}: it takes whatever items come, and an item "
                "that is there already is left out, whatever has changed in it"
            )


class _Suspects(NamedTuple):
    """Items that may have ended programs, how far each is suspected, by index; the row of those that failed for it."""

    counts: dict[int, int]
    row: Row | None

    def care(self) -> dict[int, Care]:
        """How each is to be handled."""
        from mpqueue._parent.journal.guards.suspects import care_of

        return {index: care_of(count) for index, count in self.counts.items()}


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
        is_open: bool = False,
        cost: Cost = None,
        results: Any = None,
        needs: JobNeeds | None = None,
        label: Label = None,
    ) -> None:
        table.label = label
        packed = pack_handler(job_id, handler, setup, table.rule, options.seed, travels=travels, items=table.payloads)
        if results is DISCARD:
            packed = packed._replace(frame=packed.frame._replace(discards=True))
        if is_open:
            packed = packed._replace(frame=packed.frame._replace(is_open=True))
        if options.profile:
            packed = packed._replace(frame=packed.frame._replace(profile=True))
        #: The number is to be set before it is started.
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
        self._seed_given = seed_given

    def record_or_go_on(self, recorder: Recorder, created_at: float, options: RecordOptions) -> None:
        """Have the job recorded from now on; where the journal has it, its table tells what has ended already.

        Waits until it is on disk. To be called outside of locks, since it runs code of the items' classes. Raises
        `JournalMismatchError` for a job with other items, unless ``update``; `JournalError`; TypeError for items that
        have no identity; and what ``key`` raises.
        """
        from mpqueue._parent.journal.code.made_by import MadeBy
        from mpqueue._parent.journal.items.inventory import Inventory  # a part of what only journals need
        from mpqueue._parent.journal.kept_results import KeptResults

        book, reader = self.book, recorder.journal.reader
        inventory, code = Inventory(book.table, options.key), self._take_code()
        recorded = recorder.journal.find(book.id)
        if recorded is None:
            number = inventory.add(recorder.journal, self._columns(created_at, code, options))
            book.table.source = KeptResults(reader, number, book.id, strict=True)
            recorder.add(book, self.recording(number, inventory.left_out))
            return
        check_is_list(recorded, reader)
        match = inventory.match(reader, recorded)
        if not (options.update or match.is_same):
            raise JournalMismatchError(
                f"job {book.id!r} in {reader.path}: expected the items that it was recorded with, got others: "
                f"{match}; update=True runs those; nothing was changed"
            )
        made = MadeBy(reader, recorded, code)
        if made.may_differ:
            made.look(book.table.status, reader.fill_statuses(book.table, recorded))
            book.table.start_afresh(range(len(book.table)))
        again = choose_again(book.table, match, recorded, options, changed=made.changed)
        self._check(reader, recorded, None if again.everything else made, options)
        columns = self._code_columns(code, options, None if again.everything else made)
        failed = self._go_on(recorder, recorded, inventory, match, again, columns)
        recording = self.recording(recorded.number, inventory.left_out)
        recorder.add(book, dataclasses.replace(recording, failed=failed))

    def record_as_it_is(self, recorder: Recorder, number: int) -> None:
        """Have the job recorded from now on, which was read from the journal, where it has this number.

        Raises `JournalError`.
        """
        from mpqueue._parent.journal.kept_values import NotKept

        book = self.book
        self._note_code(recorder, number)
        suspects = self._judge_suspects(recorder, number)
        if suspects is not None:
            book.go_on(suspects.care())
            self._record_suspects(recorder, number, suspects)
        payloads = book.table.payloads
        left_out = frozenset(index for index, payload in enumerate(payloads) if isinstance(payload, NotKept))
        recorder.add(book, self.recording(number, left_out))

    def _note_code(self, recorder: Recorder, number: int) -> None:
        """The handler that the journal had may be another one by now, if it goes by name."""
        from mpqueue._parent.journal.code.made_by import MadeBy
        from mpqueue._parent.journal.journal_file import JobItems  # a part of what only journals need

        recorded = recorder.journal.reader.line(number)
        assert recorded is not None
        made = MadeBy(recorder.journal.reader, recorded, self._take_code())
        if made.is_new:
            codes = made.written()
            recorder.journal.ask(lambda store: store.put_job(number, {"codes": codes}, JobItems()))

    def recording(self, number: int, left_out: frozenset[int]) -> Recording:
        """What the recorder has to know of the job, which has this number in the journal."""
        from mpqueue._parent.journal.recorder import Recording  # a part of what only journals need

        table = self.book.table
        tries = {index: len(history) for index, history in table.history.items()}
        failed = {index for index in table.failures if table.status[index] == FAILED}
        return Recording(number, tries, failed, left_out)

    def _take_code(self) -> CodeNow:
        """What the functions are made of now. What runs from now on is made by that."""
        from mpqueue._parent.journal.code.code_parts import code_of  # a part of what only journals need

        code = code_of(*self._functions)
        self.book.table.code = code.code.number
        return code

    def _columns(self, created_at: float, code: CodeNow, options: RecordOptions) -> dict[str, Any]:
        book = self.book
        return {
            "id": book.id,
            "rule": str(book.table.rule),
            "seed": digits(book.options.seed),
            "created_at": created_at,
            "status": str(JobStatus.PENDING),
            **self._code_columns(code, options),
        }

    def _code_columns(self, code: CodeNow, options: RecordOptions, made: MadeBy | None = None) -> dict[str, Any]:
        return code_columns(self._functions, code, options, self.book.table.label, made)

    def _check(self, reader: Reader, recorded: RecordedJob, made: MadeBy | None, options: RecordOptions) -> None:
        where = f"job {recorded.id!r} in {reader.path}"
        change = "" if made is None else describe_code(made, options)
        other_seed = self._seed_given and recorded.seed != self.book.options.seed
        check_changes(where, options, change, other_seed=other_seed)
        if made is not None and (unknown := describe_unknown(made, options)):
            log.warning("%s: %s", where, unknown)

    def _go_on(
        self,
        recorder: Recorder,
        recorded: RecordedJob,
        inventory: Inventory,
        match: Match,
        again: Again,
        columns: dict[str, Any],
    ) -> set[int]:
        """Take over what has ended, and have the journal say what is other now; returns the items it has as failed."""
        book, table, reader = self.book, self.book.table, recorder.journal.reader
        places = reader.places(recorded)
        afresh = _marked(len(table), chain(match.changed, again.afresh))
        without_results = self._fill(reader, recorded, afresh)
        unknown = [index for index in match.unknown if table.ended(index)]
        if unknown:
            log.warning("job %r: whether %d of its items have changed can't be known, so they run again: %s",
                        book.id, len(unknown), inventory.name_unknown(unknown[0]))  # fmt: skip
        self._order_by_record()
        if not self._seed_given:
            self._take_seed(recorded.seed)
        book.retries, book.past = recorded.retries, recorded.past
        any_afresh = 1 in afresh
        table.start_afresh(compress(range(len(table)), afresh) if any_afresh else ())
        failed = {index for index in table.failures if table.status[index] == FAILED}
        if again.failed:
            table.forget_failures()
        suspects = self._judge_suspects(recorder, recorded.number, afresh)
        failed.update(index for index in table.failures if table.status[index] == FAILED)
        book.go_on({} if suspects is None else suspects.care())
        counted = recorded.completed + recorded.failed - without_results - book.completed - book.failed
        if match.is_same and not any_afresh and not again.failed and counted > 0:
            log.warning("job %r: %d items more have ended by its counts in %s than by its rows, so these run again",
                        book.id, counted, reader.path)  # fmt: skip
        status = recorded.status
        if status in OVER:
            status = JobStatus.COMPLETED if not book.failed else JobStatus.COMPLETED_WITH_ERRORS
            status = status if book.all_ended else JobStatus.PENDING
        same = match.is_same and recorded.slots is not None and places == table.slots
        if not same or any_afresh or columns:
            counts = {"completed": book.completed, "failed": book.failed, "status": str(status)}
            inventory.write(
                recorder.journal, recorded, match, counts | columns, again.afresh, everything=again.everything
            )
        if suspects is not None:
            self._record_suspects(recorder, recorded.number, suspects)
        if book.all_ended and status in OVER:
            book.restored = True
            restore_end(book, dataclasses.replace(recorded, status=status))
        return failed

    def _fill(self, reader: Reader, recorded: RecordedJob, afresh: Sequence[int]) -> int:
        """Write into the table how the items ended; returns how many run again since their results are not there.

        Those that are to run ``afresh`` (a 1 for such an item) do not count.
        """
        from mpqueue._parent.journal.kept_results import run_discarded_again

        book, table = self.book, self.book.table
        unreadable = [index for index in reader.fill(table, recorded) if not afresh[index]]
        for index in unreadable:
            table.status[index], table.results[index] = PENDING, None
        if unreadable:
            log.warning("job %r: the results of %d items can't be read from %s, so these run again; the first is %s",
                        book.id, len(unreadable), reader.path, table.named(min(unreadable)))  # fmt: skip
        discarded = [] if table.sink is DISCARD else run_discarded_again(table, book.id, reader.path, afresh)
        return len(unreadable) + len(discarded)

    def _record_suspects(self, recorder: Recorder, number: int, suspects: _Suspects) -> None:
        from mpqueue._parent.journal.journal_file import JobItems
        from mpqueue._parent.journal.sealed import prepare

        slots = self.book.table.slots
        counts = {index if slots is None else slots[index]: count for index, count in suspects.counts.items()}
        columns = {"suspects": prepare(counts), "completed": self.book.completed, "failed": self.book.failed}
        items = JobItems(chunks=[] if suspects.row is None else [suspects.row])
        recorder.journal.ask(lambda store: store.put_job(number, columns, items))

    def _judge_suspects(self, recorder: Recorder, number: int, afresh: Sequence[int] = ()) -> _Suspects | None:
        """Which items workers had when programs ended without closing the journal; None where that is not known of any.

        Those that end their programs have failed, with a row that says so. What is to run ``afresh`` (a 1 for such an
        item) is not suspected.
        """
        from mpqueue._parent.journal.chunk_rows import make_row
        from mpqueue._parent.journal.guards.suspects import ended_program, is_guilty

        table, counts = self.book.table, recorder.journal.suspects.pop(number, None)
        if counts is None:
            return None
        slots = range(len(table)) if table.slots is None else table.slots
        found = {
            index: counts[slot]
            for index, slot in enumerate(slots)
            if slot in counts and not table.ended(index) and not (afresh and afresh[index])
        }
        failed = [index for index, count in found.items() if is_guilty(count, self.book.options)]
        tries = {index: len(history) for index, history in table.history.items()}
        for index in failed:
            failure = ended_program(found.pop(index))
            table.fail_try(index, failure, None)
            table.fail(index, failure)
        return _Suspects(found, make_row(table, failed, tries) if failed else None)

    def _order_by_record(self) -> None:
        """By what the items took, as the journal has it, where that was asked for."""
        if self._by_recorded_cost:
            self.book.order_by(_with_mean(self.book.table.elapsed))

    def _take_seed(self, seed: int) -> None:
        book = self.book
        book.options = dataclasses.replace(book.options, seed=seed)
        book.handler = book.handler._replace(frame=book.handler.frame._replace(seed=seed))
        book.table.replay = partial(replay_item, book.handler)


def sample(book: JobBook) -> None:
    """Have room for what workers sample of its handler, where that is to be."""
    if book.options.profile:
        from mpqueue._report.profile.job_samples import JobSamples  # which few programs need

        book.samples = JobSamples()


def send_results_to(sink: Any, book: JobBook) -> None:
    """The job's results go there, or (`DISCARD`) nowhere."""
    book.table.sink = sink
    if sink is not DISCARD:
        from mpqueue._output.row_outlet import RowOutlet  # which few programs need

        outlet = RowOutlet(sink, book.table, book.id, captured=book.options.capture_output)
        book.delivery = Delivery(book.table, outlet)


def check_cost(cost: Cost, *, is_open: bool, has_journal: bool) -> None:
    """Raise TypeError or ValueError for what is no cost here."""
    if cost is None:
        return
    if is_open:
        raise ValueError("cost: expected None for an open job, whose items run in the order in which they come")
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
    """What each item costs. Raises TypeError or ValueError for what is no number, and what ``cost`` raises."""
    count = len(table)
    given = map(cost, table.payloads) if callable(cost) else islice(cost, count + 1)  # it may have no end
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
    """The same, with the mean where nothing is known."""
    known = [seconds for seconds in took if seconds > 0]
    mean = math.fsum(known) / len(known) if known else 0.0
    return array("f", (seconds if seconds > 0 else mean for seconds in took))


def _marked(count: int, indices: Iterable[int]) -> bytearray:
    """A 1 at each of these indices."""
    marks = bytearray(count)
    for index in indices:
        marks[index] = 1
    return marks


def code_columns(
    functions: tuple[Callable[..., Any], Callable[..., Any] | None],
    code: CodeNow,
    options: RecordOptions,
    label: Label = None,
    made: MadeBy | None = None,
) -> dict[str, Any]:
    """What a journal has of the handler, the setup, and how items are labelled.

    With ``made``, what is new of that, where results are kept.
    """
    from mpqueue._parent.journal.code.made_by import written_codes

    if made is not None and not made.is_new:
        return {}
    columns = {
        "handler": _keep_handler(*functions, label),
        "python": platform.python_version(),
        "handler_name": _names(*functions),
    }
    if made is not None:
        return columns | {"codes": made.written()}
    return columns | {"codes": written_codes([code.code]), "code_hash": None, "version": options.version}


def describe_code(made: MadeBy, options: RecordOptions) -> str:
    """What has changed of the code that made results which are kept, for people."""
    return "" if options.version is not None or options.redo == "changed-code" else made.describe_change()


def check_changes(where: str, options: RecordOptions, change: str, *, other_seed: bool) -> None:
    """Say that code has changed that made results which are kept (``change`` says what), or the seed.

    Raises `JournalMismatchError` where that is refused: with ``strict``, and of other code for a call that may be of
    another callable than the one whose results its journal has.
    """
    if change and not options.names_one:
        raise JournalMismatchError(
            f"{where}: {change}; so these may be results of another callable by that name, and nothing was changed; "
            f"expected a job_id= of its own for each callable; {WAYS}"
        )
    seed = "its seed has changed since it was recorded" if other_seed else ""
    changes, ways = "; ".join(filter(None, (change, seed))), f"; {WAYS}" if change else ""
    if changes and options.strict:
        refused = "with strict=True that is refused, and nothing was changed"
        raise JournalMismatchError(f"{where}: {changes}; {refused}{ways}")
    if changes:
        log.warning("%s: %s; %s%s", where, changes, NOT_AGAIN, ways)


def describe_unknown(made: MadeBy, options: RecordOptions) -> str:
    """Of which results it can't be known, for people: once, and where that is asked for."""
    is_asked = options.strict or options.redo == "changed-code"
    return made.describe_unknown() if options.version is None and (made.is_new or is_asked) else ""


def check_is_list(recorded: RecordedJob, reader: Reader) -> None:
    """Raise `JournalMismatchError` for a job whose items are a stream's, in the journal of the ``reader``."""
    if recorded.generation is not None:
        raise JournalMismatchError(
            f"job {recorded.id!r} in {reader.path}: expected a job with a list of items, got a stream, which imap() "
            "resumes; nothing was changed; use another id, or call clear_job()"
        )
    if recorded.is_open:
        raise JournalMismatchError(
            f"job {recorded.id!r} in {reader.path}: expected a job with a list of items, got an open one; nothing was "
            "changed; pass open=True, use another id, or call clear_job()"
        )


def restore_end(book: JobBook, recorded: RecordedJob) -> None:
    """The job is in the state in which it was recorded."""
    book.status = recorded.status
    book.started_at, book.finished_at, book.duration = recorded.started_at, recorded.finished_at, recorded.duration


def _keep_handler(handler: Callable[..., Any], setup: Callable[..., Any] | None, label: Label) -> Unsealed | None:
    """The functions by value, and where modules were found; None where that is too much.

    A third one labels items. Without it, and where it can't be kept, there are two.
    """
    from mpqueue._parent.journal.sealed import prepare

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
        with contextlib.suppress(Exception):  # past items are shown without it
            data, buffers = dump_by_value(label)
            if len(data) + sum(buffer.nbytes for buffer in buffers) <= MOST_HANDLER:
                kept.append((data, [bytes(buffer) for buffer in buffers]))
    return prepare((kept, [os.path.abspath(entry) for entry in sys.path]))


def _names(*functions: Callable[..., Any] | None) -> str | None:
    """Where the functions can be imported from; None where one can't be. For a Python that can't run the kept code."""
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
    """What has this name, as `module:name`; None where nothing has."""
    module, _, path = name.partition(":")
    try:
        return attrgetter(path)(importlib.import_module(module))
    except Exception:  # noqa: BLE001 - whatever importing raises
        return None


def replay_item(packed: PackedHandler, table: ItemTable, index: int) -> Any:
    """See `JobItem.replay`."""
    from mpqueue._worker.handlers.replay import replay  # most programs never do, and start sooner without

    return replay(packed.frame, table.payloads[index], index, table.attempts[index] + 1, table.slots_of([index]))
