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
from tests.fuzz.odd import VALUES, Odd, handlers, iterables, parameters, plain, table, values

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

Options = dict[str, Any]

#: Odd hosts, none of which is a name that somebody could be asked for.
hosts = st.one_of(
    table("VALUES", VALUES),
    plain(
        st.sampled_from(("127.0.0.1", "::1", "localhost", "256.256.256.256", "127.0.0.1\n", "a b", "..", "x." * 200))
    ),
)


def made(options: dict[str, Odd]) -> Options:
    """The options themselves."""
    return {name: odd.make() for name, odd in options.items()}


def some_of(*names: str) -> st.SearchStrategy[dict[str, Odd]]:
    """One or two of these options, with odd values."""
    return st.dictionaries(st.sampled_from(names), values, min_size=1, max_size=2)


@fuzzed(180)
@given(some_of(*parameters(RetryPolicy)))
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


# An initializer and a journal have tests of their own.
QUEUE_OPTIONS = parameters(JobQueue, but=("initializer", "journal"))


@fuzzed(160)
@given(some_of(*QUEUE_OPTIONS))
def test_queue_is_refused_or_made(options: dict[str, Odd]) -> None:
    given_ = made(options)
    queue = ask(lambda: JobQueue(**given_), **given_)
    if not isinstance(queue, Refused):
        assert queue.max_retries >= 0
        queue.close()


@fuzzed(100)
@given(some_of("threads", "items", "memory", "setup_timeout"))
def test_queue_with_odd_limits_of_workers_is_refused_or_made(limits: dict[str, Odd]) -> None:
    given_ = made(limits)
    queue = ask(lambda: JobQueue(1, per_worker=given_), **given_)  # type: ignore[arg-type]
    if not isinstance(queue, Refused):
        queue.close()


@fuzzed(60)
@given(handlers)
def test_queue_with_an_odd_initializer_is_refused_or_made(initializer: Odd) -> None:
    queue = ask(lambda: JobQueue(1, initializer=initializer.make()))
    if not isinstance(queue, Refused):
        queue.close()


def serve(queue: JobQueue, options: Options) -> Any:
    try:
        return queue.serve(**options)
    except OSError as error:  # the system's, of a name that nobody has
        raise ValueError(f"host: {error}") from error


@fuzzed(60)
@given(st.fixed_dictionaries({}, optional={"host": hosts, "port": values, "hosts": st.one_of(values, iterables)}))
def test_page_is_refused_or_served(options: dict[str, Odd]) -> None:
    given_ = made(options)
    with JobQueue(1) as queue:
        # What a list of hosts raises by itself comes through.
        named = {} if "hosts" in given_ else given_
        page = ask(lambda: serve(queue, given_), **named)
        assert isinstance(page, Refused) or page.url.startswith("http://")
        assert queue.jobs() == []


@fuzzed(120)
@given(some_of(*parameters(Executor)))
def test_executor_is_refused_or_made(options: dict[str, Odd]) -> None:
    executor = ask(lambda: Executor(**made(options)))
    if not isinstance(executor, Refused):
        executor.shutdown()


@fuzzed(36)
@given(some_of(*parameters(Pool)))
def test_pool_is_refused_or_made(options: dict[str, Odd]) -> None:
    given_: Options = {"processes": 1, **made(options)}
    pool = ask(lambda: Pool(**given_))
    if not isinstance(pool, Refused):
        pool.terminate()
        pool.join()
