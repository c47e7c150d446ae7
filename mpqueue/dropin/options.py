"""The options of `map` and its kin: their types, for the checker, and their checks."""

from __future__ import annotations

import os
from typing import Literal, TypedDict

from mpqueue.dropin.policy import DROPIN_RETRY
from mpqueue.errors import shown
from mpqueue.options import JobOptions, check_concurrency, check_timeout, choose_policy
from mpqueue.progress import ShowProgress
from mpqueue.retry import RetryPolicy, check_number

OnError = Literal["raise", "collect", "skip", "group"]
OnItemError = Literal["raise", "collect", "skip"]


class CallOptions(TypedDict, total=False):
    """What `amap` and `starmap` take beside ``on_error``."""

    concurrency: int | None
    max_retries: int | None
    retry: RetryPolicy | None
    timeout: float | None
    chunksize: int | None
    max_failures: int | None
    progress: ShowProgress


class MapOptions(CallOptions, total=False):
    """What `map` takes beside ``on_error``."""

    journal: str | os.PathLike[str] | None


class StreamOptions(CallOptions, total=False):
    """What `imap` and `imap_unordered` take beside ``on_error``."""

    buffersize: int | None


def job_options(
    name: str,
    concurrency: int | None,
    max_retries: int | None,
    retry: RetryPolicy | None,
    timeout: float | None,
    chunksize: int | None,
) -> JobOptions:
    """The options of one call of the function ``name``. Raises TypeError or ValueError for values out of range."""
    if concurrency is not None:
        check_concurrency(concurrency)
    check_timeout(timeout)
    check_optional_count("chunksize", chunksize, low=1)
    policy = choose_policy(name, max_retries, retry, delays=DROPIN_RETRY) or DROPIN_RETRY
    return JobOptions(retry=policy, timeout=timeout, chunksize=chunksize, max_lanes=concurrency)


def check_optional_count(name: str, value: int | None, *, low: int) -> None:
    """Raise TypeError or ValueError unless it is None, or a whole number from ``low`` up."""
    if value is not None:
        check_number(name, value, low=low, integer=True)


def check_on_error(value: str, known: tuple[str, ...]) -> None:
    """Raise ValueError for a mode that there is not."""
    if value not in known:
        raise ValueError(f"on_error: expected one of {', '.join(map(repr, known))}, got {shown(value)}")
