"""mpqueue's own mistakes: each command's action, each message's handling and each thread is broken in turn.

What a mistake touches ends with `InternalError`, what it does not goes on, and nothing waits for ever.
"""

from __future__ import annotations

import asyncio
import operator
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, get_args

import pytest

import mpqueue
from mpqueue import Executor, InternalError, JobQueue, JobRun, Pool
from mpqueue._core import commands, messages
from mpqueue._core.scheduler import _HANDLERS, Scheduler
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.machine_sleep import Lookout
from mpqueue._dropin.shared_pool import shared_pool
from mpqueue._engines.executor_backend import ExecutorLane
from mpqueue._engines.inline import InlineLane
from mpqueue._engines.loky.loky_lane import LokyLane
from mpqueue._engines.loky.loky_pool import LokyPool
from mpqueue._engines.loky.process.warden import Warden
from mpqueue._parent.coordinator import Coordinator
from mpqueue._parent.inbox import Inbox
from mpqueue._parent.open_calls import Calls
from mpqueue._parent.surroundings.memory_sampler import Sampler
from mpqueue._parent.transport.traffic import Traffic
from mpqueue._queue.announcer import Announcer
from mpqueue.backends import ExecutorBackend
from mpqueue.status import JobStatus
from mpqueue.testing import InlinePool
from tests.support.handlers import block_until_told, only, square, succeed
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

#: Seconds that anything may take to end.
LIMIT = 60.0
BOOKS = ("JobBook", "Chunk")


def broken(*_: Any, **__: Any) -> NoReturn:
    raise ZeroDivisionError("a mistake of ours")


@pytest.fixture
def coordinators(monkeypatch: pytest.MonkeyPatch) -> list[Coordinator]:
    """Those that are made from now on."""
    made: list[Coordinator] = []
    start = Coordinator.start

    def note(coordinator: Coordinator) -> None:
        made.append(coordinator)
        start(coordinator)

    monkeypatch.setattr(Coordinator, "start", note)
    return made


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


class Two:
    """A queue with a job that is to be hit and one beside it, each with an item on a worker of its own."""

    def __init__(self, gate: Gate, coordinators: list[Coordinator]) -> None:
        self.gate = gate
        self.queue = JobQueue(2)
        self.errors: dict[str, InternalError] = {}
        self.runs: dict[str, JobRun] = {}
        for name in ("victim", "bystander"):
            self.queue.create_job(name, [name], block_until_told(gate))
        assert self.queue.get_stats().pending == 2
        self.queue._host.worker_pids()  # makes the coordinator
        (self.coordinator,) = coordinators

    def start(self) -> None:
        for name in ("victim", "bystander"):
            try:
                self.runs[name] = self.queue.start(name)
            except InternalError as error:
                self.errors[name] = error
        wait_until(lambda: all(run.done() or self.gate.is_here(name) for name, run in self.runs.items()))

    def facts(self) -> dict[str, Any]:
        """What a command or a message about the victim says, by the types and the names of its fields."""
        books = self.coordinator.scheduler.books
        lane = next((lane for lane in books.lanes if lane.job is not None and lane.job.id == "victim"), None)
        if lane is None or lane.job is None:
            return {}
        return {
            "JobBook": lane.job,
            "Chunk": lane.chunks[0],
            "lane": lane.number,
            "generation": lane.generation,
            "error": InternalError("posted"),
        }

    def end(self) -> None:
        """Let the handlers return; both jobs end, one way or the other, and the queue is closed."""
        self.gate.open()
        for name, run in self.runs.items():
            error = run.exception(LIMIT)
            if error is not None:
                assert isinstance(error, InternalError)
                assert "a mistake of ours" in error.traceback
                self.errors[name] = error
        self.queue.close()


@pytest.fixture
def two(gate: Gate, coordinators: list[Coordinator]) -> Iterator[Two]:
    made = Two(gate, coordinators)
    yield made
    gate.open()
    made.queue.close(kill=True)


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """While this is empty, no coordinator that is made from now on can send a chunk."""
    works: list[str] = []
    send = Coordinator._send_chunk
    monkeypatch.setattr(Coordinator, "_send_chunk", lambda *arguments: send(*arguments) if works else broken())
    return works


def made_of(kind: type, facts: dict[str, Any]) -> Any:
    """A command or message of that kind, about what the facts say."""
    hints = {name: str(getattr(hint, "__forward_arg__", hint)) for name, hint in kind.__annotations__.items()}
    return kind(**{name: facts.get(hint.removesuffix(" | None"), facts.get(name)) for name, hint in hints.items()})


def names_a_job(kind: type) -> bool:
    return any(str(getattr(hint, "__forward_arg__", hint)) in BOOKS for hint in kind.__annotations__.values())


def is_of(subject: Any, job_id: str) -> bool:
    """True where it names that job, or none."""
    chunk = getattr(subject, "chunk", None)
    job = chunk.job if isinstance(chunk, Chunk) else getattr(subject, "job", None)
    return not isinstance(job, JobBook) or job.id == job_id


def breaking(real: Callable[..., object]) -> Callable[..., object]:
    """The same, but it raises where it is about the victim, or about no job."""

    def call(*arguments: Any) -> object:
        return broken() if is_of(arguments[-1], "victim") else real(*arguments)

    return call


def check(two: Two, kind: type) -> None:
    assert "victim" in two.errors
    if names_a_job(kind):
        assert "bystander" not in two.errors
        bystander = two.queue.get_job("bystander")
        assert bystander is not None
        assert bystander.status is JobStatus.COMPLETED


@pytest.mark.parametrize("kind", get_args(commands.Command), ids=lambda kind: kind.__name__)
def test_a_command_that_can_not_be_carried_out_ends_what_it_touches(
    two: Two, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    actions: dict[type, Any] = two.coordinator._actions
    actions[kind] = breaking(actions[kind])
    two.start()
    if facts := two.facts():  # else it was carried out, and broken, before

        def ask_for_it(scheduler: Scheduler, _: object) -> None:
            if facts:  # once
                scheduler.books.commands.append(made_of(kind, facts))
                facts.clear()

        monkeypatch.setitem(_HANDLERS, messages.TimePassed, ask_for_it)
        two.coordinator.post(messages.TimePassed())
        wait_until(two.runs["victim"].done, what="the victim's end")
    two.end()
    check(two, kind)


@pytest.mark.parametrize("kind", get_args(messages.Message), ids=lambda kind: kind.__name__)
def test_a_message_that_can_not_be_handled_ends_what_it_touches(
    two: Two, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is messages.BellRung:  # it is not the scheduler's
        monkeypatch.setattr(Traffic, "early_report", broken)
    else:
        monkeypatch.setitem(_HANDLERS, kind, breaking(_HANDLERS[kind]))
    two.start()
    if facts := two.facts():
        two.coordinator.post(made_of(kind, facts))
        wait_until(two.runs["victim"].done, what="the victim's end")
    two.end()
    if kind is not messages.FaultFound:  # to break the handling of a fault ends the queue
        check(two, kind)


BREAKS: dict[str, tuple[Any, str]] = {
    "the loop": (Inbox, "take"),
    "the lookout": (Lookout, "look"),
    "a start": (LokyPool, "_start"),
    "a worker's first answer": (Warden, "_answered"),
    "a worker's end": (Warden, "_exited"),
    "a worker's last answers": (Warden, "_drained"),
    "a worker's beginning": (Warden, "_begin"),
    "the line": (LokyLane, "_answered"),
    "an answer": (Traffic, "_answered"),
    "an answer's callbacks": (Calls, "settle"),
    "an announcement": (Announcer, "announce"),
    "a notice": (Announcer, "_tell_items"),
    "the last notice": (Announcer, "_tell_finished"),
    "the sampler": (Sampler, "_look"),
}


@pytest.mark.parametrize("where", BREAKS)
def test_a_mistake_on_any_thread_ends_the_job(where: str, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    owner, name = BREAKS[where]
    options: dict[str, Any] = {"max_memory_per_worker": "8GB"} if owner is Sampler else {}
    monkeypatch.setattr(owner, name, broken)
    with JobQueue(1, **options) as queue:
        queue.add_listener("job:progress", succeed)
        queue.add_listener("job:finished", succeed)
        queue.create_job("victim", ["first", "second"], only("second", block_until_told(gate), opaque), chunksize=1)
        try:
            run = queue.start("victim")
        except InternalError:
            return
        wait_until(lambda: run.done() or gate.is_here("second"))
        if owner is Warden and not run.done():
            (pid,) = queue._host.worker_pids()
            os.kill(pid, signal.SIGKILL)
        if name == "_tell_finished":
            gate.open()
        with pytest.raises(InternalError, match="mistake") as raised:
            run.result(LIMIT)
        assert "a mistake of ours" in raised.value.traceback
        monkeypatch.undo()


def test_a_mistake_with_items_that_were_pickled_aside_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Traffic, "_packed", broken)
    with JobQueue(1) as queue:
        queue.create_job("victim", [Opaque()], succeed)
        with pytest.raises(InternalError, match="mistake"):
            queue.start("victim").result(LIMIT)
        monkeypatch.undo()
        queue.create_job("next", [Opaque()], succeed)
        assert queue.start("next").result(LIMIT).completed == 1


class Opaque:
    """Not plain data."""


def opaque(_: object) -> Opaque:
    return Opaque()


@pytest.mark.parametrize("engine", ["inline", "executor"])
def test_a_mistake_in_another_engine_ends_the_job(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1) as threads:
        backend: Any = InlinePool() if engine == "inline" else ExecutorBackend(threads)
        owner, name = (InlineLane, "_answer") if engine == "inline" else (ExecutorLane, "_answered")
        monkeypatch.setattr(owner, name, broken)
        with JobQueue(1, backend=backend) as queue:
            queue.create_job("victim", [1, 2], succeed)
            with pytest.raises(InternalError):
                queue.start("victim").result(LIMIT)
            monkeypatch.undo()
            queue.create_job("next", [1, 2], succeed)
            assert queue.start("next").result(LIMIT).results == [1, 2]


async def amapped() -> list[int]:
    return await mpqueue.amap(square, range(10))


async def awaited(run: JobRun) -> object:
    return await run


def in_pool(call: Callable[[Pool], object]) -> Callable[[], object]:
    def use() -> object:
        with Pool(1) as pool:
            return call(pool)

    return use


def in_executor(call: Callable[[Executor], object]) -> Callable[[], object]:
    def use() -> object:
        with Executor(1) as executor:
            return call(executor)

    return use


def in_job(take: Callable[[JobRun], object]) -> Callable[[], object]:
    def use() -> object:
        with JobQueue(1) as queue:
            queue.create_job("job", [1], square)
            return take(queue.start("job"))

    return use


USES: dict[str, Callable[[], object]] = {
    "map": lambda: mpqueue.map(square, range(10)),
    "amap": lambda: asyncio.run(amapped()),
    "imap": lambda: list(mpqueue.imap(square, range(10))),
    "await": in_job(lambda run: asyncio.run(awaited(run))),
    "as_completed": in_job(lambda run: list(run.as_completed())),
    "Pool.map": in_pool(lambda pool: pool.map(square, range(10))),
    "Pool.apply": in_pool(lambda pool: pool.apply(square, (1,))),
    "Pool.imap": in_pool(lambda pool: list(pool.imap(square, range(10)))),
    "Executor.submit": in_executor(lambda executor: executor.submit(square, 1).result(LIMIT)),
    "Executor.map": in_executor(lambda executor: list(executor.map(square, range(10)))),
}


@pytest.mark.parametrize("how", ["its job ends", "its queue ends"])
@pytest.mark.parametrize("use", USES)
def test_every_way_to_run_a_function_raises_it(
    use: str, how: str, monkeypatch: pytest.MonkeyPatch, sending: list[str]
) -> None:
    shared_pool.close()
    if how == "its queue ends":
        monkeypatch.setitem(_HANDLERS, messages.FaultFound, broken)
    with pytest.raises(InternalError):
        USES[use]()
    sending.append("works")
    if use in ("map", "amap", "imap"):
        assert mpqueue.map(square, range(3)) == [0, 1, 4]
    shared_pool.close()


def test_calls_of_a_queue_that_a_mistake_has_ended_raise_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with JobQueue(1) as queue:
        queue.create_job("job", [1], succeed)
        monkeypatch.setattr(Lookout, "look", broken)
        with pytest.raises(InternalError):
            queue.start("job").result(LIMIT)
        for call in (
            lambda: queue.create_job("next", [1], succeed),
            lambda: queue.start("job"),
            lambda: queue.pause("job"),
            lambda: queue.cancel("job"),
        ):
            with pytest.raises(InternalError, match="mistake"):
                call()
        assert queue.get_job("job") is not None
        assert queue.get_stats().total == 1


def test_a_journal_does_not_record_it_and_the_next_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, send = tmp_path / "journal.db", Coordinator._send_chunk

    def send_first(coordinator: Coordinator, command: commands.SendChunk) -> None:
        if 0 not in command.chunk.indices:
            broken()
        send(coordinator, command)

    monkeypatch.setattr(Coordinator, "_send_chunk", send_first)
    with JobQueue(1, journal=path) as queue:
        job = queue.create_job("job", range(4), square, chunksize=1)
        with pytest.raises(InternalError):
            queue.start("job").result(LIMIT)
        failed = [error.item for error in job.failures]
        assert all(isinstance(item.exception, InternalError) and not item.attempts for item in failed)
    monkeypatch.undo()
    with JobQueue(1, journal=path) as queue:
        job = queue.create_job("job", range(4), square, chunksize=1)
        assert not job.failures
        assert queue.start("job").result(LIMIT).results == [0, 1, 4, 9]


def test_items_that_it_failed_can_be_tried_again(sending: list[str]) -> None:
    with JobQueue(1) as queue:
        job = queue.create_job("job", [1, 2], square)
        with pytest.raises(InternalError):
            queue.start("job").result(LIMIT)
        sending.append("works")
        assert queue.retry_failed("job").result(LIMIT).results == [1, 4]
        assert list(map(operator.attrgetter("attempts"), job.items)) == [1, 1]
