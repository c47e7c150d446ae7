"""A Ctrl-C at each moment of a call: the queue, its workers and its other callers go on."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import as_completed, wait
from pathlib import Path
from typing import Any

import pytest

from mpqueue import Executor, JobQueue
from mpqueue._parent.surroundings.replies import Reply, SafeEvent, SafeFuture
from tests.support import handlers as do
from tests.support.interruptions import Interruption
from tests.support.length import IS_LONG
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

#: Seconds that a thread that is never blocked needs at the very most.
PATIENCE = 30.0


#: The package, and what it calls of the standard library's locks and futures.
ALL = ("mpqueue.", "threading", "concurrent.futures.")


def interrupt_each_moment(call: Callable[[], Any], check: Callable[[int], None], where: tuple[str, ...] = ALL) -> None:
    """Interrupt the call at its first moment, its second and so on, until it ends before its moment comes."""
    went_through = 0
    for number in range(100_000):
        interruption = Interruption(number, where)
        with contextlib.suppress(KeyboardInterrupt):
            interruption.run(call)
        check(number)
        went_through = 0 if interruption.came else went_through + 1
        if went_through == 3 or (not IS_LONG and number == 300):  # what other threads do meanwhile moves the end
            return


def answers(queue: JobQueue, number: int) -> None:
    """The coordinator is not blocked."""
    assert queue._host.ask_later(lambda: "here").result(PATIENCE) == "here", f"interrupted at moment {number}"


@pytest.mark.parametrize("name", ["add_items", "pause and resume", "result", "done", "seal"])
def test_a_ctrl_c_at_any_moment_of_a_call_never_blocks_the_coordinator(name: str, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with JobQueue(1) as queue:
        job = queue.create_job("job", ["waits"], do.only("waits", do.block_until_told(gate)), open=True)
        run = queue.start("job")
        calls: dict[str, Callable[[], Any]] = {
            "add_items": lambda: queue.add_items("job", ["bystander"]),
            "pause and resume": lambda: pause_and_resume(queue),
            "result": lambda: wait_shortly(run),
            "done": run.done,
            "seal": lambda: queue.seal("job"),
        }
        interrupt_each_moment(calls[name], lambda number: answers(queue, number))
        queue.resume("job")
        queue.seal("job")
        gate.open()
        assert set(run.result(PATIENCE).results) <= {"waits", "bystander"}
        assert job.failed == 0


@pytest.mark.parametrize("name", ["create_job", "replace", "clear_job", "open"])
def test_after_a_ctrl_c_at_any_moment_of_making_or_removing_a_job_its_id_is_usable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = list[object]()
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with JobQueue(1, journal=tmp_path / "journal.db" if name == "open" else None) as queue:
        calls: dict[str, Callable[[], Any]] = {
            "create_job": lambda: queue.create_job("job", ["a"], do.succeed),
            "replace": lambda: queue.create_job("job", ["a"], do.succeed, replace=True),
            "clear_job": lambda: queue.clear_job("job"),
            "open": lambda: queue.create_job("job", ["a"], do.succeed, open=True, replace=True),
        }

        def make_ready(number: int) -> None:
            job = queue.create_job("job", ["bystander"], do.succeed, replace=True)
            if number % 50 == 0:
                assert queue.start("job").result(PATIENCE).results == ["bystander"], f"interrupted at moment {number}"
            if name == "create_job":
                queue.clear_job("job")
                assert queue.get_job("job") is None
            assert not printed, f"interrupted at moment {number}: {printed}"
            del job

        make_ready(0)
        interrupt_each_moment(calls[name], make_ready)


def pause_and_resume(queue: JobQueue) -> None:
    queue.pause("job")
    queue.resume("job")


def wait_shortly(run: Any) -> None:
    with contextlib.suppress(TimeoutError):
        run.result(timeout=0.001)


def test_a_ctrl_c_at_any_moment_of_a_wait_for_a_future_never_blocks_the_thread_that_resolves_it() -> None:
    with Executor(1) as executor:
        executor.submit(do.succeed, "first").result(PATIENCE)
        interrupt_each_moment(lambda: executor.submit(do.succeed, "victim").result(PATIENCE), lambda _: None)
        assert executor.submit(do.succeed, "bystander").result(PATIENCE) == "bystander"


def test_an_interrupted_wait_never_blocks_what_it_waited_for() -> None:
    def check(
        make: Callable[[], Any],
        begin_to_wait: Callable[[Any], Any],
        resolve: Callable[[Any], Any],
        where: tuple[str, ...] = ALL,
    ) -> None:
        made: list[Any] = []

        def begin() -> None:
            made.append(make())
            with contextlib.suppress(TimeoutError):
                begin_to_wait(made[-1])

        def end(number: int) -> None:
            if made:
                thread = threading.Thread(target=resolve, args=(made.pop(),), daemon=True)
                thread.start()
                thread.join(PATIENCE)
                assert not thread.is_alive(), f"interrupted at moment {number}"

        interrupt_each_moment(begin, end, where)

    check(SafeEvent, lambda event: event.wait(0.001), lambda event: event.set())
    check(Reply[None], lambda reply: reply.result(0.001), lambda reply: reply.set_result(None))
    check(SafeFuture[None], lambda future: future.result(0.001), lambda future: future.set_result(None))
    check(SafeFuture[None], lambda future: future.exception(0.001), lambda future: future.set_exception(OSError()))
    check(SafeFuture[None], lambda future: future.add_done_callback(print), lambda future: future.cancel())
    check(SafeFuture[None], lambda future: (future.done(), future.running()), lambda future: future.set_result(None))
    beyond = ("mpqueue.", "threading")
    check(SafeFuture[None], lambda future: wait([future], 0.001), lambda future: future.cancel(), beyond)
    check(SafeFuture[None], lambda future: next(as_completed([future], 0.001)), lambda future: future.cancel(), beyond)


def test_all_that_wait_for_an_event_go_on_when_it_is_set() -> None:
    event, woken = SafeEvent(), list[bool]()
    threads = [threading.Thread(target=lambda: woken.append(event.wait(PATIENCE))) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert not event.wait(0.001)
    event.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert woken == [True] * 5
    event.clear()
    assert not event.wait(0.0)
    assert not event._waiting


def test_a_wait_for_an_event_ends_with_another_event_too() -> None:
    event, other, woken = SafeEvent(), SafeEvent(), list[bool]()
    assert not event.wait(0.001, unless=other)
    for which in (other, event):
        event.clear()
        other.clear()
        thread = threading.Thread(target=lambda: woken.append(event.wait(PATIENCE, unless=other)))
        thread.start()
        wait_until(lambda: event._waiting and other._waiting)
        which.set()
        thread.join(PATIENCE)
    assert woken == [False, True]
    assert event.wait(0.0, unless=other), "what it waits for comes first"
    assert not event._waiting
    assert not other._waiting


def test_an_interrupted_set_of_an_event_wakes_all_when_it_is_called_again() -> None:
    event, waiting = SafeEvent(), list[threading.Thread]()

    def set_while_two_wait() -> None:
        event.clear()
        waiting[:] = [threading.Thread(target=event.wait, daemon=True) for _ in range(2)]
        for thread in waiting:
            thread.start()
        wait_until(lambda: len(event._waiting) == 2)
        interruption.run(event.set)

    for number in range(100):
        interruption = Interruption(number, ALL)
        with contextlib.suppress(KeyboardInterrupt):
            set_while_two_wait()
        event.set()
        for thread in waiting:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"interrupted at moment {number}"
        assert not event._waiting
        if not interruption.came:
            return
    pytest.fail("it never went through")


def test_the_first_of_several_replies_counts() -> None:
    told = list[Reply[str]]()
    reply = Reply[str](told.append)
    with pytest.raises(TimeoutError):
        reply.result(0.0)
    reply.set_result("first")
    reply.set_exception(OSError("second"))
    assert reply.result() == "first"
    assert told == [reply]
