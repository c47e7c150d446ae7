"""What the contract of the engines has workers run: if it were beside the tests, workers would import pytest for it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpqueue import current_item
from tests.support.handlers import Handler, return_pid
from tests.support.spinning import spin
from tests.support.waiting import Gate, spend, wait_until

if TYPE_CHECKING:
    import numpy as np


# --- stages ---------------------------------------------------------------------------------------------------------


def count_down(number: int) -> Iterator[int]:
    """Yield the number and all below it, but one."""
    yield from range(number, 1, -1)


def only_even(number: int) -> int:
    """Fail with an odd number."""
    if number % 2:
        raise ValueError(number)
    return number


def array_of(number: int) -> np.ndarray:
    """An array that is large enough to go through shared memory."""
    import numpy as np  # for this one only

    return np.full(10_000, number)


def first_of(array: np.ndarray) -> int:
    """What `array_of` was called with."""
    return int(array[0])


# --- items ----------------------------------------------------------------------------------------------------------


def held_units(item: int) -> dict[str, list[int]]:
    """Which units of resources the item holds."""
    return current_item().uses


def inner_threads(item: int) -> str | None:
    """How many threads the numerical libraries start."""
    return os.environ.get("OMP_NUM_THREADS")


def is_imported(name: str) -> bool:
    """Whether the worker has that module."""
    return name in sys.modules


def halve(number: int) -> int:
    """Add both halves to the job."""
    if number > 1:
        current_item().add([number // 2, number - number // 2])
    return number


def fail_variously(item: str) -> str:
    """Fail with "bad" always, with "late" twice."""
    if item == "bad" or (item == "late" and current_item().attempt < 3):
        raise ValueError("no")
    return item


def run_alone(token: Path, item: int) -> int:
    """Fail if another item runs at the same time, in whatever process."""
    token.mkdir()
    try:
        spend(0.002)
    finally:
        token.rmdir()
    return item


def begin_and_end(gate: Gate) -> Iterator[str]:
    """A setup that announces its begin and its end."""
    gate.announce(f"begun-{threading.get_ident()}-{return_pid(0)}")
    yield "state"
    gate.announce(f"ended-{threading.get_ident()}-{return_pid(0)}")


def wait_for_arrival(gate: Gate, name: object, then: Handler, item: int) -> Any:
    """Wait until that is at the gate, and do ``then``."""
    gate.wait_for(name)
    return then(item)


# --- pause and cancel -----------------------------------------------------------------------------------------------


def take_a_while(item: int) -> int:
    """So long that, once this is known, an item runs under a mark of its own: flags are read before each."""
    spend(0.005)
    return item


def wait_for_pause(gate: Gate, item: int) -> int:
    """Announce the item, and run until its job is paused."""
    gate.announce(item)
    here = current_item()
    wait_until(lambda: here.paused)
    return item


def run_until_cancelled(gate: Gate, item: int) -> int:
    """The same, until it is cancelled."""
    gate.announce(item)
    here = current_item()
    wait_until(lambda: here.cancelled)
    return item


def look_once_told(gate: Gate, item: int) -> None:
    """Item 0 runs until it is cancelled, others look only once the gate is open, and announce what they heard."""
    gate.announce(item)
    here = current_item()
    if item == 0:
        wait_until(lambda: here.cancelled)
    else:
        wait_until((gate.folder / "open").exists)
        wait_until(lambda: here.cancelled)  # it looks once in some milliseconds
        gate.announce("heard")


def spin_a_while(item: int) -> int:
    """Use a CPU for a tenth of a second."""
    spin(0.1)
    return item
