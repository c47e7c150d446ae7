"""The options of `map` and its kin, and what else they check."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar

from mpqueue import _options as checks
from mpqueue._declared import At, read
from mpqueue._options import GivenOptions, JobOptions, QueueOptions, named_seed
from mpqueue._queue.choosing import check_job, choose_backend
from mpqueue.retry import RetryPolicy

#: Three tries after the first, 0.1, 0.2 and 0.4 s apart: short enough for a script that a person waits for.
DROPIN_RETRY = RetryPolicy(max_retries=3, base_delay=0.1)

R = TypeVar("R")
#: What a function defined by ``async def`` returns; workers run it to its end.
Later = Coroutine[Any, Any, R]

#: Arguments of `map` and its kin beside the options.
OWN_NAMES = ("fn", "items", "on_error")


def job_options(name: str, asked: GivenOptions) -> JobOptions:
    """The options of one call of the function ``name``, or of all calls of the pool of that name.

    Raises TypeError or ValueError for what the engine can't do, and for what does not go together.
    """
    engine = choose_backend(asked.backend)
    defaults = QueueOptions(concurrency=1, retry=DROPIN_RETRY)
    options = checks.job_options(defaults, asked, where=name, count_cores=getattr(engine, "count_cores", None))
    check_job(engine, options)
    return options


def pool_options(name: str, **given: Any) -> JobOptions:
    """The options of all calls of the pool ``name``. Raises TypeError or ValueError."""
    return job_options(name, read(GivenOptions, At.POOL, name, given))


class Seeds:
    """One seed for each of a pool's calls: the first is the pool's own, no later one is like another.

    Which a call gets depends on its number among them only. Any thread may ask.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._numbers = itertools.count()

    def next(self) -> int:
        """The seed of the next call."""
        number = next(self._numbers)
        return self.named(str(number)) if number else self._seed

    def named(self, name: str) -> int:
        """The seed of something that is not one of the numbered calls."""
        return named_seed(self._seed, name)


def enough_workers(concurrency: int | None, items: int | None) -> int | None:
    """Return how many workers a call with ``concurrency`` needs: no more than its items, if those are known."""
    return concurrency if concurrency is None or items is None else max(1, min(concurrency, items))
