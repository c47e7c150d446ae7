"""Options that are anything but what they should be."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue import Executor, JobQueue, Pool, RetryPolicy
from tests.fuzz.judge import Refused, ask, fuzzed
from tests.fuzz.odd import Odd, handlers, values

pytestmark = pytest.mark.slow

Options = dict[str, Any]


def made(options: dict[str, Odd]) -> Options:
    """The options themselves."""
    return {name: odd.make() for name, odd in options.items()}


def some_of(*names: str) -> st.SearchStrategy[dict[str, Odd]]:
    """One or two of these options, with odd values."""
    return st.dictionaries(st.sampled_from(names), values, min_size=1, max_size=2)


@fuzzed(180)
@given(some_of("max_retries", "base_delay", "factor", "max_delay", "jitter", "retry_on", "give_up_on"))
def test_policy_is_refused_or_gives_delays(options: dict[str, Odd]) -> None:
    given_ = made(options)
    policy = ask(lambda: RetryPolicy(**given_), **given_)
    if isinstance(policy, Refused):
        return
    for retry in (1, 2, 1000):
        delay = policy.delay(retry, random.Random(1))
        assert math.isfinite(delay)
        assert delay >= 0
    policy.decide(1, ValueError("x"), random.Random(1))
    hash(policy)


QUEUE_OPTIONS = (
    "concurrency",
    "max_retries",
    "retry",
    "timeout",
    "progress_interval",
    "threads_per_worker",
    "max_items_per_worker",
    "setup_timeout",
)


@fuzzed(120)
@given(some_of(*QUEUE_OPTIONS))
def test_queue_is_refused_or_made(options: dict[str, Odd]) -> None:
    given_ = made(options)
    queue = ask(lambda: JobQueue(**given_), **given_)
    if not isinstance(queue, Refused):
        assert queue.max_retries >= 0
        queue.close()


@fuzzed(60)
@given(handlers)
def test_queue_with_an_odd_initializer_is_refused_or_made(initializer: Odd) -> None:
    queue = ask(lambda: JobQueue(1, initializer=initializer.make()))
    if not isinstance(queue, Refused):
        queue.close()


EXECUTOR_OPTIONS = ("max_workers", "initializer", "initargs", "max_tasks_per_child", "max_retries", "retry", "timeout")


@fuzzed(120)
@given(some_of(*EXECUTOR_OPTIONS, "progress"))
def test_executor_is_refused_or_made(options: dict[str, Odd]) -> None:
    executor = ask(lambda: Executor(**made(options)))
    if not isinstance(executor, Refused):
        executor.shutdown()


@fuzzed(36)
@given(some_of("processes", "initializer", "initargs", "maxtasksperchild", "max_retries", "retry", "timeout"))
def test_pool_is_refused_or_made(options: dict[str, Odd]) -> None:
    given_: Options = {"processes": 1, **made(options)}
    pool = ask(lambda: Pool(**given_))
    if not isinstance(pool, Refused):
        pool.terminate()
        pool.join()
