"""A process that was forked off the test, and lives on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mpqueue._os.process.own_forks import fork_here


@contextmanager
def fork_that_lives_on() -> Iterator[None]:
    """It does nothing, and ends with the block."""
    reading, writing = os.pipe()
    child = fork_here()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        yield
    finally:
        os.close(writing)
        os.waitpid(child, 0)
