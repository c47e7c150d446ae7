"""The engines that the contract is held against, each ready to be given to a queue."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, NoReturn

import pytest

import mpqueue
from mpqueue import JobQueue
from mpqueue.backends import Backend, Capabilities, ExecutorBackend, LokyBackend
from mpqueue.testing import InlinePool, crash
from tests.support import handlers as do
from tests.support.length import long

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
    die: Callable[[Any], Any] | None = do.kill_self  #: a handler that takes its worker along; None: there is none
    workers: int = WORKERS
    hears_at_once: bool = True  #: what runs hears of pause and cancel

    @property
    def able(self) -> Capabilities:
        """What it can do."""
        return self.backend.capabilities

    def queue(self, concurrency: int | None = WORKERS, **options: Any) -> JobQueue:
        """A queue on it, with retries that come at once unless something else is said."""
        if "retry" not in options and "max_retries" not in options:
            options["retry"] = mpqueue.RetryPolicy(base_delay=0.0)
        return JobQueue(concurrency, backend=self.backend, **options)


@contextlib.contextmanager
def open_loky() -> Iterator[Engine]:
    """The one that mpqueue brings along."""
    yield Engine("loky", LokyBackend())


@contextlib.contextmanager
def open_inline() -> Iterator[Engine]:
    """Everything in one thread."""
    yield Engine("inline", InlinePool(), die_inline, workers=1)


@contextlib.contextmanager
def open_threads() -> Iterator[Engine]:
    """Somebody's thread pool."""
    with ThreadPoolExecutor(WORKERS) as executor:
        yield Engine("threads", ExecutorBackend(executor), die=None)


@contextlib.contextmanager
def open_processes(method: str = "spawn") -> Iterator[Engine]:
    """A pool of processes, made anew whenever a crash has broken it."""

    def make() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(WORKERS, get_context(method))

    yield Engine("processes", ExecutorBackend(make, workers=WORKERS), hears_at_once=False)


OPENERS: dict[str, Callable[[], contextlib.AbstractContextManager[Engine]]] = {
    "loky": open_loky,
    "inline": open_inline,
    "threads": open_threads,
    "processes": open_processes,
    "forked processes": functools.partial(open_processes, "fork"),
}
#: It differs little from the others, and is asked now and then. A fork server outlives each test.
SELDOM = ("forked processes",)


@pytest.fixture(params=[long(name) if name in SELDOM else name for name in OPENERS])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine in turn."""
    with OPENERS[request.param]() as engine:
        yield engine
