"""map and its kin, Pool and Executor, with odd functions, lists, payloads and options."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import mpqueue
from mpqueue import Executor, JobQueue, Pool
from tests.fuzz.judge import PATIENCE, Refused, ask, fuzzed
from tests.fuzz.odd import Index, Odd, handlers, iterables, parameters, payloads, values
from tests.support import handlers as do

#: More are refused; so many as are allowed would be started.
MOST_WORKERS = 10_000

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_pool_ends", "forked_workers")]


async def _amap(*args: Any, **options: Any) -> list[Any]:
    found: list[Any] = await mpqueue.amap(*args, **options)
    return found


CALLS: dict[str, Callable[..., list[Any]]] = {
    "map": mpqueue.map,
    "starmap": mpqueue.starmap,
    "imap": lambda *args, **options: list(mpqueue.imap(*args, **options)),
    "imap_unordered": lambda *args, **options: list(mpqueue.imap_unordered(*args, **options)),
    "amap": lambda *args, **options: asyncio.run(_amap(*args, **options)),
    "stages": lambda fn, items, **options: mpqueue.stages(items, [fn], **options),
}
calls = st.sampled_from(sorted(CALLS))
OPTIONS = {name: parameters(getattr(mpqueue, name), but=("fn", "items", "stages")) for name in CALLS}


@fuzzed(90)
@example("map", {"on_error": Odd("an array", lambda: np.array([1, 2]))})
@given(calls, st.dictionaries(st.sampled_from(OPTIONS["amap"]), values, min_size=1, max_size=2))
def test_options(name: str, options: dict[str, Odd]) -> None:
    assume(options.keys() <= {*OPTIONS[name]})
    given_ = {name: odd.make() for name, odd in options.items()}
    workers = given_.get("concurrency")
    assume(not isinstance(workers, int) or workers < 3 or workers > MOST_WORKERS)
    batch = [(1,), (2,)] if name == "starmap" else [1, 2]
    found = ask(lambda: CALLS[name](abs, batch, **{"concurrency": 1, **given_}), **given_)
    assert isinstance(found, Refused) or sorted(found) == [1, 2]


@fuzzed(60)
@given(calls, iterables)
def test_lists(name: str, odd: Odd) -> None:
    ask(lambda: CALLS[name](do.succeed, odd.make(), concurrency=1, max_retries=0, on_error="collect"))


@fuzzed(60)
@given(calls, payloads)
def test_payloads(name: str, odd: Odd) -> None:
    batch: list[Any] = [1, odd.make(), 3]
    if name == "starmap":
        batch = [(item,) for item in batch]
    found = CALLS[name](do.return_pid, batch, concurrency=1, max_retries=0, on_error="collect")
    assert sum(isinstance(value, int) for value in found) >= 2


@fuzzed(90)
@given(calls, handlers)
def test_functions(name: str, odd: Odd) -> None:
    batch = [(1,), (2,)] if name == "starmap" else [1, 2]
    ask(lambda: CALLS[name](odd.make(), batch, concurrency=1, max_retries=0, on_error="collect"))
    assert mpqueue.map(abs, [-1], concurrency=1) == [1]


@fuzzed(90)
@given(handlers, payloads)
def test_submitted(executor: Executor, odd: Odd, payload: Odd) -> None:
    future = ask(lambda: executor.submit(odd.make(), payload.make()))
    if not isinstance(future, Refused):
        error = future.exception(PATIENCE)
        assert error is None or isinstance(error, BaseException)
    assert executor.submit(abs, -1).result(PATIENCE) == 1


@fuzzed(90)
@given(
    handlers, iterables, st.dictionaries(st.sampled_from(("timeout", "chunksize", "buffersize")), values, max_size=1)
)
def test_executor_map(executor: Executor, odd: Odd, items: Odd, options: dict[str, Odd]) -> None:
    given_ = {name: odd.make() for name, odd in options.items()}
    ask(lambda: _whatever_it_raises(lambda: list(executor.map(odd.make(), items.make(), **given_))))
    assert executor.submit(abs, -1).result(PATIENCE) == 1


@fuzzed(90)
@example("map", Odd("abs", lambda: abs), Odd("[1, 2]", lambda: [1, 2]), Odd("Index", Index))
@given(
    st.sampled_from(("apply", "map", "starmap", "imap", "imap_unordered", "apply_async")), handlers, iterables, values
)
def test_pool(pool: Pool, name: str, odd: Odd, items: Odd, extra: Odd) -> None:
    def call() -> Any:
        arguments = () if name.startswith("apply") else (extra.make(),)
        found = getattr(pool, name)(odd.make(), items.make(), *arguments)
        if name == "apply_async":
            return found.get(PATIENCE)
        return list(found) if name.startswith("imap") else found

    ask(lambda: _whatever_it_raises(call))
    assert pool.apply(abs, (-1,)) == 1


def _whatever_it_raises(call: Callable[[], Any]) -> Any:
    """What the call returns; None where the function raised something of its own."""
    try:
        return call()
    except (mpqueue.MPQueueError, TypeError, ValueError):
        raise
    except Exception:
        return None


@fuzzed(60)
@given(payloads)
def test_shared(queue: JobQueue, odd: Odd) -> None:
    held = ask(lambda: mpqueue.share(odd.make()))
    if not isinstance(held, Refused):
        assert queue.run([1, held], do.return_pid, id="shared").items[0].status == "completed"
        queue.clear_job("shared")
    assert queue.jobs() == []
