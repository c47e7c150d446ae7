"""Jobs of odd items, odd lists, odd payloads and odd handlers: refused as a whole, or run to their end."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue import Job, JobQueue, RetryPolicy
from tests.fuzz.judge import PATIENCE, Refused, ask, check_still_works, clear, fuzzed
from tests.fuzz.odd import EVENTS, Odd, handlers, ids, items, iterables, parameters, payloads, table, values
from tests.support import handlers as do

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


def run_through(queue: JobQueue, *args: Any, **options: Any) -> Job | None:
    """Create the job, run it, look at everything it has, clear it; None where it is refused and nothing is left."""
    clear(queue)
    job: Any = ask(lambda: queue.create_job("odd", *args, **options))
    if isinstance(job, Refused):
        check_still_works(queue)
        return None
    ended = queue.start("odd").result(PATIENCE)
    look_at(ended)
    queue.clear_job("odd")
    return ended


def look_at(job: Job) -> None:
    """All items have ended, and each view of them can be had."""
    assert job.status in ("completed", "completed_with_errors")
    assert job.completed + job.failed == job.total == len(job.items) == len(job.results)
    for item in job.items:
        assert item.status in ("completed", "failed")
        if item.status == "failed":
            assert item.error
            assert isinstance(item.exception, BaseException)
    assert len(job.failures) == job.failed
    ask(lambda: json.dumps(job.to_dict()))
    assert len(job.to_records()) == job.total


OPTIONS = parameters(JobQueue.create_job, but=("self", "id", "items", "handler", "setup"))


@fuzzed(120)
@given(st.dictionaries(st.sampled_from(OPTIONS), values, min_size=1, max_size=2))
def test_options_of_a_job(queue: JobQueue, options: dict[str, Odd]) -> None:
    given_ = {name: odd.make() for name, odd in options.items()}
    clear(queue)
    job = ask(lambda: queue.create_job("odd", [1, 2], abs, **given_), **given_)
    if isinstance(job, Refused):
        check_still_works(queue)
    else:
        run = queue.start("odd")
        if not job.sealed:  # what is true opens it, for items that nobody adds here
            queue.seal("odd")
        assert run.result(PATIENCE).total == 2
        queue.clear_job("odd")


@fuzzed(60)
@given(ids)
def test_id_of_a_job(queue: JobQueue, odd: Odd) -> None:
    clear(queue)
    job_id = odd.make()
    job: Any = ask(lambda: queue.create_job(job_id, [1], abs), id=job_id)
    if isinstance(job, Refused):
        for call in (queue.start, queue.pause, queue.resume, queue.cancel, queue.clear_job, queue.retry_failed):
            assert isinstance(ask(partial(call, job_id)), Refused)
        assert isinstance(ask(partial(queue.get_job, job_id)), Refused | None)
        assert queue.jobs() == []
        return
    found = queue.get_job(job_id)
    assert found is not None
    assert found.total == 1
    assert queue.run([1], abs).results == [1]
    assert queue.start(job_id).result(PATIENCE).results == [1]
    json.dumps(job.to_dict())


@fuzzed(60)
@given(iterables)
def test_list_of_items(queue: JobQueue, odd: Odd) -> None:
    job = run_through(queue, odd.make(), do.succeed)
    assert job is None or job.failed == 0


@fuzzed(120)
@given(st.lists(items, min_size=1, max_size=4))
def test_items(queue: JobQueue, odds: list[Odd]) -> None:
    job = run_through(queue, [odd.make() for odd in odds], do.return_pid)
    assert job is None or len(job.items) == len(odds)


@fuzzed(90)
@given(payloads, st.booleans(), st.integers(0, 4))
def test_payloads_cost_nobody_else_anything(queue: JobQueue, odd: Odd, mapped: bool, at: int) -> None:
    batch: list[Any] = [1, 2, 3, 4]
    batch.insert(at, odd.make())
    if mapped:
        batch = [{"id": number, "payload": payload} for number, payload in enumerate(batch)]
    job = run_through(queue, batch, do.return_pid)
    if job is None:  # the first has an id, whatever it is, and the others have none
        assert not mapped
        assert at == 0
        return
    assert [item.status for position, item in enumerate(job.items) if position != at] == ["completed"] * 4


@fuzzed(60)
@given(payloads)
def test_results(queue: JobQueue, odd: Odd) -> None:
    make = odd.make

    def handler(item: int) -> Any:
        return make() if item == 1 else item

    job = run_through(queue, [0, 1, 2], handler)
    assert job is None or [job.results[0], job.results[2]] == [0, 2]


@fuzzed(90)
@given(handlers, st.sampled_from([1, "a", [1], (), {"id": 1}]))
def test_handlers(queue: JobQueue, odd: Odd, item: Any) -> None:
    run_through(queue, [item], odd.make())


@fuzzed(60)
@given(handlers)
def test_setups(queue: JobQueue, odd: Odd) -> None:
    run_through(queue, [1], lambda item, state: item, setup=odd.make(), retry=RetryPolicy(max_retries=0))


@fuzzed(60)
@given(
    st.one_of(values, table("EVENTS", EVENTS)),
    handlers,
)
def test_listeners(odd_event: Odd, odd_listener: Odd) -> None:
    with JobQueue(1) as queue:
        event, listener = odd_event.make(), odd_listener.make()
        ask(lambda: queue.on(event, listener))


@fuzzed(120)
@given(st.one_of(values, items, ids), st.booleans())
def test_names_of_items(queue: JobQueue, odd: Odd, is_one: bool) -> None:
    clear(queue)
    job = queue.run(["a", "b"], do.only("b", do.fail), max_retries=0)
    given_ = odd.make()
    chosen: Any = [given_] if is_one else given_
    with suppress(KeyError, IndexError):
        ask(partial(queue.cancel_items, job, chosen))
        run = ask(partial(queue.retry_failed, job, items=chosen))
        if not isinstance(run, Refused):
            run.result(PATIENCE)
    assert (job.completed, job.failed) == (1, 1)
    assert queue.retry_failed(job, items=["b"]).result(PATIENCE).failed == 1
    queue.clear_job(job)
