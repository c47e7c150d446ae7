"""The options of `map` and its kin: their types, for the checker, and their checks."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any, Literal, TypedDict

from mpqueue._options import (
    Concurrency,
    JobOptions,
    check_text,
    check_timeout,
    choose_concurrency,
    choose_policy,
    choose_seed,
    named_seed,
)
from mpqueue._output.progress import ShowProgress
from mpqueue._parent.lane_protocol import Backend
from mpqueue._queue.choosing import check_job, choose_backend
from mpqueue._queue.recorded.record_options import Redo
from mpqueue.errors import shown
from mpqueue.retry import RetryPolicy, check_number

#: Three tries after the first, 0.1, 0.2 and 0.4 s apart: short enough for a script that a person waits for.
DROPIN_RETRY = RetryPolicy(max_retries=3, base_delay=0.1)

OnError = Literal["raise", "collect", "skip", "group"]
OnItemError = Literal["raise", "collect", "skip"]


class CallOptions(TypedDict, total=False):
    """What all of them take beside ``on_error``."""

    concurrency: Concurrency
    max_retries: int | None
    retry: RetryPolicy | None
    timeout: float | None
    chunksize: int | None
    max_failures: int | None
    progress: ShowProgress
    seed: int | None
    backend: str | Backend


class JournalOptions(CallOptions, total=False):
    """What says how a call and what a journal has of it go together."""

    journal: str | os.PathLike[str] | None
    job_id: str | None
    key: Callable[[Any], bytes | str] | None
    version: str | None


class MapOptions(JournalOptions, total=False):
    """What `map`, `starmap` and `amap` take beside ``on_error``."""

    update: bool
    redo: Redo


class StreamOptions(JournalOptions, total=False):
    """What `imap` and `imap_unordered` take beside ``on_error``."""

    buffersize: int | None
    redo: str | None


def job_options(
    name: str,
    concurrency: Concurrency,
    max_retries: int | None,
    retry: RetryPolicy | None,
    timeout: float | None,
    chunksize: int | None,
    seed: int | None,
    backend: str | Backend,
    max_failures: int | None = None,
) -> JobOptions:
    """The options of one call of the function ``name``.

    Raises TypeError or ValueError for values out of range, and for what the engine can't do.
    """
    engine = choose_backend(backend)
    workers = choose_concurrency(concurrency, getattr(engine, "count_cores", None))
    check_timeout(timeout)
    check_optional_count("chunksize", chunksize, low=1)
    policy = choose_policy(name, max_retries, retry, delays=DROPIN_RETRY) or DROPIN_RETRY
    options = JobOptions(
        policy, timeout, chunksize=chunksize, max_lanes=workers, seed=choose_seed(seed), max_failures=max_failures
    )
    check_job(engine, options)
    return options


def pool_options(
    name: str,
    max_retries: int | None,
    retry: RetryPolicy | None,
    timeout: float | None,
    seed: int | None,
    backend: str | Backend,
) -> JobOptions:
    """The options of all calls of the pool ``name``.

    Raises TypeError or ValueError for values out of range, and for what the engine can't do.
    """
    check_timeout(timeout)
    policy = choose_policy(name, max_retries, retry, delays=DROPIN_RETRY) or DROPIN_RETRY
    options = JobOptions(policy, timeout, seed=choose_seed(seed))
    check_job(choose_backend(backend), options)
    return options


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
    """How many workers a call needs that asked for ``concurrency``: no more than it has items, where that is known."""
    return concurrency if concurrency is None or items is None else max(1, min(concurrency, items))


def check_optional_count(name: str, value: int | None, *, low: int) -> None:
    """Raise TypeError or ValueError unless it is None, or a whole number from ``low`` up."""
    if value is not None:
        check_number(name, value, low=low, integer=True)


def check_job_id(job_id: str | None) -> str | None:
    """The same, plain. Raises TypeError unless it is None or a str."""
    return None if job_id is None else check_text("job_id", job_id)


def check_stream_redo(redo: str | None) -> str | None:
    """The same. Raises ValueError for what it can't be for a stream, whose items come later."""
    if redo not in (None, "failed", "changed-code", "all"):
        raise ValueError(f"redo: expected 'failed', 'changed-code' or 'all' for a stream, got {shown(redo)}")
    return redo


def check_on_error(value: object, known: tuple[str, ...]) -> None:
    """Raise ValueError for a mode that there is not."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"on_error: expected one of {', '.join(map(repr, known))}, got {shown(value)}")
