"""One history: a seed decides a queue, its jobs, its users, its disk and its disasters; then the books must balance.

A history has one life of the program, or two: where the first is killed between two steps, the second goes on with the
files as they were. In each step the books are looked at (`tests.support.auditor`); what listeners were told is compared
with what became of it, in this life and the next.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mpqueue import RetryPolicy
from mpqueue._core.commands import Command
from mpqueue._core.messages import Message
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk, LaneState
from mpqueue.errors import JobFullError, JobStateError, JournalError, QueueClosedError
from mpqueue.events import ItemRetry, JobFinished, JobProgress
from mpqueue.status import COMPLETED, FAILED, RETRY, ItemStatus
from tests.simulation.disk import Disk, left_by_kill
from tests.simulation.lanes import SimulatedPool, queue_in, result_of
from tests.simulation.parent import BIG, abandon, simulated_parent, use_disk
from tests.simulation.world import Thread, World
from tests.support.auditor import Auditor
from tests.support.fake_lanes import bring, crash, fail, hang, packed, spoil, succeed
from tests.support.fake_worker import Item, Packing, Try
from tests.support.invariants import check_ended, check_invariants

#: Seconds that items take; those of the last two are written as soon as the disk can.
DURATIONS = (0.0, 20e-6, 0.001, 0.03, 0.3, 3.0)
#: How late the parent may be with a time limit, for all that may keep its threads.
SLACK = 2.0
#: Seconds of simulated time in which a history has to end.
PATIENCE = 100_000.0

#: What disturbs a history, each at the moment when something else is so; and how often.
DEEDS = {
    "pause": 3,
    "resume": 3,
    "cancel": 2,
    "cancel and kill": 2,
    "retry failed": 3,
    "kill a worker": 5,
    "let starts fail": 1,
    "let starts work": 1,
    "cancel items": 1,
    "cancel items and kill": 1,
    "retry some": 1,
    "close": 0.4,
    "drain": 0.3,
    "close and kill": 0.4,
}
DISK_DEEDS = {"fill the disk": 2, "break fsync": 2, "mend the disk": 3, "kill the program": 3}
MOMENTS = (
    *("at once", "retry due", "stealing", "stealing", "paused", "cancelled", "last item"),
    *("starting", "dying", "careful", "early", "two jobs"),
)
DISK_MOMENTS = ("bad disk", "held", "commit")
#: Half of the histories are about one of these deeds at one of these moments.
FOCUSED_DEEDS = ("pause", "cancel", "cancel and kill", "kill a worker", "close", "drain", "close and kill")
FOCUSED_DISK_DEEDS = ("fill the disk", "break fsync", "kill the program", "kill the program")
FOCUSED_MOMENTS = ("retry due", "stealing", "stealing", "last item", "paused", "careful", "early", "dying", "starting")


def handle(item: Item) -> object:
    """The handler that the jobs are made with; simulated workers know what it does."""
    raise NotImplementedError(item)


def handle_prepared(item: Item, state: object) -> object:
    """The same for jobs with a setup, whose end a worker is asked for as soon as the job has ended."""
    raise NotImplementedError(item, state)


def prepare() -> None:
    """That setup."""


@dataclass(frozen=True)
class PlannedJob:
    """A job of a plan; ``later``: it is open, and gets these items while it is there."""

    items: list[Item]
    options: dict[str, Any]
    later: list[list[Item]] | None = None


@dataclass(frozen=True)
class Plan:
    """What a seed decides beforehand."""

    lanes: int
    latency: float
    max_items_per_worker: int | None
    has_journal: bool
    jobs: dict[str, PlannedJob]
    deeds: list[list[tuple[str, float, str]]]  #: by thread: moment, seconds to wait for it at most, deed
    ending: str


def make_plan(rng: random.Random) -> Plan:
    """A plan for that chance."""
    has_journal, lanes = rng.random() < 0.5, rng.randint(1, 3)
    deeds = [make_deeds(rng, has_journal=has_journal) for _ in range(2)]
    moment = rng.choice(FOCUSED_MOMENTS + DISK_MOMENTS * has_journal) if rng.random() < 0.5 else None
    if moment is not None:
        deed = rng.choice(FOCUSED_DEEDS + FOCUSED_DISK_DEEDS * has_journal)
        deeds[0] = [(moment, 20.0, deed)] * 2 + deeds[0]
        lead_to(rng, moment, deeds[1])
        lanes = max(lanes, 2)
    cpus = 0 if has_journal else lanes
    jobs = [make_job(rng, moment if number == 0 else None, cpus) for number in range(rng.choice((1, 1, 2, 3)))]
    return Plan(
        lanes=lanes,
        latency=rng.choice((0.0, 0.0003, 0.004)),
        max_items_per_worker=rng.choice((None, None, None, 3)),
        has_journal=has_journal,
        jobs={f"job {number}": job for number, job in enumerate(jobs)},
        deeds=deeds,
        ending=rng.choice(("close", "close", "drain", "close at once", "close and kill")),
    )


def growing(rng: random.Random, item: Item) -> Item:
    """The item, which may bring others along, which may do so, too."""
    others = [succeed(rng.choice(DURATIONS)) for _ in range(rng.choice((0, 0, 1, 2)))]
    return bring(item, *(bring(each, succeed(0.0)) if rng.random() < 0.3 else each for each in others))


def make_deeds(rng: random.Random, *, has_journal: bool) -> list[tuple[str, float, str]]:
    """What one user does."""
    deeds = DEEDS | DISK_DEEDS if has_journal else DEEDS
    moments = MOMENTS + DISK_MOMENTS * has_journal
    return [
        (rng.choice(moments), rng.choice((0.01, 0.1, 1.0, 5.0)), rng.choices([*deeds], [*deeds.values()])[0])
        for _ in range(rng.randint(0, 6))
    ]


def lead_to(rng: random.Random, moment: str, deeds: list[tuple[str, float, str]]) -> None:
    """Have that moment come by what the other user does."""
    if moment == "paused":
        deeds.insert(0, ("at once", 0.1, "pause"))
    elif moment == "bad disk":
        deeds.insert(0, ("at once", 0.1, rng.choice(("fill the disk", "break fsync"))))


def make_job(rng: random.Random, moment: str | None, cpus: int) -> PlannedJob:
    """A job, which has that moment come; its items may need up to so many CPUs."""
    timeout = rng.choice((None, 1.0, 10.0))
    options: dict[str, Any] = {
        "timeout": timeout,
        "retry": RetryPolicy(max_retries=rng.choice((3, 3, 0, 1)), base_delay=rng.choice((0.0, 0.1, 1.0))),
        "chunksize": rng.choice((None, None, 1, 4)),
        "seed": 0,
        "priority": rng.choice((0, 0, 1)),
    }
    usual = succeed(rng.choice(DURATIONS))
    items = [make_item(rng, timeout) if rng.random() < 0.3 else usual for _ in range(rng.choice((1, 2, 3, 5, 8, 12)))]
    match moment:
        case "stealing" | "early":
            items = [succeed(0.001)] * 2 + [succeed(rng.choice((0.3, 3.0)))] + [succeed(0.03)] * 9
            options["chunksize"] = None
        case "retry due":
            items = [fail(0.03, times=2), succeed(3.0), *items]
            options |= {"chunksize": None, "retry": RetryPolicy(max_retries=3, base_delay=1.0)}
        case "careful":
            items = [crash(0.001, times=1), *[succeed(0.001)] * 5]
            options["chunksize"] = None
        case "held" | "commit":
            items = [succeed(0.3)] * 4
            options["chunksize"] = None
        case _:
            pass
    if cpus and rng.random() < 0.4:
        uses = rng.choice(({"gpu": 1}, {"gpu": 2}, {"license": 1}))
        options["uses"] = uses | {"cpu": rng.randint(1, cpus)}
    if rng.random() < 0.8:
        return PlannedJob(items, options)
    grown = [growing(rng, item) for item in items]
    first = rng.randrange(len(items) + 1)
    later = [grown[at : at + 2] for at in range(first, len(grown), 2)]
    return PlannedJob(grown[:first], options | {"max_waiting": rng.choice((None, None, 2))}, later)


def make_item(rng: random.Random, timeout: float | None) -> Item:
    """An item that is not like the others."""
    seconds, times = rng.choice(DURATIONS), rng.randint(1, 3)
    kinds = [
        lambda: succeed(seconds),
        lambda: fail(seconds, times=times),
        lambda: fail(seconds),
        lambda: crash(seconds, times=times),
        lambda: spoil(seconds, times=times),
        lambda: packed(rng.choice((Packing.UNREADABLE, Packing.DEADLY))),
        lambda: Item((Try(seconds),), keeps=2 * BIG),
    ]
    if timeout is not None:
        kinds.append(lambda: hang(times=times))
    return rng.choice(kinds)()


@dataclass
class Told:
    """What listeners were told of one job in one life."""

    ended: dict[int, tuple[str, bool]] = field(default_factory=dict)  #: by item: status, whether that is to survive
    finished: list[str] = field(default_factory=list)
    counted: int = 0  #: items that had ended, as the last event had it
    was_reset: bool = False  #: somebody asked for its failed items once more


class Life:
    """One life of the program, from its start to its end or its being killed."""

    def __init__(self, world: World, plan: Plan, path: Path | None) -> None:
        self.world, self.plan, self.path = world, plan, path
        self.disk = Disk(world)
        self.killed = False
        self.told: dict[str, Told] = {}
        self.books_of: dict[str, JobBook] = {}
        self.runs: list[Any] = []
        self.pool: SimulatedPool | None = None
        self.auditor: Auditor | None = None
        self.queue: Any = None
        self.refused: set[str] = set()  #: open jobs that did not take all of their items
        self.added: Counter[str] = Counter()  #: to open jobs, by their user: what is on disk
        self.begun: Counter[tuple[str, int]] = Counter()
        self.is_ending = False
        self.scheduler: Any = None
        self.states = self._states()

    def _states(self) -> dict[str, Callable[[], bool]]:
        def jobs() -> list[JobBook]:
            return [] if self.scheduler is None else list(self.scheduler.books.jobs.values())

        def lanes() -> list[Any]:
            return [] if self.scheduler is None else self.scheduler.books.lanes

        def journal_jobs() -> list[Any]:
            outlet = None if self.queue is None else self.queue._engine.journal_outlet
            return [] if outlet is None else list(outlet._journal_jobs.values())

        return {
            "retry due": lambda: any(RETRY in job.table.status for job in jobs()),
            "stealing": lambda: any(chunk.settling is not None for lane in lanes() for chunk in lane.chunks),
            "paused": lambda: any(job.paused for job in jobs()),
            "cancelled": lambda: any(job.cancelled for job in jobs()),
            "bad disk": lambda: self.disk.is_bad,
            "last item": lambda: any(len(job.table) - job.completed - job.failed == 1 for job in jobs()),
            "held": lambda: any(job.held for job in journal_jobs()),
            "commit": lambda: self.disk.in_transaction,
            "starting": lambda: any(lane.state in (LaneState.STARTING, LaneState.DOWN) for lane in lanes()),
            "dying": lambda: any(lane.state is LaneState.DYING for lane in lanes()),
            "careful": lambda: any(chunk.careful for lane in lanes() for chunk in lane.chunks),
            "early": lambda: self.pool is not None and any(lane and lane.early for lane in self.pool.lanes),
            "two jobs": lambda: len(jobs()) > 1,
        }

    # -- the program -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Live."""
        use_disk(self.disk)
        main = Thread(target=self._main, name="main")
        main.start()
        self.world.run(lambda: self.killed or not self.world.threads or self.world.time > PATIENCE)
        assert self.world.time <= PATIENCE, f"still not over: {[thread.name for thread in self.world.threads]}"
        if self.killed:
            self.world.kill()
            return
        self._check_end()

    def _main(self) -> None:
        plan = self.plan
        self.queue = queue = queue_in(
            self.world,
            plan.lanes,
            plan.latency,
            self._opened,
            journal=self.path,
            per_worker={"items": plan.max_items_per_worker},
            resources={"gpu": 2, "license": 1},
        )
        self.scheduler = queue._engine._scheduler
        self._listen_in()
        queue.on("job:progress", self._hear_progress)
        queue.on("item:retry", self._hear_retry)
        queue.on("job:finished", self._hear_finished)
        for number, (name, job) in enumerate(plan.jobs.items()):
            create: Any = queue.create_job if job.later is None else queue.open_job
            handler: Callable[..., object] = handle_prepared if number % 2 else handle
            create(name, job.items, handler, setup=prepare if number % 2 else None, **job.options)
            self.books_of[name], self.told[name] = queue._jobs.find(name).book, Told()
        self.created()
        for name, job in plan.jobs.items():
            if job.later is not None:
                Thread(target=partial(self._add, name, job.later), name=f"adds to {name}").start()
        for deeds in plan.deeds:
            Thread(target=lambda deeds=deeds: self._disturb(deeds), name="user").start()
        for name in self.books_of:
            self._try(partial(self._start, name))
        seconds = 0.05 if plan.ending == "close at once" else 300.0
        self.world.wait(lambda: all(run.done() for run in self.runs), seconds)
        self.disk.is_full = self.disk.fsync_fails = False
        if self.pool is not None:
            self.pool.broken.clear()
        for name in self.books_of:
            if self.books_of[name].paused and plan.ending == "close":
                self._try(partial(queue.resume, name))
        self._do(plan.ending)
        self.is_ending = True

    def created(self) -> None:
        """All jobs are there, and none has started."""

    def _add(self, name: str, later: list[list[Item]]) -> None:
        for items in later:
            self.world.wait(lambda: False, self.world.rng.choice((0.0, 0.01, 0.3)))
            self._try(partial(self._add_items, name, items))
        self._try(lambda: self.queue.seal(name))

    def _add_items(self, name: str, items: list[Item]) -> None:
        book, before = self.books_of[name], len(self.books_of[name].table)
        try:
            added = self.queue.add_items(name, items)
        except BaseException:
            self.refused.add(name)
            raise
        assert added <= len(book.table) - before
        if self._keeps_promises():
            self.added[name] += len(items)

    def _listen_in(self) -> None:
        scheduler = self.scheduler
        real = scheduler.handle

        def handle_message(message: Message, now: float) -> list[Command]:
            commands: list[Command] = real(message, now)
            self.world.note((type(message).__name__, [type(command).__name__ for command in commands]))
            if self.pool is None:
                check_invariants(scheduler.books)
            else:
                for watcher in self.pool.watchers:
                    watcher(message, commands)
            return commands

        scheduler.handle = handle_message

    def _opened(self, pool: SimulatedPool) -> None:
        self.pool = pool
        pool.kill_seconds = 0.05
        self.auditor = _LateAuditor(pool)  # type: ignore[arg-type]
        self.auditor.restored = {book.number: (book.completed, book.failed) for book in self.books_of.values()}
        pool.item_watchers.append(self._items_begin)

    def _items_begin(self, chunk: Chunk, lo: int, hi: int) -> None:
        self.begun.update((chunk.job.id, index) for index in chunk.indices[lo:hi])

    # -- what users and the world do -------------------------------------------------------------------------------

    def _disturb(self, deeds: list[tuple[str, float, str]]) -> None:
        for moment, seconds, deed in deeds:
            if moment == "at once":
                self.world.wait(lambda: False, seconds)
            elif not self.world.wait(self.states[moment], seconds):
                continue
            if self.is_ending:
                return
            self.world.note(deed)
            self._do(deed)

    def _do(self, deed: str) -> None:  # noqa: C901 - a list
        queue, rng = self.queue, self.world.rng
        active = [name for name, book in self.books_of.items() if book.active]
        name = rng.choice(active or [*self.books_of])
        match deed:
            case "pause":
                self._try(lambda: queue.pause(name))
            case "resume":
                self._try(lambda: queue.resume(name))
            case "cancel":
                self._try(lambda: queue.cancel(name))
            case "cancel and kill":
                self._try(lambda: queue.cancel(name, kill=True))
            case "retry failed":
                name = rng.choice([*self.books_of])
                self._try(lambda: self._retry_failed(name))
            case "cancel items" | "cancel items and kill":
                places = range(len(self.books_of[name].table))
                chosen = rng.sample(places, min(len(places), rng.choice((1, 1, 3, 20))))
                self._try(lambda: queue.cancel_items(name, chosen, kill=deed.endswith("kill")))
            case "retry some":
                name = rng.choice([*self.books_of])
                table = self.books_of[name].table
                failed = [index for index in table.failures if table.status[index] == FAILED]
                self._try(lambda: self._retry_failed(name, failed[:: rng.choice((1, 2))]))
            case "kill a worker":
                workers = [] if self.pool is None else [worker for worker in self.pool.workers if worker is not None]
                busy = [worker for worker in workers if not worker.idle] or workers
                if busy:
                    rng.choice(busy).die()
            case "let starts fail" if self.pool is not None:
                self.pool.broken.add(rng.randrange(self.plan.lanes))
            case "let starts work" if self.pool is not None:
                self.pool.broken.clear()
            case "fill the disk":
                self.disk.is_full = self.disk.was_bad = True
            case "break fsync":
                self.disk.fsync_fails = self.disk.was_bad = True
            case "mend the disk":
                self.disk.is_full = self.disk.fsync_fails = False
            case "kill the program":
                self.killed = True
                self.world.wait(lambda: False)
            case "close" | "close at once":
                self._try(queue.close)
            case "drain":
                self._try(lambda: queue.drain(rng.choice((0.0, 0.5, 5.0))))
            case "close and kill":
                self._try(lambda: queue.close(kill=True))
            case _:
                pass

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except (JobFullError, JobStateError, JournalError, QueueClosedError) as error:
            self.world.note(type(error).__name__)

    def _start(self, name: str) -> None:
        self.runs.append(self.queue.start(name))

    def _retry_failed(self, name: str, items: list[int] | None = None) -> None:
        self.told[name].was_reset = True
        self.runs.append(self.queue.retry_failed(name, items=items))

    # -- what is told ----------------------------------------------------------------------------------------------

    def _hear_progress(self, event: JobProgress) -> None:
        item = event.item
        assert item is not None
        told, index = self.told[event.job_id], int(str(item.id))
        self.world.note((event.job_id, index, str(item.status)))
        assert not told.finished or told.was_reset, "nothing is told behind a job's end"
        assert index not in told.ended or told.was_reset, "an item ends once"
        assert event.completed + event.failed > told.counted or told.was_reset, "told in the order in which it happened"
        told.counted = event.completed + event.failed
        if item.status is ItemStatus.COMPLETED:
            assert item.result == result_of(index, self.books_of[event.job_id].table.payloads[index])
        told.ended[index] = str(item.status), self._keeps_promises()

    def _keeps_promises(self) -> bool:
        """False where there is no journal, or a queue that closes has given up waiting for its disk."""
        outlet = self.queue._engine.journal_outlet
        return outlet is not None and not (outlet._closing and self.disk.was_bad)

    def _hear_retry(self, event: ItemRetry) -> None:
        self.world.note((event.job_id, event.attempt))

    def _hear_finished(self, event: JobFinished) -> None:
        told = self.told[event.job_id]
        self.world.note((event.job_id, str(event.status)))
        assert not told.finished or told.was_reset, "a job ends once"
        told.finished.append(str(event.status))
        if self._keeps_promises():
            told.ended = {index: (status, True) for index, (status, _) in told.ended.items()}

    # -- the end ---------------------------------------------------------------------------------------------------

    def _check_end(self) -> None:
        if self.auditor is not None and "kill" not in self.plan.ending:
            self.auditor.check_runs()
        for name, book in self.books_of.items():
            told = self.told[name]
            if book.started_at is not None:
                check_ended(book)
                assert told.finished, f"{name} has ended, and nobody was told"
                assert told.finished[-1] == str(book.status)
        assert all(run.done() for run in self.runs), "a run that nobody resolves"
        resources = self.scheduler.books.resources
        assert resources.left == resources.limits or any(lane.chunks for lane in self.scheduler.books.lanes), "not back"
        for name, job in self.plan.jobs.items():
            if job.later is None:
                continue
            table, given = self.books_of[name].table, len(job.items) + sum(map(len, job.later))
            brought = sum(len(item.adds) for at, item in enumerate(table.payloads) if table.status[at] == COMPLETED)
            assert len(table) <= given + brought, f"{name} has items that nobody has added"
            if name not in self.refused:
                assert len(table) == given + brought, f"{name} has lost items"


class _LateAuditor(Auditor):
    """Looks as the other does, and lets the parent be late with a kill."""

    def check_deadlines(self) -> None:
        real, self._fleet.kill_seconds = self._fleet.kill_seconds, SLACK
        try:
            super().check_deadlines()
        finally:
            self._fleet.kill_seconds = real

    def check_ledgers(self) -> None:
        """What the books say is in no ledger yet: commands are carried out behind the look."""


class SecondLife(Life):
    """The program run again: what was told and promised is there, and never runs again."""

    def __init__(self, before: Life, path: Path) -> None:
        quiet = Plan(**{**before.plan.__dict__, "deeds": [], "ending": "close"})
        super().__init__(before.world, quiet, path)
        self._before = before

    def created(self) -> None:
        """What is known of the first life's items before they go on."""
        for name, told in self._before.told.items():
            table, job = self.books_of[name].table, self.plan.jobs[name]
            if job.later is not None:
                assert len(table) >= len(job.items) + self._before.added[name], f"{name} has lost items"
            for index, (status, survives) in told.ended.items():
                if survives and not (told.was_reset and status == "failed"):
                    is_there = index < len(table) and table.ended(index)
                    assert is_there, f"item {index} of {name} was told as {status}, and is lost"
                    if status == "completed":
                        assert table.result_of(index) == result_of(index, table.payloads[index])
        self._there = {(name, index) for name, book in self.books_of.items() for index in book.table.ended_indices()}

    def _items_begin(self, chunk: Chunk, lo: int, hi: int) -> None:
        again = self._there & {(chunk.job.id, index) for index in chunk.indices[lo:hi]}
        assert not again, f"{again} had ended, and run again"
        super()._items_begin(chunk, lo, hi)


@dataclass(frozen=True)
class History:
    """What came of a seed."""

    seed: int
    digest: int
    steps: int
    lives: int


def live_through(seed: int, folder: Path) -> History:
    """Run the history of that seed; ``folder`` is for its journal. Raises AssertionError where it fails."""
    plan = make_plan(random.Random(seed))
    first, second = folder / f"{seed}-1", folder / f"{seed}-2"
    world = World(seed)
    with simulated_parent(world):
        if plan.has_journal:
            first.mkdir()
        life = Life(world, plan, first / "run.db" if plan.has_journal else None)
        lives = 1
        try:
            life.run()
            if life.killed:
                left_by_kill(first, "run.db", second)
                abandon(first)
                lives = 2
                SecondLife(life, second / "run.db").run()
        finally:
            world.kill()
            abandon(first)
            abandon(second)
    return History(seed, world.digest, world.steps, lives)
