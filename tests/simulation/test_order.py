"""What one worker says comes to the books in the order in which it said it, however long its results take to unpickle.

A final report that overtakes an early one would have all items of its chunk run again: within one try, and with what
they do outside done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from mpqueue import JobStatus
from mpqueue._core.commands import Command
from mpqueue._core.messages import ChunkReported, LaneDied, Message
from mpqueue._parent import users_threads
from tests.simulation.history import handle
from tests.simulation.lanes import queue_in
from tests.simulation.parent import simulated_parent
from tests.simulation.world import Thread, World, in_world
from tests.support.fake_lanes import succeed

#: Items that are quick, and one that is not behind each few of them: those before it are sent early.
QUICK, SLOW = 0.001, (0.03, 0.1)
LATENCY = 0.01


def live_through(world: World, lanes: int, hear: Callable[[Message], object], live: Callable[[Any], object]) -> None:
    """Do that with a queue, on a simulated thread; all messages to its scheduler are heard."""

    def main() -> None:
        queue = queue_in(world, lanes, LATENCY)
        scheduler = queue._engine._scheduler
        handle_message = scheduler.handle

        def listen(message: Message, now: float) -> list[Command]:
            hear(message)
            commands: list[Command] = handle_message(message, now)
            return commands

        scheduler.handle = listen
        live(queue)
        queue.close()

    with simulated_parent(), in_world(world):
        thread = Thread(target=main, name="main")
        thread.start()
        world.run(lambda: not thread.is_alive())


@pytest.mark.parametrize("seed", range(40))
def test_the_reports_of_a_chunk_come_in_order(seed: int) -> None:
    world = World(seed)
    reported: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def hear(message: Message) -> None:
        if isinstance(message, ChunkReported):
            reported.setdefault((message.lane, message.chunk), []).append((message.first, message.done))

    def live(queue: Any) -> None:
        items = [succeed(world.rng.uniform(*SLOW) if index % 7 == 6 else QUICK) for index in range(300)]
        run = queue.start(queue.create_job("job", items, handle).id)
        assert world.wait(run.done, 1000.0), "it waits for ever"
        assert queue.get_job("job").status is JobStatus.COMPLETED

    live_through(world, 2, hear, live)
    assert any(len(parts) > 1 for parts in reported.values()), "nothing came early"
    for parts in reported.values():
        assert [first for first, _ in parts] == [0, *(done for _, done in parts[:-1])]


def test_an_answer_for_which_there_was_no_thread_is_handed_over_once_there_is_room() -> None:
    refused, heard = list[str](), list[Message]()

    class Refusing(Thread):
        def start(self) -> None:
            if self.name.startswith("mpqueue-answers") and not refused:
                refused.append(self.name)
                raise RuntimeError("can't start new thread")
            super().start()

    def live(queue: Any) -> None:
        with mock.patch.object(vars(users_threads)["threading"], "Thread", Refusing):
            while not refused:  # whether an answer is plain is a matter of chance
                assert queue.run([succeed(QUICK)], handle).completed == 1

    live_through(World(0), 1, heard.append, live)
    assert refused
    assert not any(isinstance(message, LaneDied) for message in heard)
