"""The crash table: where it breaks, times how it breaks -> what becomes of the culprit.

In every row the culprit stands among bystanders, in one chunk on one worker, and, where workers live or the row stands
for a kind, in chunks of any size on two. The bystanders end as if nothing had happened; what events, items and counters
tell agrees; and afterwards the pool is at full strength, with the same workers unless the row is deadly.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mpqueue import (
    GiveUp,
    ItemPicklingError,
    ItemStatus,
    ItemTimeoutError,
    JobQueue,
    RemoteError,
    ResultPicklingError,
    Retry,
    RetryPolicy,
    WorkerCrashedError,
)
from tests.support import handlers as do
from tests.support.handlers import ErrorWhenPickled, ErrorWhenUnpickled, Handler, WhenPickled, WhenUnpickled
from tests.support.programs import is_running
from tests.support.recorder import Recorder
from tests.support.strength import workers_of
from tests.support.systems import not_on_windows, signal_name
from tests.support.this_system import IS_LINUX, IS_WINDOWS
from tests.support.this_system import KILL as KILL_SIGNAL
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow

#: Every failed try that may be repeated is repeated once.
ONCE = RetryPolicy(max_retries=1, base_delay=0.01)
#: For what takes its time to fail.
NEVER = RetryPolicy(max_retries=0)
#: Seconds: the bystanders, which take no time, never reach it, on a busy machine either.
TIMEOUT = 3.0
#: Seconds until a row counts as hanging.
PATIENCE = 300.0

CULPRIT = "culprit"


@dataclass(frozen=True)
class Ends:
    """How the culprit ends: the type of its exception, a pattern of its ``error``, attributes of the exception."""

    error: type[BaseException]
    message: str
    facts: dict[str, object] = field(default_factory=dict)
    attempts: int = 2


@dataclass(frozen=True)
class Row:
    """One row: what the culprit is, what its handler does, and how it ends."""

    where: str
    how: str
    ends: Ends
    handler: Handler = do.succeed
    item: Any = CULPRIT

    @property
    def is_deadly(self) -> bool:
        """Whether the worker ends, by itself or because it is killed."""
        return self.ends.error in (WorkerCrashedError, ItemTimeoutError)

    def __str__(self) -> str:
        return f"{self.where}: {self.how}"


def run(how: str, bad: Handler, ends: Ends) -> Row:
    return Row("run", how, ends, do.only(CULPRIT, bad))


def coroutine(how: str, bad: Any, ends: Ends) -> Row:
    return Row("coroutine", how, ends, do.only_later(CULPRIT, bad))


def item_pickling(how: str, bad: Handler, message: str) -> Row:
    ends = Ends(ItemPicklingError, f"^item 1 of type WhenPickled can't be pickled: {message}", attempts=0)
    return Row("item pickling", how, ends, item=WhenPickled(bad))


def item_unpickling(how: str, bad: Handler, ends: Ends) -> Row:
    return Row("item unpickling", how, ends, item=WhenUnpickled(bad))


def result_pickling(how: str, bad: Handler, ends: Ends) -> Row:
    handler = do.only(CULPRIT, do.return_made(WhenPickled, bad))
    return Row("result pickling", how, ends, handler)


def result_unpickling(how: str, bad: Handler, message: str) -> Row:
    ends = Ends(ResultPicklingError, f"^the result can't be unpickled: {message}", attempts=1)
    return Row("result unpickling", how, ends, do.only(CULPRIT, do.return_made(WhenUnpickled, bad)))


def error_pickling(how: str, bad: Handler, ends: Ends) -> Row:
    return Row("exception pickling", how, ends, do.only(CULPRIT, do.raise_made(ErrorWhenPickled, bad)))


def error_unpickling(how: str, bad: Handler, ends: Ends) -> Row:
    return Row("exception unpickling", how, ends, do.only(CULPRIT, do.raise_made(ErrorWhenUnpickled, bad)))


def remote(type_name: str, message: str, attempts: int = 2) -> Ends:
    """It ends with the stand-in of an exception that can't travel."""
    return Ends(RemoteError, f"^{message}$", {"type_name": type_name}, attempts)


def base(name: str, message: str | None = None, attempts: int = 2) -> Ends:
    """It ends with the stand-in of one of Python's own exceptions."""
    return remote(f"builtins.{name}", name if message is None else message, attempts)


def crash(code: int) -> Ends:
    """It ends with the worker, whose exit code that is."""
    name = signal_name(code)
    how = f"was ended by {name}" if name else f"ended with exit code {code}"
    message = rf"^the worker process \d+ {how} while it ran the item$"
    return Ends(WorkerCrashedError, message, {"exitcode": code, "signal": name})


def broken(message: str) -> Ends:
    """Its worker is killed for what it did to the line."""
    return Ends(WorkerCrashedError, rf"^the worker process \d+ was killed while it ran the item: {message}")


def unpicklable(message: str) -> Ends:
    """Its result can't be pickled."""
    return Ends(ResultPicklingError, message, attempts=1)


SLOW = Ends(ItemTimeoutError, r"^the item ran longer than its timeout of 3 s; its worker was killed$", attempts=1)
#: By this process, which finds no way to it; whether that is noticed by its answer or by the closed line is chance.
CUT_OFF = broken("it (serves no more|lives on)")
if IS_WINDOWS:
    # What kills a process there gives it an exit code, which os.kill takes from the signal.
    SEGV, KILL = 0xC0000005, int(KILL_SIGNAL)
else:
    SEGV, KILL = -signal.SIGSEGV, -signal.SIGKILL
#: A look at its page may come between the scribbling and its end.
SEEN_OR_GONE = Ends(
    WorkerCrashedError, rf"^the worker process \d+ was (ended by {signal_name(SEGV)} |killed .* makes no sense: )"
)
#: Where a pipe tells of a worker's end, bytes in it do so too.
DAMAGED = Ends(
    WorkerCrashedError,
    rf"^the worker process \d+ was (killed .* found bytes{'' if IS_LINUX else '|ended by SIGKILL'})",
)
BAD_WHEN_PICKLED = remote("tests.support.handlers.ErrorWhenPickled", "bad when pickled")
BAD_WHEN_UNPICKLED = remote("tests.support.handlers.ErrorWhenUnpickled", "bad when unpickled")


TABLE = [
    item_pickling("Exception", do.fail, "ValueError: cannot do"),
    item_pickling("RecursionError", do.recurse_for_ever, ".*recursion"),
    item_pickling("SystemExit", do.sys_exit, "SystemExit: 3"),
    item_pickling("KeyboardInterrupt", do.raise_keyboard_interrupt, "KeyboardInterrupt"),
    item_unpickling("Exception", do.fail, Ends(ValueError, "^cannot do None$", attempts=0)),
    item_unpickling("SystemExit", do.sys_exit, base("SystemExit", "3", attempts=0)),
    item_unpickling("KeyboardInterrupt", do.raise_keyboard_interrupt, base("KeyboardInterrupt", attempts=0)),
    item_unpickling("os._exit(3)", do.exit_with(3), crash(3)),
    item_unpickling("SIGKILL", do.kill_self, crash(KILL)),
    run("Exception", do.fail, Ends(ValueError, "^cannot do 'culprit'$")),
    run("Exception without a message", do.fail_silently, Ends(do.SilentError, "^SilentError$")),
    run("Exception with a cause", do.fail_with_cause, Ends(ValueError, "^cannot do 'culprit'$")),
    run(
        "Exception whose str() raises",
        do.raise_without_text,
        Ends(do.TextlessError, r"its str\(\) raised RuntimeError"),
    ),
    run("ExceptionGroup", do.raise_group, remote("builtins.ExceptionGroup", r"two at once \(2 sub-exceptions\)")),
    run("StopIteration", do.raise_stop_iteration, Ends(StopIteration, "^StopIteration$")),
    run("MemoryError", do.raise_memory_error, Ends(MemoryError, "^MemoryError$")),
    run("RecursionError", do.recurse_for_ever, Ends(RecursionError, "^maximum recursion depth exceeded")),
    run("Retry", do.ask_for_retry, Ends(Retry, "^the handler asked for another try$")),
    run("GiveUp", do.give_up, Ends(GiveUp, "^hopeless$", attempts=1)),
    run("SystemExit", do.sys_exit, base("SystemExit", "3")),
    run("KeyboardInterrupt", do.raise_keyboard_interrupt, base("KeyboardInterrupt")),
    run("GeneratorExit", do.raise_generator_exit, base("GeneratorExit")),
    run("BaseException", do.raise_base_exception, base("BaseException", "base")),
    run("os._exit(3)", do.exit_with(3), crash(3)),
    run("os._exit in a thread", do.exit_in_thread, crash(7)),
    run("segfault", do.segfault, crash(SEGV)),
    run("SIGKILL", do.kill_self, crash(KILL)),
    run("garbage into every descriptor", do.write_garbage_everywhere, DAMAGED),
    run("a length into every socket", do.write_a_length, broken("what it sent is damaged: found bytes")),
    run("no way out of every socket", do.shut_sockets(socket.SHUT_WR), CUT_OFF),
    run("chance in the ledger, segfault", do.scribble(1, do.segfault), SEEN_OR_GONE),
    run("Python loop", do.hang_python, SLOW),
    run("C code that holds the GIL", do.hang_holding_gil, SLOW),
    coroutine("Exception", do.fail_later, Ends(ValueError, "^cannot do 'culprit'$")),
    coroutine("SystemExit", do.exit_later, base("SystemExit", "3")),
    coroutine("KeyboardInterrupt", do.interrupt_later, base("KeyboardInterrupt")),
    coroutine("CancelledError", do.cancel_later, remote("asyncio.exceptions.CancelledError", "CancelledError")),
    coroutine("await without end", do.hang_later, SLOW),
    result_pickling("Exception", do.fail, unpicklable("can't be pickled: cannot do")),
    result_pickling("SystemExit", do.sys_exit, unpicklable("can't be pickled: 3")),
    result_pickling("KeyboardInterrupt", do.raise_keyboard_interrupt, unpicklable("can't be pickled")),
    Row("result pickling", "lock", unpicklable("can't be pickled.*lock"), do.only(CULPRIT, do.return_lock)),
    result_pickling("os._exit(3)", do.exit_with(3), crash(3)),
    result_pickling("hang", do.hang_sleep, SLOW),
    result_unpickling("Exception", do.fail, "ValueError: cannot do None"),
    result_unpickling("SystemExit", do.sys_exit, "SystemExit: 3"),
    result_unpickling("KeyboardInterrupt", do.raise_keyboard_interrupt, "KeyboardInterrupt"),
    result_unpickling("StopIteration", do.raise_stop_iteration, "StopIteration"),
    result_unpickling("MemoryError", do.raise_memory_error, "MemoryError"),
    result_unpickling("RecursionError", do.recurse_for_ever, "RecursionError: maximum recursion depth exceeded"),
    Row(
        "result unpickling",
        "a class that only the worker has",
        Ends(ResultPicklingError, "^the result can't be unpickled: ModuleNotFoundError", attempts=1),
        do.only(CULPRIT, do.return_what_is_only_here),
    ),
    error_pickling("Exception", do.fail, BAD_WHEN_PICKLED),
    error_pickling("SystemExit", do.sys_exit, BAD_WHEN_PICKLED),
    error_pickling("KeyboardInterrupt", do.raise_keyboard_interrupt, BAD_WHEN_PICKLED),
    error_pickling("segfault", do.segfault, crash(SEGV)),
    error_pickling("hang", do.hang_sleep, SLOW),
    error_unpickling("Exception", do.fail, BAD_WHEN_UNPICKLED),
    error_unpickling("SystemExit", do.sys_exit, BAD_WHEN_UNPICKLED),
    error_unpickling("KeyboardInterrupt", do.raise_keyboard_interrupt, BAD_WHEN_UNPICKLED),
    error_unpickling("another type", do.succeed, BAD_WHEN_UNPICKLED),
    error_unpickling("os._exit(3)", do.exit_with(3), crash(3)),
    Row(
        "exception unpickling",
        "two arguments",
        remote("tests.support.handlers.TwoArgumentError", "two: arguments"),
        do.only(CULPRIT, do.raise_two_argument_error),
    ),
    Row(
        "exception pickling",
        "lock",
        remote("tests.support.handlers.LockHolderError", "held"),
        do.only(CULPRIT, do.raise_lock_holder),
    ),
]


#: Rows that end one of two workers; the others end the only one, since each start of one takes long.
DEADLY_FOR_TWO = ("item unpickling: SIGKILL", "run: segfault", "run: Python loop")
ONE_CHUNK, TWO_WORKERS = (1, 4), (2, None)
#: Windows has no descriptors of sockets that a handler could hit upon.
POSIX_ONLY = (
    "run: garbage into every descriptor",
    "run: a length into every socket",
    "run: no way out of every socket",
)


def _marks(row: Row) -> list[pytest.MarkDecorator]:
    return [not_on_windows("no such descriptors")] if str(row) in POSIX_ONLY else []


ROWS = [
    pytest.param(row, *way, id=f"{row}-{name}", marks=_marks(row))
    for row in TABLE
    for name, way in (("one chunk", ONE_CHUNK), ("two workers", TWO_WORKERS))
    if way is ONE_CHUNK or not row.is_deadly or str(row) in DEADLY_FOR_TWO
]


@pytest.fixture(scope="module")
def lasting() -> Iterator[dict[int, JobQueue]]:
    """Queues of one and of two workers, for the rows that leave all workers alive."""
    with JobQueue(1, retry=ONCE) as one, JobQueue(2, retry=ONCE) as two:
        queues = {1: one, 2: two}
        for queue in queues.values():
            workers_of(queue)
        yield queues


@contextlib.contextmanager
def queue_for(row: Row, workers: int, lasting: dict[int, JobQueue]) -> Iterator[JobQueue]:
    """One that lasts, where no worker may end; else one of its own."""
    if not row.is_deadly:
        queue = lasting[workers]
        before = workers_of(queue)
        yield queue
        assert workers_of(queue) == before
        return
    slow = row.ends is SLOW
    with JobQueue(workers, retry=NEVER if slow else ONCE, timeout=TIMEOUT if slow else None) as queue:
        yield queue
        assert len(workers_of(queue)) == workers


@pytest.mark.holds(
    "promise: A crash, a timeout or a kill costs one item one try",
    "fault: the function raises",
    "fault: its exception can't be pickled, or is a SystemExit or KeyboardInterrupt",
    "fault: the worker dies: segfault, os._exit, SIGKILL, out of memory",
    "fault: the function hangs, with timeout=",
    "fault: an item or a result can't be pickled",
    "error: ItemPicklingError",
    "error: GiveUp",
)
@pytest.mark.parametrize(("row", "workers", "chunksize"), ROWS)
def test_only_the_culprit_pays(row: Row, workers: int, chunksize: int | None, lasting: dict[int, JobQueue]) -> None:
    with queue_for(row, workers, lasting) as queue:
        recorder = Recorder(queue)
        queue.create_job("job", ["left", row.item, "right", "far right"], row.handler, chunksize=chunksize)
        job = queue.start("job").result(PATIENCE)
        queue.clear_job("job")
    culprit = job.items[1]
    assert culprit.status is ItemStatus.FAILED
    assert type(culprit.exception) is row.ends.error
    assert re.search(row.ends.message, culprit.to_dict()["error"], re.DOTALL)
    assert culprit.attempts == row.ends.attempts
    assert {name: getattr(culprit.exception, name) for name in row.ends.facts} == row.ends.facts
    assert job.results == ["left", None, "right", "far right"]
    assert [item.attempts for item in job.items if item != culprit] == [1, 1, 1]
    assert recorder.retries("job") == [(1, 1)] * (row.ends.attempts == 2)
    recorder.check(job)


RETRIED = [row for row in TABLE if str(row) in ("run: Exception", "run: Retry", "run: segfault", "run: SystemExit")]


@pytest.mark.parametrize("row", RETRIED, ids=str)
def test_what_failed_once_may_succeed_at_the_next_try(row: Row, lasting: dict[int, JobQueue]) -> None:
    assert isinstance(row.handler, functools.partial)
    _, bad, _ = row.handler.args
    with queue_for(row, 1, lasting) as queue:
        job = queue.run(["left", CULPRIT, "right"], do.only(CULPRIT, do.at_first(bad)), chunksize=3)
    assert job.results == ["left", CULPRIT, "right"]
    assert [item.attempts for item in job.items] == [1, 2, 1]
    (first,) = job.items[1].history
    assert type(first.exception) is row.ends.error
    assert job.items[1].error is None


@pytest.mark.holds("promise: A crash, a timeout or a kill costs one item one try")
@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (KILL_SIGNAL, 2),
        (signal.SIGTERM, 1),
        (signal.SIGSEGV, 1),
        pytest.param(signal.SIGINT, 1, marks=not_on_windows("there it is a kill as any other")),
    ],
    ids=str,
)
def test_a_worker_that_is_killed_while_idle_is_replaced_and_nobody_charged(number: int, workers: int) -> None:
    with JobQueue(workers, max_retries=0) as queue:
        before = workers_of(queue)
        for pid in before:
            os.kill(pid, number)
        job = queue.run(range(20), do.double)
        assert job.results == [2 * item for item in range(20)]
        assert {item.attempts for item in job.items} == {1}
        after = workers_of(queue)
        assert len(after) == workers
        if number is not signal.SIGINT:
            assert not after & before


@pytest.mark.holds(
    "promise: No call waits for ever because of a dead worker",
    "error: WorkerCrashedError",
)
@pytest.mark.parametrize("number", [KILL_SIGNAL, signal.SIGTERM], ids=str)
def test_a_worker_that_is_killed_while_busy_costs_its_item_one_try(number: int, gate: Gate) -> None:
    with JobQueue(2, retry=ONCE) as queue:
        recorder = Recorder(queue)
        queue.create_job("job", ["bystander", CULPRIT], do.only(CULPRIT, do.at_first(do.announce_pid(gate))))
        run = queue.start("job")
        (pid,) = gate.wait_for_count(1)
        os.kill(int(pid), number)
        job = run.result(PATIENCE)
        assert job.results == ["bystander", CULPRIT]
        assert [item.attempts for item in job.items] == [1, 2]
        (first,) = job.items[1].history
        assert isinstance(first.exception, WorkerCrashedError)
        assert (first.exception.pid, first.pid) == (int(pid), int(pid))
        assert pid in str(first.exception)
        assert first.exception.exitcode == (number if IS_WINDOWS else -number)
        assert first.exception.signal == signal_name(first.exception.exitcode)
        recorder.check(job)
        assert int(pid) not in workers_of(queue)


def test_a_thread_left_by_an_earlier_job_that_ends_the_worker_charges_nobody(gate: Gate) -> None:
    with JobQueue(1, max_retries=0) as queue:
        assert queue.run(["first"], do.exit_when_told(gate)).results == ["first"]
        (before,) = workers_of(queue)
        gate.open()
        wait_until(lambda: not is_running(before), what="the worker to end")
        assert queue.run(["second"], do.succeed).results == ["second"]
