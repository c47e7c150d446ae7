"""Flags of two jobs on one lane: no job takes another's pause or cancel.

The real `FlagSetter` changes the flags, and the real `Ledger.flags_of` reads them for job 1: on behalf of a thread that
a handler left behind, which may ask at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mpqueue._engines.loky.parent_line import FlagSetter
from mpqueue._parent.users_threads import Errands
from mpqueue._wire.line import Flags
from mpqueue._wire.memory.ledger import FLAG_JOB, Ledger
from tests.unit.models.explorer import Model, ModelLedger, Process, World, explore, reverted

#: What the parent says, one after the other: of which job, whether it is paused, and cancelled. At first the flags
#: count for job 1, and say neither.
Orders = list[tuple[int, bool, bool]]
AWAY: Orders = [(2, False, True)]
THERE_AND_BACK: Orders = [(2, False, True), (1, False, False)]
ITS_OWN: Orders = [(1, False, True)]


class ModelEvent:
    """An Event: its lock makes all visible that was stored before."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.value = False

    def seen_by(self, process: Process) -> Any:
        """The Event as this process has it."""
        return _Seen(self, self._world, process)


class _Seen:
    def __init__(self, event: ModelEvent, world: World, process: Process) -> None:
        self._event, self._world, self._process = event, world, process

    def _turn(self) -> None:
        self._world.pause(lambda: not self._process.stores)

    def is_set(self) -> bool:
        self._turn()
        return bool(self._world.saw(self._event.value))

    def set(self) -> None:
        self._turn()
        self._event.value = True

    def clear(self) -> None:
        self._turn()
        self._event.value = False


def model(orders: Orders, ledger_class: type[ModelLedger]) -> Model:
    def make(world: World) -> Callable[[], None]:
        parent, worker = world.process("parent"), world.process("worker")
        world.memory[FLAG_JOB] = 1
        ledgers = [ledger_class(world, process, {FLAG_JOB}) for process in (parent, worker)]
        events = [ModelEvent(world), ModelEvent(world)]
        heard = []

        def set_flags() -> None:
            setter = FlagSetter(
                Flags(*(event.seen_by(parent) for event in events)), ledgers[0], Errands("", print, print)
            )
            for job, pause, cancel in orders:
                setter._carry_out(job, pause, cancel)

        def read_flags() -> None:
            seen = [event.seen_by(worker) for event in events]
            heard.append(ledgers[1].flags_of(1, lambda: (seen[0].is_set(), seen[1].is_set())))
            assert any((pause, cancel) == heard[0] for job, pause, cancel in [*orders, (1, False, False)] if job == 1)

        world.thread(parent, set_flags)
        world.thread(worker, read_flags)
        world.shared = lambda: tuple(event.value for event in events)

        def look() -> None:
            last = [(pause, cancel) for job, pause, cancel in orders[-1:] if job == 1]
            told = ledgers[1].flags_of(1, lambda: (events[0].value, events[1].value))
            assert not last or told == last[0], "who asks afterwards hears it"

        return look

    return make


@pytest.mark.parametrize("orders", [AWAY, THERE_AND_BACK, ITS_OWN])
def test_no_job_takes_the_flags_of_another(orders: Orders) -> None:
    assert explore(model(orders, ModelLedger)).orders > 1


WITHDRAWN = "self.words[FLAG_JOB] = changes << 32 | NOBODY"
CHECKED = "return said if words[FLAG_JOB] == before else (False, False)"


@pytest.mark.parametrize(
    ("orders", "method", "old", "new"),
    [
        pytest.param(AWAY, "flags_of", CHECKED, "return said", id="FLAG_JOB is read only before"),
        pytest.param(THERE_AND_BACK, "withdraw_flags", "changes << 32 |", "", id="nobody counts the changes"),
        pytest.param(AWAY, "withdraw_flags", WITHDRAWN, "pass", id="flags count while they change"),
    ],
)
def test_the_model_finds(orders: Orders, method: str, old: str, new: str) -> None:
    changed = type("Changed", (ModelLedger,), {method: reverted(getattr(Ledger, method), old, new)})
    with pytest.raises(AssertionError):
        explore(model(orders, changed))
