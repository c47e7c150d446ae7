"""Histories of a simulated parent: one seed, one history.

``make simulate SEED= MINUTES=`` runs histories from that seed on for so long. A history that fails is named by its
seed, which is all that is needed to see it again.
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from mpqueue._core.state.books import Books
from mpqueue._parent import users_threads
from mpqueue._parent.journal.journal_outlet import JournalOutlet
from mpqueue._parent.lane_protocol import Answers
from tests.simulation.history import History, handle, live_through
from tests.simulation.lanes import queue_in
from tests.simulation.parent import simulated_parent
from tests.simulation.world import Thread, World
from tests.support.fake_lanes import succeed
from tests.support.length import IS_LONG
from tests.unit.models.explorer import reverted

#: How many histories are run where nobody says for how long. Of those that ever failed, two of three were among the
#: first 300.
HISTORIES = 2000 if IS_LONG else 150


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory, where it can be: each history has a journal of its own."""
    # On a busy machine all histories take longer than pytest waits before it shows where a test is. It would look at
    # greenlets while they run, which may crash the interpreter.
    faulthandler.cancel_dump_traceback_later()
    memory = "/dev/shm"
    found = Path(tempfile.mkdtemp(prefix="mpqueue-simulation-", dir=memory if os.path.isdir(memory) else None))
    yield found
    shutil.rmtree(found)


def simulate(seed: int, folder: Path) -> History:
    """One history; one that fails says how to see it again."""
    own = folder / "one"
    own.mkdir()
    try:
        return live_through(seed, own)
    except BaseException as error:
        error.add_note(f"in history {seed}: make simulate SEED={seed}")
        raise
    finally:
        shutil.rmtree(own)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_the_books_balance_in_every_history(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, minutes = (os.environ.get(f"MPQUEUE_SIMULATION_{name}") for name in ("SEED", "MINUTES"))
    ends_at = time.monotonic() + 60 * float(minutes) if minutes else None
    began, lives, steps, done = int(first or 0), 0, 0, 0
    for seed in itertools.count(began) if ends_at else range(began, began + HISTORIES):
        history = simulate(seed, folder)
        lives, steps, done = lives + history.lives, steps + history.steps, done + 1
        if ends_at and time.monotonic() > ends_at:
            break
    if minutes or first:
        with capsys.disabled():
            print(f"\n{done} histories from seed {began} on: {lives} lives, {steps} steps")


@pytest.mark.slow
def test_a_seed_is_a_history(folder: Path) -> None:
    for seed in range(0, 60, 9):
        once, again = simulate(seed, folder), simulate(seed, folder)
        assert (once.digest, once.steps, once.lives) == (again.digest, again.steps, again.lives)


#: What the simulation has to find: a line of the program, what stands there instead, and a seed that found it last.
#: Faults in what is announced before it is on disk are those of `tests/unit/models/test_journal.py`.
FAULTS: dict[str, tuple[Any, str, str, str, int]] = {
    "messages of dead workers count": (
        Books,
        "live_lane",
        "return lane if lane.generation == generation else None",
        "return lane",
        151,
    ),
    "an answer overtakes one that is being unpickled": (Answers, "put_plain", "if self.busy:", "if False:", 48),
    "what handlers add is not in their transaction": (
        JournalOutlet,
        "_note_items",
        "coming = growth.take(job.table) if isinstance(growth, RecordedGrowth) else None",
        "coming = None",
        100,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_simulation_finds(fault: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, right, wrong, finder = FAULTS[fault]
    monkeypatch.setattr(owner, name, reverted(getattr(owner, name), right, wrong))

    def run_until_it_fails() -> None:
        for seed in (finder, *range(400)):  # other histories, where the program has changed
            simulate(seed, folder)

    with pytest.raises(AssertionError):
        run_until_it_fails()


def test_an_answer_for_which_there_was_no_thread_is_handed_over_once_there_is_room() -> None:
    refused = list[str]()

    class Refusing(Thread):
        def start(self) -> None:
            if self.name.startswith("mpqueue-answers") and not refused:
                refused.append(self.name)
                raise RuntimeError("can't start new thread")
            super().start()

    def live() -> None:
        queue = queue_in(world, 1, 0.01)
        with mock.patch.object(vars(users_threads)["threading"], "Thread", Refusing):
            while not refused:  # whether an answer is plain is a matter of chance
                assert queue.run([succeed(0.001)], handle).completed == 1
        assert queue._engine._scheduler.books.deaths == {}
        queue.close()

    world = World(0)
    with simulated_parent(world):
        thread = Thread(target=live, name="main")
        thread.start()
        world.run(lambda: not thread.is_alive())
    assert refused
