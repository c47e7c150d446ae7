"""What is announced against what is on disk: an item's end, and a job's, are told once they are written.

The real `JournalOutlet`, and the real `Journal`'s way to write (`_keep`, `_commit`, `_fail`) with a disk that may fail.
The coordinator announces two short items, a long one between them, what a handler logged, and the job's end; what the
writer sends back comes to it at any later moment; the writer groups what was posted in any way. The program may be
killed in any state: so in each, what was told is what was promised to survive (`docs/explanation/promises.md`).
"""

from __future__ import annotations

import itertools
import queue
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mpqueue._core.commands import AnnounceFinished, AnnounceItems, AnnounceRecords, AnnounceStarted
from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import JobOptions
from mpqueue._parent.deliveries import Backlog
from mpqueue._parent.journal.chunk_rows import ADD_CHUNK
from mpqueue._parent.journal.journal_outlet import ENDED, JournalJob, JournalOutlet
from mpqueue._parent.journal.journal_writer import GROUP, Entry, Journal
from mpqueue._parent.journal.kept_values import Statement
from mpqueue._parent.users_threads import Picklers
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support.fake_worker import Handler
from tests.unit.models.explorer import Model, World, explore, reverted

#: Seconds that the items take.
SECONDS = (0.0, 2 * GROUP, 0.0)


class Disk:
    """A store of which all that was written whole survives."""

    def __init__(self, *, fails: bool) -> None:
        self.written: list[str] = []
        self._fails = fails

    def write(self, statements: Sequence[Statement], _: object) -> None:
        fails, self._fails = self._fails, False
        if fails:
            raise OSError("No space left on device")
        self.written.extend(sql for sql, _ in statements)


class ModelJournal(Journal):
    """A journal whose thread is the model's."""

    def __init__(self, disk: Disk) -> None:
        self.path = "run.db"
        self.on_trouble = lambda _: None
        self._now = lambda: 0.0
        self._store = disk  # type: ignore[assignment]
        self._posted = queue.SimpleQueue()
        self._rows = itertools.count(1)
        self._unwritten, self._trouble, self._told, self._troubled_at = [], None, False, 0.0
        self._unconfirmed = []

    def _check_in_place(self) -> None:
        """Nobody moves it."""

    def next_chunk(self) -> int:
        return next(self._rows)


class Coordinator:
    """What an outlet needs of one: whom to ask later."""

    def __init__(self) -> None:
        self.asked: list[Callable[[], object]] = []

    def do_later(self, call: Callable[[], object], job: JobBook | None = None) -> None:
        self.asked.append(call)


def announcements(job: JobBook) -> list[Any]:
    """What the scheduler says of this job: each item as it ends, and then the end."""
    items = [AnnounceItems(job, [at], frozenset(), {}, at, 0, JobStatus.RUNNING) for at in range(len(SECONDS))]
    logged = AnnounceRecords(job, 0, [])
    return [AnnounceStarted(job), *items, logged, AnnounceFinished(job, JobStatus.COMPLETED, len(SECONDS), 0, 1.0)]


Named = tuple[type, list[int]]


def name(announcement: Any) -> Named:
    """Which announcement it is."""
    return type(announcement), [*getattr(announcement, "indices", ())]


def model(  # noqa: C901 - one thread after the other
    *,
    fails: bool,
    recorder_class: type[JournalOutlet] = JournalOutlet,
    journal_class: type[ModelJournal] = ModelJournal,
) -> Model:
    def make(world: World) -> Callable[[], None]:  # noqa: C901
        disk = Disk(fails=fails)
        journal, coordinator = journal_class(disk), Coordinator()
        outlet, told = recorder_class(journal), list[Named]()
        job = JobBook(1, "job", make_table(range(len(SECONDS))), JobOptions(RetryPolicy()), Handler())
        job.started_at, job.finished_at = 0.0, 1.0
        job.table.complete(range(len(SECONDS)), [None] * len(SECONDS))
        for at, seconds in enumerate(SECONDS):
            job.table.elapsed[at] = seconds
        outlet.add(job, JournalJob(1))
        outlet.picklers = Picklers(lambda: 0.0, coordinator)  # type: ignore[arg-type]
        outlet.backlog = Backlog(lambda *_: None)
        outlet._coordinator = coordinator  # type: ignore[assignment]
        announced = announcements(job)
        expected = [*map(name, announced)]
        process = world.process("parent")
        everything = len(announced)

        def announce() -> None:
            for announcement in announced:
                world.pause()
                outlet._take(lambda one: told.append(name(one)), announcement)

        def hear() -> None:
            while len(told) < everything:
                world.pause(lambda: bool(coordinator.asked) or len(told) == everything)
                if coordinator.asked:
                    coordinator.asked.pop(0)()

        def keep() -> None:
            while True:
                world.pause(lambda: not journal._posted.empty())
                entry = journal._posted.get()
                assert isinstance(entry, Entry)
                journal._keep(entry)

        def commit() -> None:
            while True:
                world.pause(lambda: bool(journal._unwritten))
                journal._commit()

        for run in (announce, hear, keep, commit):
            world.thread(process, run)

        def check() -> None:
            assert told == expected[: len(told)], "told in the order in which it happened"
            rows = disk.written.count(ADD_CHUNK)
            assert sum(one is AnnounceItems for one, _ in told) <= rows, "an item's end is on disk before it is told"
            assert len(told) < everything or (rows == len(SECONDS) and ENDED in disk.written), "and a job's"

        def state() -> Any:
            waiting = (len(coordinator.asked), journal._posted.qsize(), len(journal._unwritten))
            return len(told), len(disk.written), *waiting, disk._fails, journal._trouble is None

        def look() -> None:
            check()
            assert len(told) == everything, "everything is told in the end"

        world.shared, world.always = state, check
        return look

    return make


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_told_was_promised_to_survive(fails: bool) -> None:
    assert explore(model(fails=fails)).states > 100


@pytest.mark.parametrize(
    ("method", "old", "new"),
    [
        pytest.param("_kept", "waits = note.waits", "waits = False", id="does not wait"),
        pytest.param("_take", "elif journal_job.held:", "elif False:", id="lets what need not wait overtake"),
        pytest.param(
            "_release",
            "while journal_job.held and journal_job.held[0].ready:",
            "while journal_job.held:",
            id="releases all",
        ),
    ],
)
def test_the_model_finds_a_recorder_that(method: str, old: str, new: str) -> None:
    changed = type("Changed", (JournalOutlet,), {method: reverted(getattr(JournalOutlet, method), old, new)})
    with pytest.raises(AssertionError):
        explore(model(fails=False, recorder_class=changed))


def test_the_model_finds_a_writer_that_takes_a_failure_for_done() -> None:
    commit = reverted(
        Journal._commit,
        "self._fail(error)\n        return",
        "self._unconfirmed, self._unwritten = [(one, True) for one in self._unwritten], []",
    )
    changed = type("Changed", (ModelJournal,), {"_commit": commit})
    with pytest.raises(AssertionError):
        explore(model(fails=True, journal_class=changed))
