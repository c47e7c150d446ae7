"""What threads put in, and threads and coroutines take out."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

import anyio
import anyio.lowlevel
import pytest

from mpqueue._queue.mailbox import HOLD, Bell, Mailbox, Turns, let_others_run
from tests.support.loops import Run, in_loops


def test_thread_takes_what_was_put_in_in_order() -> None:
    box: Mailbox[int] = Mailbox()
    assert box.is_empty()
    for number in range(3):
        box.put(number)
    assert not box.is_empty()
    assert [box.take() for _ in range(3)] == [0, 1, 2]


@in_loops
def test_coroutine_waits_for_a_thread(run: Run) -> None:
    box: Mailbox[int] = Mailbox()

    async def main() -> None:
        found = []
        async with anyio.create_task_group() as tasks:

            async def take() -> None:
                found.extend([await box.take_later() for _ in range(100)])

            tasks.start_soon(take)
            thread = threading.Thread(target=lambda: deque(map(box.put, range(100)), maxlen=0))
            thread.start()
        thread.join()
        assert found == list(range(100))

    run(main)


@in_loops
def test_cancelled_wait_takes_nothing(run: Run) -> None:
    box: Mailbox[int] = Mailbox()

    async def main() -> None:
        with anyio.move_on_after(0.001):
            await box.take_later()
        box.put(1)
        assert await box.take_later() == 1

    run(main)


@in_loops
def test_others_get_their_turn(run: Run) -> None:
    async def main() -> None:
        turns: list[str] = []

        async def take_turns(name: str) -> None:
            for _ in range(3):
                turns.append(name)
                await let_others_run()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take_turns, "a")
            tasks.start_soon(take_turns, "b")
        assert set(turns[:2]) == {"a", "b"}

    run(main)


@in_loops
def test_a_turn_is_given_when_the_loop_was_held_for_long_and_an_interrupted_one_counts(run: Run) -> None:
    async def main() -> None:
        now, others = 0.0, 0

        async def count() -> None:
            nonlocal others
            while True:
                await anyio.lowlevel.checkpoint()
                others += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await let_others_run()
            turns = Turns(lambda: now)
            before = others
            for _ in range(100):
                await turns.give()
            assert others == before
            now = HOLD
            with anyio.move_on_after(0) as scope:
                await turns.give()
                await anyio.sleep_forever()
            assert scope.cancelled_caught
            before = others
            await turns.give()
            assert others == before
            now = 3 * HOLD
            await turns.give()
            assert others > before
            tasks.cancel_scope.cancel()

    run(main)


@in_loops
def test_a_second_task_that_waits_is_refused(run: Run) -> None:
    box: Mailbox[int] = Mailbox()

    async def main() -> None:
        found = []

        async def take() -> None:
            found.append(await box.take_later())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            while box._alarm is None:  # trio chooses who goes first
                await let_others_run()
            with pytest.raises(RuntimeError, match="one task at a time"):
                await box.take_later()
            box.put(1)
        assert found == [1]

    run(main)


@in_loops
def test_alarm_that_rings_after_its_loop_wakes_nobody(run: Run) -> None:
    alarms: list[Bell] = []

    async def main() -> None:
        alarms.append(Bell())

    run(main)
    alarms[0].ring()


def test_alarm_outside_a_loop_is_refused() -> None:
    with pytest.raises(RuntimeError):
        Bell()


def test_fault_of_the_loop_is_not_hidden() -> None:
    async def main() -> None:
        alarm = Bell()

        def fail(*_: object) -> None:
            raise RuntimeError("something else")

        alarm._call = fail
        with pytest.raises(RuntimeError, match="something else"):
            alarm.ring()

    asyncio.run(main())
