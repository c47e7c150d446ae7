"""The engines that the contract is held against, each ready to be given to a queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

import mpqueue
from mpqueue import JobQueue
from mpqueue.backends import Backend, Capabilities, LokyBackend
from mpqueue.testing import InlinePool, crash
from tests.support import handlers as do

#: Workers, where there is a choice.
WORKERS = 2


def die_inline(item: Any) -> NoReturn:
    """What stands for the death of a worker where there are no processes."""
    crash()


@dataclass(frozen=True)
class Engine:
    """One engine under test."""

    name: str
    backend: Backend
    die: Callable[[Any], Any] = do.kill_self  #: a handler that takes its worker along
    workers: int = WORKERS

    @property
    def able(self) -> Capabilities:
        """What it can do."""
        return self.backend.capabilities

    def queue(self, concurrency: int | None = WORKERS, **options: Any) -> JobQueue:
        """A queue on it, with retries that come at once unless something else is said."""
        if "retry" not in options and "max_retries" not in options:
            options["retry"] = mpqueue.RetryPolicy(base_delay=0.0)
        return JobQueue(concurrency, backend=self.backend, **options)


#: The one that mpqueue brings along, and everything in one thread.
ENGINES = (Engine("loky", LokyBackend()), Engine("inline", InlinePool(), die_inline, workers=1))


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    found: Engine = request.param
    return found
