"""Work that takes CPU time, and an object that takes some whenever it is unpickled. Light to import: workers do."""

from __future__ import annotations

import time
from typing import Any


def spin(seconds: float) -> float:
    """Keep a CPU busy for so many seconds of its time; returns how many it was."""
    begun = time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        pass
    return spent


class Heavy:
    """Takes a while to unpickle, wherever that is done."""

    def __init__(self, item: int) -> None:
        self.item = item

    def __reduce__(self) -> Any:
        return make_heavy, (self.item,)


#: CPU seconds for that.
HEAVINESS = 0.01


def make_heavy(item: int) -> Heavy:
    """What unpickling one calls."""
    spin(HEAVINESS)
    return Heavy(item)
