"""What a job brings into the journal, and that users hear of it in order, once it is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._core.commands import AnnounceFinished, AnnounceItems, AnnounceRecords, AnnounceStarted, AnnounceState
from mpqueue._core.messages import JobHeldBack, JobPaused, JobResumed
from mpqueue._core.state.item_table import Failure, ItemTable, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.pending import Care
from mpqueue._options import JobOptions
from mpqueue._parent.journal import recorder as module
from mpqueue._parent.journal.chunk_rows import ADD_CHUNK
from mpqueue._parent.journal.growth import COUNT_ENDED, RecordedGrowth, StreamGrowth
from mpqueue._parent.journal.journal_writer import GROUP, Entry
from mpqueue._parent.journal.recorder import COUNTS, ENDED, MOST_WAITING, STARTED, STATUS, Recorder, Recording
from mpqueue._wire.item_names import IdRule
from mpqueue.errors import InternalError, JournalError, WorkerStartError
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.fake_worker import Handler


class FakeJournal:
    """What is posted is on disk when a test says so."""

    path = "run.db"

    def __init__(self) -> None:
        self.posted: list[Entry] = []
        self.waiting = 0
        self.rows = 0
        self.running: Any = None

    def post(self, entry: Entry) -> None:
        self.posted.append(entry)

    def next_chunk(self) -> int:
        self.rows += 1
        return self.rows


class FakeKeepers:
    """The job's own thread does what is put there when a test says so."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, Any]] = []
        self.ended: list[int] = []
        self.hurried: list[int] = []

    def is_busy(self, _: int) -> bool:
        return bool(self.lines)

    def put(self, _: int, aside: Any, then: Any) -> None:
        self.lines.append((aside, then))

    def do(self, *, cut_short: bool = False) -> None:
        aside, then = self.lines.pop(0)
        then(aside.cut_short() if cut_short else aside.run())

    def hurry(self, number: int) -> None:
        self.hurried.append(number)

    def end(self, number: int) -> None:
        self.ended.append(number)


class Recorded:
    """A job of three items that is recorded, as number 7 of its journal."""

    def __init__(self) -> None:
        self.journal = FakeJournal()
        self.handled: list[Any] = []
        self.told: list[type] = []
        self.job = JobBook(1, "job", make_table("abc"), JobOptions(RetryPolicy()), Handler())
        self.job.started_at, self.job.finished_at, self.job.status = 5.0, 6.0, JobStatus.RUNNING
        books = SimpleNamespace(jobs={1: self.job}, let_go=lambda _: None)
        coordinator: Any = SimpleNamespace(
            do_later=lambda call, job=None: call(),
            handle=self.handled.append,
            scheduler=SimpleNamespace(books=books),
        )
        self.recorder = Recorder(self.journal)  # type: ignore[arg-type]
        self.recorder.keepers = self.keepers = FakeKeepers()  # type: ignore[assignment]
        self.recorder._coordinator = coordinator
        self.recording = Recording(7)
        self.recorder.add(self.job, self.recording)

    def announce(self, announcement: Any) -> None:
        self.recorder._take(lambda one: self.told.append(type(one)), announcement)

    def end_item(self, index: int) -> None:
        self.job.table.complete(range(index, index + 1), [index])
        self.announce(AnnounceItems(self.job, [index], frozenset(), {}, index + 1, 0, JobStatus.RUNNING))

    def end(self) -> None:
        self.announce(AnnounceFinished(self.job, JobStatus.COMPLETED, 3, 0, 1.0))

    def write(self, nth: int) -> None:
        """What was posted as that is on disk."""
        done = self.journal.posted[nth].done
        assert done is not None
        done()

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
    recorded.recorder.in_turn(recorded.job, lambda: called.append(1))
    assert called == [1]
    assert recorded.recorder.untold(recorded.job) == []
    recorded.end_item(1)
    recorded.recorder.in_turn(recorded.job, lambda: called.append(2))
    assert [type(one) for one in recorded.recorder.untold(recorded.job)] == [AnnounceItems]
    assert called == [1]
    recorded.write(0)
    assert called == [1, 2]
    assert recorded.recorder.untold(recorded.job) == []


def test_a_job_of_which_too_much_waits_is_held_back_until_half_of_that_is_on_disk(recorded: Recorded) -> None:
    recorded.journal.waiting = MOST_WAITING
    recorded.end_item(0)
    assert recorded.handled == []
    recorded.journal.waiting = MOST_WAITING + 1
    recorded.end_item(1)
    recorded.end_item(2)
    assert recorded.handled == [JobHeldBack(recorded.job, True)]
    recorded.journal.waiting = MOST_WAITING // 2 + 1
    recorded.write(0)
    assert len(recorded.handled) == 1
    recorded.journal.waiting = MOST_WAITING // 2
    recorded.write(1)
    recorded.write(2)
    assert recorded.handled[1:] == [JobHeldBack(recorded.job, False)]


def test_of_results_that_are_in_the_journal_the_newest_stay_in_memory(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go: list[tuple[list[int], int]] = []
    monkeypatch.setattr(type(recorded.job.table), "let_go", lambda _, indices, row: let_go.append(([*indices], row)))
    for index in range(3):
        recorded.end_item(index)
    entry = recorded.journal.posted[0]
    size = len(entry.statements[0][1][2]) - 4 + module.OBJECT  # without its checksum
    monkeypatch.setattr(module, "MOST_RECENT", 2 * size)
    refused = recorded.journal.posted[1].refused
    assert refused is not None
    refused()
    for nth in (0, 1, 2):
        recorded.write(nth)
    assert let_go == [], "what was refused is not in the journal"
    monkeypatch.setattr(module, "MOST_RECENT", 2 * size - 1)
    recorded.end_item(1)
    recorded.write(3)
    assert let_go == [([0], 1), ([2], 3)]


def test_a_failed_item_that_runs_again_is_written_as_such_when_the_job_starts(recorded: Recorded) -> None:
    table = recorded.job.table
    failure = Failure(ValueError("no"))
    table.fail(1, failure)
    recorded.announce(AnnounceItems(recorded.job, [1], frozenset({1}), {}, 0, 1, JobStatus.RUNNING))
    assert recorded.journal.posted == [], "its error is pickled first"
    assert recorded.recording.failed == {1}
    recorded.keepers.do()
    recorded.announce(AnnounceStarted(recorded.job))
    assert recorded.recording.failed == {1}, "it has failed still"
    table.forget_failures()
    recorded.announce(AnnounceStarted(recorded.job))
    assert recorded.recording.failed == set()
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
    assert recorded.recorder._backlog == 20
    recorded.keepers.do()
    assert recorded.recorder._backlog == 10
    for _ in range(3):
        assert recorded.keepers.ended == []
        recorded.keepers.do()
    assert recorded.keepers.ended == [1]
    assert recorded.recorder._backlog == 0
    assert recorded.statements() == [[ADD_CHUNK, COUNTS]] * 3 + [[ENDED, module.CLEARED]]
    assert recorded.told == []
    for nth in range(4):
        recorded.write(nth)
    assert recorded.told == [AnnounceItems] * 3 + [AnnounceFinished]
    assert caplog.text.count("can't be pickled (TypeError: not me); it will run again") == 1, "it is said once"


@pytest.mark.parametrize("killed", ["the job", "all"])
def test_of_a_job_that_was_killed_nothing_that_comes_later_takes_long(recorded: Recorded, killed: str) -> None:
    def complete(index: int) -> None:
        recorded.job.table.complete(range(index, index + 1), [Recorded])
        recorded.announce(AnnounceItems(recorded.job, [index], frozenset(), {}, 1, 0, JobStatus.RUNNING))
        recorded.keepers.do()

    complete(0)
    assert recorded.keepers.hurried == []
    recorded.recorder.hurry([recorded.job] if killed == "the job" else None)
    before = len(recorded.keepers.hurried)
    complete(1)
    assert len(recorded.keepers.hurried) == before + 1


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("busy", [False, True])
def test_the_end_of_a_job_is_told_when_it_is_on_disk_and_ends_its_thread(
    recorded: Recorded, is_stream: bool, busy: bool
) -> None:
    if is_stream:
        recorded.recording.stream = StreamGrowth(0)
    if busy:
        recorded.job.table.complete(range(1), [Recorded])
        recorded.announce(AnnounceItems(recorded.job, [0], frozenset(), {}, 1, 0, JobStatus.RUNNING))
    recorded.end()
    while recorded.keepers.lines:
        assert recorded.keepers.ended == []
        recorded.keepers.do()
    assert recorded.keepers.ended == [1]
    assert recorded.journal.posted[-1].urgent
    assert recorded.told == []
    for nth in range(len(recorded.journal.posted)):
        recorded.write(nth)
    assert recorded.told[-1] is AnnounceFinished


def test_of_a_job_that_a_fault_ends_nothing_is_written_any_more_and_its_end_is_told_soon(recorded: Recorded) -> None:
    recorded.end_item(0)
    recorded.job.fault = InternalError("a mistake")
    recorded.end_item(1)
    recorded.end()
    assert recorded.statements() == [[ADD_CHUNK, COUNTS], []]
    assert recorded.journal.posted[1].urgent
    recorded.write(0)
    assert recorded.told == [AnnounceItems] * 2
    recorded.write(1)
    assert recorded.told[2:] == [AnnounceFinished]


def test_what_an_item_had_tried_is_written_at_the_end_of_its_job_which_ends_before_it(recorded: Recorded) -> None:
    for index, times in ((1, 1), (2, 2)):
        for _ in range(times):
            recorded.job.table.fail_try(index, Failure(ValueError("no")), None)
    recorded.recording.tries_kept[2] = 2
    recorded.announce(AnnounceFinished(recorded.job, JobStatus.CANCELLED, 0, 0, 1.0))
    recorded.keepers.do()
    assert recorded.statements() == [[ADD_CHUNK, COUNTS, ENDED]]
    assert recorded.recording.tries_kept == {1: 1, 2: 2}


def test_of_a_stream_what_no_worker_could_be_had_for_has_not_failed(recorded: Recorded) -> None:
    """That a handler raises the same error is no such thing."""
    recorded.recording.stream = StreamGrowth(0)
    for index, charged in enumerate((False, True)):
        recorded.job.table.fail(index, Failure(WorkerStartError("none"), charged=charged))
        recorded.announce(AnnounceItems(recorded.job, [index], frozenset({index}), {}, 0, 1, JobStatus.RUNNING))
        assert len(recorded.keepers.lines) == charged
    assert recorded.told == [AnnounceItems]
    recorded.keepers.do()
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
    recorded.recording.stream = StreamGrowth(0)
    recorded.recording.stream.consumer_waits = waits
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
    recorded.keepers.do(cut_short=True)
    assert caplog.text == ""
    recorded.job.table.complete(range(1, 2), [Recorded])
    recorded.announce(AnnounceItems(recorded.job, [1], frozenset(), {}, 1, 1, JobStatus.RUNNING))
    recorded.keepers.do(cut_short=True)
    assert "what 1 of its items returned takes too long to be pickled" in caplog.text
    assert recorded.statements() == [[ADD_CHUNK, COUNTS]] * 2


def test_a_job_that_is_removed_meanwhile_is_told_of_and_not_written(recorded: Recorded) -> None:
    recorded.job.table.complete(range(1), [Recorded])
    recorded.announce(AnnounceItems(recorded.job, [0], frozenset(), {}, 1, 0, JobStatus.RUNNING))
    recorded.recorder.remove(recorded.job)
    recorded.keepers.do(cut_short=True)
    assert recorded.told == [AnnounceItems]
    assert recorded.journal.posted == []


def test_a_job_that_is_removed_or_never_was_recorded_is_told_of_and_not_written(recorded: Recorded) -> None:
    recorded.recorder.remove(recorded.job)
    assert recorded.recording.removed
    recorded.end_item(0)
    recorded.end()
    assert recorded.told == [AnnounceItems, AnnounceFinished]
    assert recorded.journal.posted == []
    recorded.recorder.remove(recorded.job)


def test_while_the_journal_can_not_be_written_running_jobs_are_paused_and_go_on_by_themselves(
    recorded: Recorded,
) -> None:
    told: list[JournalError | None] = []
    recorded.recorder.tell_trouble = told.append
    trouble = JournalError("no room")
    recorded.recorder._troubled(trouble)
    assert recorded.handled == [JobPaused(recorded.job)]
    with pytest.raises(JournalError, match="no room"):
        recorded.recorder.check()
    recorded.job.status = JobStatus.PAUSED
    recorded.end_item(0)
    recorded.announce(AnnounceState(recorded.job, "paused", JobStatus.PAUSED, 0, 0))
    assert recorded.told == [AnnounceState], "the pause is announced ahead"
    recorded.recorder._troubled(None)
    recorded.recorder.check()
    assert recorded.handled[1:] == [JobResumed(recorded.job)]
    assert told == [trouble, None]
    recorded.recorder._troubled(None)
    assert len(recorded.handled) == 2


def test_a_job_that_its_user_paused_or_cancels_is_left_as_it_is(recorded: Recorded) -> None:
    recorded.job.cancelled = True
    recorded.recorder._troubled(JournalError("no room"))
    recorded.job.cancelled, recorded.job.status = False, JobStatus.PAUSED
    recorded.recorder._troubled(JournalError("no room"))
    assert recorded.handled == []


def test_no_caller_waits_for_a_journal_that_can_not_be_written_while_its_queue_closes(recorded: Recorded) -> None:
    recorded.end_item(0)
    recorded.recorder._troubled(JournalError("no room"))
    assert recorded.told == []
    recorded.recorder.close()
    assert recorded.told == [AnnounceItems]
    recorded.end_item(1)
    assert recorded.told == [AnnounceItems] * 2


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
    assert recorded.recorder._coordinator is not None
    books: Any = recorded.recorder._coordinator.scheduler.books
    books.lanes = [SimpleNamespace(), SimpleNamespace(bit=2, chunks=[chunk] * chunks)]
    books.at_work = 3 if others else 2
    forward: Any = marked.append
    recorded.recorder._send_chunk(forward, command := SimpleNamespace(lane=1, chunk=chunk))  # type: ignore[arg-type]
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
    for _ in range(2):
        growing.recorder.items_added(growing.job)
    assert [(entry.urgent, entry.done) for entry in growing.journal.posted] == [(False, None)]
