"""The door of a live page: whose place a new connection takes, and which reader is too slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

# They are not where only the core is tested.
uvicorn: Any = pytest.importorskip("uvicorn")
door: Any = pytest.importorskip("mpqueue._live_page.door")


class Loop:
    """Keeps timers until a test lets them go off."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        self.timers.append((seconds, call))
        return asyncio.TimerHandle(0.0, lambda: None, (), self)  # type: ignore[arg-type]

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, _: object) -> None:
        self.timers.clear()


class Wire:
    """A transport: what is unread, and whether it was cut."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.unread = 0
        self.cut = False

    def get_extra_info(self, name: str) -> Any:
        return (self.address, 1) if name in ("peername", "sockname") else None

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.cut = True


async def _app(_scope: object, _receive: object, _send: object) -> None:
    raise AssertionError("nothing is asked")


CONFIG = uvicorn.Config(_app, log_config=None, lifespan="off")
CONFIG.load()


def enter(entrance: Any, address: str = "here") -> tuple[Any, Wire, Loop]:
    loop, wire = Loop(), Wire(address)
    made = entrance.connect(config=CONFIG, server_state=uvicorn.server.ServerState(), app_state={}, _loop=loop)
    made.connection_made(wire)
    return made, wire, loop


def test_a_stranger_takes_the_place_of_the_oldest_from_its_address() -> None:
    entrance = door.Door(lambda: 0)
    _, elsewhere, _ = enter(entrance, "elsewhere")
    wires = [enter(entrance)[1] for _ in range(door.MOST_STRANGERS_OF_ONE + 2)]
    assert [wire.cut for wire in wires] == [True, True] + [False] * door.MOST_STRANGERS_OF_ONE
    assert not elsewhere.cut


def test_a_stranger_from_anywhere_takes_the_place_of_the_oldest_where_there_are_many() -> None:
    entrance = door.Door(lambda: 0)
    wires = [enter(entrance, str(number))[1] for number in range(door.MOST_STRANGERS + 1)]
    assert [wire.cut for wire in wires] == [True] + [False] * door.MOST_STRANGERS


def test_no_guest_has_to_go_and_a_full_house_takes_nobody() -> None:
    entrance = door.Door(lambda: 0)
    wires = []
    for _ in range(door.MOST):
        guest, wire, _ = enter(entrance)
        entrance.admit(guest)
        wires.append(wire)
    assert enter(entrance)[1].cut
    assert not any(wire.cut for wire in wires)
    next(iter(entrance._guests)).connection_lost(OSError())
    assert not enter(entrance)[1].cut


def test_with_few_descriptors_left_a_new_connection_needs_a_strangers_place(monkeypatch: pytest.MonkeyPatch) -> None:
    entrance = door.Door(lambda: 100)
    _, first, _ = enter(entrance)
    monkeypatch.setattr(door, "descriptors_left", lambda: 99)
    _, second, _ = enter(entrance)
    assert (first.cut, second.cut) == (True, False)
    entrance.admit(next(iter(entrance._strangers)))
    assert enter(entrance)[1].cut


@pytest.mark.parametrize(
    ("unread", "left", "ends"),
    [
        (0, 0, True),
        (1_000_000, 1_000_000, True),
        (1_000_000, 1_000_000 - door.LEAST_READ + 1, True),
        (1_000_000, 1_000_000 - door.LEAST_READ, False),
        (10, 9, True),
        (10, 0, False),
    ],
)
def test_an_answer_has_to_be_read_at_a_pace(unread: int, left: int, *, ends: bool) -> None:
    connection, wire, loop = enter(door.Door(lambda: 0))
    loop.timers.clear()
    connection._timer = None
    wire.unread = unread
    connection.pause_writing()
    ((seconds, go_off),) = loop.timers
    assert seconds == (door.READING_SECONDS if unread else door.REQUEST_SECONDS)
    loop.timers.clear()
    wire.unread = left
    go_off()
    assert wire.cut is ends
    assert bool(loop.timers) is not ends
