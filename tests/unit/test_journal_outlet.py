"""What a job brings into the journal, and that users hear of it in order, once it is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._core.commands import AnnounceFinished, AnnounceItems, AnnounceRecords, AnnounceStarted, AnnounceState
from mpqueue._core.messages import JobPaused, JobResumed
from mpqueue._core.state.item_table import Elsewhere, Failure, ItemTable, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.pending import Care
from mpqueue._options import JobOptions
from mpqueue._parent.deliveries import MOST_WAITING, OBJECT, Backlog
from mpqueue._parent.journal import journal_outlet as module
from mpqueue._parent.journal.chunk_rows import ADD_CHUNK
from mpqueue._parent.journal.journal_outlet import COUNTS, ENDED, STARTED, STATUS, JournalJob, JournalOutlet
from mpqueue._parent.journal.journal_writer import GROUP, Entry
from mpqueue._parent.journal.kept_results import KeptResults
from mpqueue._parent.journal.kept_values import Place, no_file, unseal
from mpqueue._parent.journal.lots import (
    COUNT_ENDED,
    PUT_PASSED,
    REMOVE,
    REMOVE_ALL,
    PassRecord,
    RecordedGrowth,
    StreamGrowth,
)
from mpqueue._parent.replies import Reply
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.parcels import Parcel
from mpqueue.errors import JournalError, WorkerStartError
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.fake_worker import Handler
from tests.unit.rows_in_memory import RowsInMemory


class FakeJournal:
    """What is posted is on disk when a test says so."""

    path = "run.db"

    def __init__(self) -> None:
        self.posted: list[Entry] = []
        self.rows = 0
        self.running: Any = None

    def post(self, entry: Entry) -> None:
        self.posted.append(entry)

    def next_chunk(self) -> int:
        self.rows += 1
        return self.rows


class FakePicklers:
    """The job's own thread does what is put there when a test says so."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, Any]] = []

    def put(self, _: JobBook, task: Any, then: Any) -> None:
        self.lines.append((task, then))

    def do(self, *, cut_short: bool = False) -> None:
        task, then = self.lines.pop(0)
        then(task.cut_short() if cut_short else task.run())


class Recorded:
    """A job of three items that is recorded, as number 7 of its journal."""

    def __init__(self) -> None:
        self.journal = FakeJournal()
        self.handled: list[Any] = []
        self.held_back: list[bool] = []
        self.told: list[type] = []
        self.job = JobBook(1, "job", make_table("abc"), JobOptions(RetryPolicy()), Handler())
        self.job.started_at, self.job.finished_at, self.job.status = 5.0, 6.0, JobStatus.RUNNING
        self.freed: list[Any] = []
        books = SimpleNamespace(jobs={1: self.job}, free_later=self.freed.append)
        coordinator: Any = SimpleNamespace(
            do_later=lambda call, job=None: call(),
            handle=self.handled.append,
            scheduler=SimpleNamespace(books=books),
        )
        self.outlet = JournalOutlet(self.journal)  # type: ignore[arg-type]
        self.outlet.picklers = self.picklers = FakePicklers()  # type: ignore[assignment]
        self.outlet.backlog = Backlog(lambda _, held: self.held_back.append(held))
        self.outlet._coordinator = coordinator
        self.journal_job = JournalJob(7)
        self.outlet.add(self.job, self.journal_job)

    def announce(self, announcement: Any) -> None:
        self.outlet._take(lambda one: self.told.append(type(one)), announcement)

    def end_item(self, index: int, size: int = 0) -> None:
        self.job.table.complete(range(index, index + 1), [index])
        self.announce(AnnounceItems(self.job, [index], frozenset(), {}, index + 1, 0, JobStatus.RUNNING, size))

    def end(self) -> None:
        self.announce(AnnounceFinished(self.job, JobStatus.COMPLETED, 3, 0, 1.0))

    def write(self, nth: int, *, is_written: bool = True) -> None:
        """What was posted as that is on disk, or will never be."""
        done = self.journal.posted[nth].done
        assert done is not None
        done(is_written)

    def statements(self) -> list[list[str]]:
        return [[sql for sql, _ in entry.statements] for entry in self.journal.posted]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def test_a_start_and_a_state_are_told_at_once_and_items_and_the_end_when_they_are_on_disk(recorded: Recorded) -> None:
    recorded.announce(AnnounceStarted(recorded.job))
    recorded.announce(AnnounceState(recorded.job, "paused", JobStatus.PAUSED, 0, 0))
    assert recorded.told == [AnnounceStarted, AnnounceState]
    recorded.end_item(0)
    recorded.announce(AnnounceRecords(recorded.job, 0, []))
    recorded.end()
    assert recorded.statements() == [[STARTED], [STATUS], [ADD_CHUNK, COUNTS], [ENDED, module.CLEARED]]
    assert [entry.statements[-1][1][-1] for entry in recorded.journal.posted] == [7] * 4
    assert recorded.journal.posted[0].statements[0][1] == ("running", 5.0, 0, 7)
    assert recorded.journal.posted[1].statements[0][1] == ("paused", 7)
    assert [entry.urgent for entry in recorded.journal.posted] == [False, False, False, True]
    assert len(recorded.told) == 2
    recorded.write(3)
    assert len(recorded.told) == 2, "not before the items"
    recorded.write(2)
    assert recorded.told[2:] == [AnnounceItems, AnnounceRecords, AnnounceFinished]


def test_what_was_announced_and_not_told_is_known_and_calls_wait_their_turn(recorded: Recorded) -> None:
    called: list[int] = []
    recorded.outlet.in_turn(recorded.job, lambda: called.append(1))
    assert called == [1]
    assert recorded.outlet.untold(recorded.job) == []
    recorded.end_item(1)
    recorded.outlet.in_turn(recorded.job, lambda: called.append(2))
    assert [type(one) for one in recorded.outlet.untold(recorded.job)] == [AnnounceItems]
    assert called == [1]
    recorded.write(0)
    assert called == [1, 2]
    assert recorded.outlet.untold(recorded.job) == []


def test_a_job_of_which_too_much_waits_is_held_back_until_half_of_that_is_on_disk(recorded: Recorded) -> None:
    half = MOST_WAITING // 2
    recorded.end_item(0, half - OBJECT)
    recorded.end_item(1, half - OBJECT)
    assert recorded.held_back == []
    recorded.end_item(2, 1)
    assert recorded.held_back == [True]
    recorded.write(0)
    assert recorded.held_back == [True], "a little more than half waits still"
    recorded.write(2)
    recorded.write(1)
    assert recorded.held_back == [True, False]
    assert recorded.outlet.backlog.waiting == 0


def test_of_results_that_are_in_the_journal_the_newest_stay_in_memory(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    evicted: list[tuple[list[int], int]] = []
    monkeypatch.setattr(type(recorded.job.table), "evict", lambda _, indices, row: evicted.append(([*indices], row)))
    for index in range(3):
        recorded.end_item(index)
    entry = recorded.journal.posted[0]
    size = len(entry.statements[0][1][2]) - 4 + OBJECT  # without its checksum
    monkeypatch.setattr(module, "MOST_RECENT", 2 * size)
    for nth in (0, 1, 2):
        recorded.write(nth, is_written=nth != 1)
    assert evicted == [], "what was refused is not in the journal"
    monkeypatch.setattr(module, "MOST_RECENT", 2 * size - 1)
    recorded.end_item(1)
    recorded.write(3)
    assert evicted == [([0], 1), ([2], 3)]
    assert recorded.freed == [], "no code of users runs as it is freed"


def test_results_of_users_classes_that_the_journal_has_are_freed_elsewhere(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_RECENT", 0)
    recorded.job.table.live.has_user_objects = True
    recorded.job.table.source = KeptResults(RowsInMemory([], no_file), 7, "job")
    recorded.end_item(0)
    recorded.write(0)
    assert recorded.freed == [[0]]
    assert [type(result) for result in recorded.job.table.results] == [Elsewhere, type(None), type(None)]


def test_a_failed_item_that_runs_again_is_written_as_such_when_the_job_starts(recorded: Recorded) -> None:
    table = recorded.job.table
    failure = Failure(ValueError("no"))
    table.fail(1, failure)
    recorded.announce(AnnounceItems(recorded.job, [1], frozenset({1}), {}, 0, 1, JobStatus.RUNNING))
    assert recorded.journal.posted == [], "its error is pickled first"
    assert recorded.journal_job.failed == {1}
    recorded.picklers.do()
    recorded.announce(AnnounceStarted(recorded.job))
    assert recorded.journal_job.failed == {1}, "it has failed still"
    table.forget_failures()
    recorded.announce(AnnounceStarted(recorded.job))
    assert recorded.journal_job.failed == set()
    assert recorded.statements() == [[ADD_CHUNK, COUNTS], [STARTED], [ADD_CHUNK, COUNTS, STARTED]]


def test_what_runs_users_code_is_written_in_turn_and_told_when_that_is_on_disk(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd:
        def __reduce__(self) -> Any:
            raise TypeError("not me")

    for index in (0, 1):
        recorded.job.table.complete(range(index, index + 1), [Odd()])
        recorded.announce(AnnounceItems(recorded.job, [index], frozenset(), {}, 1, 0, JobStatus.RUNNING, size=10))
    recorded.end_item(2)
    recorded.end()
    assert recorded.journal.posted == []
    for _ in range(4):
        recorded.picklers.do()
    assert recorded.outlet.backlog.waiting == 20 + 3 * OBJECT
    assert recorded.statements() == [[ADD_CHUNK, COUNTS]] * 3 + [[ENDED, module.CLEARED]]
    assert recorded.told == []
    for nth in range(4):
        recorded.write(nth)
    assert recorded.told == [AnnounceItems] * 3 + [AnnounceFinished]
    assert recorded.outlet.backlog.waiting == 0
    assert caplog.text.count("can't be pickled (TypeError: not me); it will run again") == 1, "it is said once"


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("busy", [False, True])
def test_the_end_of_a_job_is_told_when_it_is_on_disk(recorded: Recorded, is_stream: bool, busy: bool) -> None:
    if is_stream:
        recorded.journal_job.stream = StreamGrowth(0)
    if busy:
        recorded.job.table.complete(range(1), [Recorded])
        recorded.announce(AnnounceItems(recorded.job, [0], frozenset(), {}, 1, 0, JobStatus.RUNNING))
    recorded.end()
    while recorded.picklers.lines:
        recorded.picklers.do()
    assert recorded.journal.posted[-1].urgent
    assert recorded.told == []
    for nth in range(len(recorded.journal.posted)):
        recorded.write(nth)
    assert recorded.told[-1] is AnnounceFinished


def test_what_an_item_had_tried_is_written_at_the_end_of_its_job_which_ends_before_it(recorded: Recorded) -> None:
    for index, times in ((1, 1), (2, 2)):
        for _ in range(times):
            recorded.job.table.fail_try(index, Failure(ValueError("no")), None)
    recorded.journal_job.tries_kept[2] = 2
    recorded.announce(AnnounceFinished(recorded.job, JobStatus.CANCELLED, 0, 0, 1.0))
    recorded.picklers.do()
    assert recorded.statements() == [[ADD_CHUNK, COUNTS, ENDED]]
    number, job, _, slots = recorded.journal.posted[0].statements[0][1]
    assert unseal(slots, Place("chunks.slots", job, number), "") == (1, 2), "the other one's are there"
    assert recorded.journal_job.tries_kept == {1: 1, 2: 2}


def test_of_a_stream_what_no_worker_could_be_had_for_has_not_failed(recorded: Recorded) -> None:
    """That a handler raises the same error is no such thing."""
    recorded.journal_job.stream = StreamGrowth(0)
    for index, charged in enumerate((False, True)):
        recorded.job.table.fail(index, Failure(WorkerStartError("none"), charged=charged))
        recorded.announce(AnnounceItems(recorded.job, [index], frozenset({index}), {}, 0, 1, JobStatus.RUNNING))
        assert len(recorded.picklers.lines) == charged
    assert recorded.told == [AnnounceItems]
    recorded.picklers.do()
    assert [sql for sql, _ in recorded.journal.posted[0].statements] == [COUNT_ENDED, ADD_CHUNK]


def test_what_a_job_took_is_written_at_its_end(recorded: Recorded) -> None:
    timings = recorded.job.timings
    timings.lanes, timings.sums.cpu, timings.sums.items = 1, 2.5, 3
    recorded.end()
    sql, values = recorded.journal.posted[-1].statements[0]
    assert (sql, values[4:6]) == (ENDED, (2.5, 3))


@pytest.mark.parametrize(
    ("seconds", "waits", "over", "urgent"),
    [(None, False, False, True), (1.0, False, False, True), (0.1, False, True, False)]
    + [(0.1, True, over, over) for over in (False, True)],
)
def test_what_ends_in_a_stream_is_urgent_where_items_take_long_or_the_consumer_starves(
    recorded: Recorded, seconds: float | None, waits: bool, over: bool, urgent: bool
) -> None:
    recorded.journal_job.stream = StreamGrowth(0)
    recorded.journal_job.stream.consumer_waits = waits
    recorded.job.sizer.seconds_per_item = seconds
    recorded.job.completed = 3 if over else 1
    recorded.end_item(0)
    assert [entry.urgent for entry in recorded.journal.posted] == [urgent]


@pytest.mark.parametrize("seconds", [0.1, 1.0])
def test_the_end_of_an_item_is_urgent_where_that_took_long(recorded: Recorded, seconds: float) -> None:
    recorded.job.table.elapsed[0] = seconds
    recorded.end_item(0)
    assert [entry.urgent for entry in recorded.journal.posted] == [seconds > GROUP]


def test_what_takes_too_long_to_be_pickled_is_said_to_be_left_out(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    recorded.job.table.fail(0, Failure(ValueError("no")))
    recorded.announce(AnnounceItems(recorded.job, [0], frozenset({0}), {}, 0, 1, JobStatus.RUNNING))
    recorded.picklers.do(cut_short=True)
    assert caplog.text == ""
    recorded.job.table.complete(range(1, 2), [Recorded])
    recorded.announce(AnnounceItems(recorded.job, [1], frozenset(), {}, 1, 1, JobStatus.RUNNING))
    recorded.picklers.do(cut_short=True)
    assert "what 1 of its items returned takes too long to be pickled" in caplog.text
    assert recorded.statements() == [[ADD_CHUNK, COUNTS]] * 2


def test_a_job_that_is_removed_meanwhile_is_told_of_and_not_written(recorded: Recorded) -> None:
    recorded.job.table.complete(range(1), [Recorded])
    recorded.announce(AnnounceItems(recorded.job, [0], frozenset(), {}, 1, 0, JobStatus.RUNNING))
    recorded.outlet.remove(recorded.job)
    recorded.picklers.do(cut_short=True)
    assert recorded.told == [AnnounceItems]
    assert recorded.journal.posted == []


def test_a_job_that_is_removed_or_never_was_recorded_is_told_of_and_not_written(recorded: Recorded) -> None:
    recorded.outlet.remove(recorded.job)
    assert recorded.journal_job.removed
    recorded.end_item(0)
    recorded.end()
    assert recorded.told == [AnnounceItems, AnnounceFinished]
    assert recorded.journal.posted == []
    recorded.outlet.remove(recorded.job)


def test_while_the_journal_can_not_be_written_running_jobs_are_paused_and_go_on_by_themselves(
    recorded: Recorded,
) -> None:
    told: list[JournalError | None] = []
    recorded.outlet.tell_trouble = told.append
    trouble = JournalError("no room")
    recorded.outlet._troubled(trouble)
    assert recorded.handled == [JobPaused(recorded.job)]
    with pytest.raises(JournalError, match="no room"):
        recorded.outlet.check()
    recorded.job.status = JobStatus.PAUSED
    recorded.end_item(0)
    recorded.announce(AnnounceState(recorded.job, "paused", JobStatus.PAUSED, 0, 0))
    assert recorded.told == [AnnounceState], "the pause is announced ahead"
    recorded.outlet._troubled(None)
    recorded.outlet.check()
    assert recorded.handled[1:] == [JobResumed(recorded.job)]
    assert told == [trouble, None]
    recorded.outlet._troubled(None)
    assert len(recorded.handled) == 2


def test_a_job_that_its_user_paused_or_cancels_is_left_as_it_is(recorded: Recorded) -> None:
    recorded.job.cancelled = True
    recorded.outlet._troubled(JournalError("no room"))
    recorded.job.cancelled, recorded.job.status = False, JobStatus.PAUSED
    recorded.outlet._troubled(JournalError("no room"))
    assert recorded.handled == []


def test_no_caller_waits_for_a_journal_that_can_not_be_written_while_its_queue_closes(recorded: Recorded) -> None:
    recorded.end_item(0)
    recorded.outlet._troubled(JournalError("no room"))
    assert recorded.told == []
    recorded.outlet.close()
    assert recorded.told == [AnnounceItems]
    recorded.end_item(1)
    assert recorded.told == [AnnounceItems] * 2


def test_values_between_stages_are_written_as_they_come_and_go_with_their_inputs(recorded: Recorded) -> None:
    record = PassRecord(range(3))
    pipeline: Any = SimpleNamespace(record=record, head=recorded.job)
    recorded.job.pipeline = pipeline
    stage: Any = SimpleNamespace(number=2, stage=SimpleNamespace(pipeline=pipeline))
    for root in (0, 1):
        record.note((root,), 0, [((root,), Parcel(b"a"))])
        recorded.announce(AnnounceState(stage, "running", JobStatus.RUNNING, 0, 0))
    recorded.end_item(0)
    recorded.end_item(2)
    recorded.end()
    assert recorded.told == [AnnounceState] * 2
    assert recorded.statements() == [
        *[[PUT_PASSED], [PUT_PASSED], [ADD_CHUNK, COUNTS, REMOVE], [ADD_CHUNK, COUNTS]],
        [ENDED, module.CLEARED, REMOVE_ALL],
    ]
    assert recorded.journal.posted[2].statements[-1][1] == (7, 0)


# -- what may end the program ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "chunks", "others", "alone"),
    [([2], 1, False, True), ([2], 2, False, False), ([2], 1, True, False), ([1, 2], 1, False, False)],
)
def test_an_item_is_marked_as_alone_where_no_worker_has_anything_else(
    recorded: Recorded, items: list[int], chunks: int, others: bool, alone: bool
) -> None:
    marked: list[Any] = []
    recorded.journal.running = SimpleNamespace(
        mark=lambda *what, alone: marked.append((*what, alone)), clear=marked.append, mark_beside=lambda: None
    )
    chunk = Chunk(3, recorded.job, items, Care.NONE, 0.0, 0.0)
    assert recorded.outlet._coordinator is not None
    books: Any = recorded.outlet._coordinator.scheduler.books
    books.lanes = [SimpleNamespace(), SimpleNamespace(bit=2, chunks=[chunk] * chunks)]
    books.at_work = 3 if others else 2
    forward: Any = marked.append
    recorded.outlet._send_chunk(forward, command := SimpleNamespace(lane=1, chunk=chunk))  # type: ignore[arg-type]
    assert marked == [(3, 7, items, alone), command]
    recorded.end_item(2)
    assert marked[2:] == ([3] if len(items) == 1 else [])


# -- items that users add ----------------------------------------------------------------------------------------------


@pytest.fixture
def growing(recorded: Recorded) -> Recorded:
    """The same, open."""
    recorded.job.table = ItemTable([*"abc"], None, IdRule.POSITION, grows=True)
    recorded.job.table.growth = RecordedGrowth(3)
    recorded.job.sealed = False
    return recorded


def test_items_are_written_with_the_next_group_commit(growing: Recorded) -> None:
    growth = growing.job.table.growth
    assert isinstance(growth, RecordedGrowth)
    growing.job.take_in(growth.look_at(["d"], None), IdRule.POSITION)
    posted = [Reply[None](), Reply[None]()]
    for each in posted:
        growing.outlet.items_added(growing.job, each)
        assert each.done()
    assert [(entry.urgent, entry.done) for entry in growing.journal.posted] == [(False, None)]
