"""How many lanes may work, by what the machine has left and how large workers have been."""

from __future__ import annotations

from mpqueue._core.messages import MemoryRead, WorkerMemory
from mpqueue._core.state.resources import ENOUGH, HALF_LIFE, HORIZON, SCARCE_PART, SHORT_PART, Headroom
from mpqueue._wire.memory.ledger import Claim, Phase

TOTAL = 10_000
LITTLE, NOTHING = int(TOTAL * SHORT_PART), int(TOTAL * SCARCE_PART)


def look(headroom: Headroom, now: float, available: int | None, *used: int) -> int | None:
    """A look at the machine and its workers; how many lanes may work then."""
    claim = Claim(1, Phase.RUNNING, 0, 1, 0.0)
    workers = [WorkerMemory(number, 1, size, 0, claim) for number, size in enumerate(used)]
    headroom.look(MemoryRead(workers, available, None if available is None else TOTAL), now)
    return headroom.lanes


def test_all_may_work_where_nothing_is_told() -> None:
    headroom = Headroom()
    assert look(headroom, 1.0, None, 9_000) is None
    assert not headroom.scarce


def test_there_is_room_for_so_many_workers_like_the_largest() -> None:
    assert look(Headroom(), 1.0, TOTAL - 2_000, 1_500, 500) == (TOTAL - LITTLE) // 1_500


def test_one_may_always_work() -> None:
    assert look(Headroom(), 1.0, 0, 9_999) == 1
    assert look(Headroom(), 1.0, LITTLE + 1, 20_000) == 1


def test_little_is_little_until_there_is_clearly_more() -> None:
    headroom = Headroom()
    assert look(headroom, 1.0, LITTLE - 1, 10) == 1
    assert look(headroom, 2.0, int(LITTLE * ENOUGH) - 1, 10) == 1
    assert look(headroom, 3.0, int(LITTLE * ENOUGH) + 1, 10) == int(LITTLE * ENOUGH + 11 - LITTLE) // 10


def test_what_falls_goes_on_falling() -> None:
    headroom = Headroom()
    look(headroom, 1.0, 5_000, 10)
    seen = [
        (look(headroom, 1.0 + at * HORIZON, available, 10) == 1, headroom.scarce)
        for at, available in enumerate((3_000, 1_200, 1_200), 1)
    ]
    assert seen == [(False, False), (True, True), (True, False)]
    assert NOTHING < 1_200


def test_a_large_worker_is_remembered_for_a_while() -> None:
    headroom = Headroom()
    look(headroom, 0.0, 8_000, 1_000)
    assert look(headroom, HALF_LIFE, 9_000, 10) == 9_010 // 500 - 2
    assert look(headroom, 100 * HALF_LIFE, 9_000, 10) == (9_010 - LITTLE) // 10
