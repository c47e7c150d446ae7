"""What one worker says comes to the books in the order in which it said it, however long its results take to unpickle.

A final report that overtakes an early one would have all items of its chunk run again: within one try, and with what
they do outside done twice.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from mpqueue import JobQueue, JobStatus
from mpqueue._core.commands import Command
from mpqueue._core.messages import ChunkReported, LaneDied, Message
from mpqueue._parent import users_threads
from tests.simulation.history import handle
from tests.simulation.lanes import SimulatedBackend
from tests.simulation.parent import simulated_parent
from tests.simulation.world import Thread, World, in_world
from tests.support.fake_lanes import succeed

#: Items that are quick, and one that is not behind each few of them: those before it are sent early.
QUICK, SLOW = 0.001, (0.03, 0.1)
LATENCY = 0.01


@pytest.mark.parametrize("seed", range(40))
def test_the_reports_of_a_chunk_come_in_order(seed: int) -> None:
    world = World(seed)
    reported: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def live() -> None:
        backend = SimulatedBackend(world, LATENCY, lambda _: None)
        queue: Any = JobQueue(2, backend=backend)
        backend.scheduler = scheduler = queue._engine._scheduler
        handle_message = scheduler.handle

        def listen(message: Message, now: float) -> list[Command]:
            if isinstance(message, ChunkReported):
                reported.setdefault((message.lane, message.chunk), []).append((message.first, message.done))
            commands: list[Command] = handle_message(message, now)
            return commands

        scheduler.handle = listen
        queue.create_job(
            "job", [succeed(world.rng.uniform(*SLOW) if index % 7 == 6 else QUICK) for index in range(300)], handle
        )
        run = queue.start("job")
        assert world.wait(run.done, 1000.0), "it waits for ever"
        assert queue.get_job("job").status is JobStatus.COMPLETED
        queue.close()

    with simulated_parent(), in_world(world):
        main = Thread(target=live, name="main")
        main.start()
        world.run(lambda: not main.is_alive())
    assert any(len(parts) > 1 for parts in reported.values()), "nothing came early"
    for parts in reported.values():
        assert [first for first, _ in parts] == [0, *(done for _, done in parts[:-1])]


def test_an_answer_for_which_there_was_no_thread_is_handed_over_once_there_is_room() -> None:
    world, refused, dead = World(0), list[str](), list[Message]()

    class Refusing(Thread):
        def start(self) -> None:
            if self.name.startswith("mpqueue-answers") and not refused:
                refused.append(self.name)
                raise RuntimeError("can't start new thread")
            super().start()

    def live() -> None:
        backend = SimulatedBackend(world, LATENCY, lambda _: None)
        queue: Any = JobQueue(1, backend=backend)
        backend.scheduler = scheduler = queue._engine._scheduler
        handle_message = scheduler.handle

        def listen(message: Message, now: float) -> list[Command]:
            dead.extend([message] if isinstance(message, LaneDied) else [])
            commands: list[Command] = handle_message(message, now)
            return commands

        scheduler.handle = listen
        while not refused:  # whether an answer is plain is a matter of chance
            assert queue.run([succeed(QUICK)], handle).completed == 1
        queue.close()

    with simulated_parent(), in_world(world), mock.patch.object(vars(users_threads)["threading"], "Thread", Refusing):
        main = Thread(target=live, name="main")
        main.start()
        world.run(lambda: not main.is_alive())
    assert refused
    assert not dead
