"""Calls that are wrong are refused where they are made, naming the value, and leave nothing half created."""

from __future__ import annotations

import asyncio
import math
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import mpqueue
from mpqueue import ItemPicklingError, JobNotFoundError, JobQueue, RetryPolicy, share
from tests.support import handlers as do
from tests.support.results import check_nothing_created
from tests.support.systems import LINUX_ONLY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def queue() -> Iterator[JobQueue]:
    """One for all of whose jobs none is left."""
    with JobQueue(1) as one:
        one.run(["its worker is there"], do.succeed, id="first")
        one.clear_job("first")
        yield one


def breaks_down() -> Iterator[int]:
    yield 1
    raise LookupError("the list ends here")


class Lying:
    """An iterator that says it has so many items more, and raises at the second."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.items = breaks_down()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return next(self.items)

    def __length_hint__(self) -> int:
        return self.length


class Reprless:
    """Can't be shown, nor hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise LookupError("no repr")


class Pretender:
    """Says that it is a number."""

    def __repr__(self) -> str:
        return "Pretender()"

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return int


BAD_ITEMS: dict[str, tuple[Any, type[Exception], str]] = {
    "generator that raises": (breaks_down, LookupError, "the list ends here"),
    "duplicate keys": (
        lambda: [{"id": 1}, {"id": 2}, {"id": 1}],
        ValueError,
        "expected unique ids, got 1 at positions 0 and 2",
    ),
    "iterator with a wild length": (lambda: Lying(10**15), LookupError, "the list ends here"),
    "a value without a repr": (
        Reprless,
        TypeError,
        r"items: expected an iterable, got <Reprless: its repr\(\) raised LookupError> of type Reprless",
    ),
    "an unhashable id without a repr": (
        lambda: [{"id": 1}, {"id": Reprless()}],
        TypeError,
        r"items\[1\]: expected a hashable id, got <Reprless: its repr\(\) raised",
    ),
    "text": (lambda: "ab", TypeError, r"got a str; \[text\] is one item, and list\(text\) has an item for each char"),
    "bytes": (lambda: b"ab", TypeError, r"got a bytes; \[data\] is one item"),
    "a mapping": (lambda: {"a": 1}, TypeError, r"got a dict; list\(it\) has its keys, list\(it.items\(\)\) its pairs"),
    "pandas": (lambda: pd.DataFrame({"a": [1]}), TypeError, r'got a DataFrame; its .to_dict\("records"\) has an item'),
    "polars": (lambda: pl.DataFrame({"a": [1]}), TypeError, r"got a DataFrame; its .to_dicts\(\) has an item for each"),
    "None": (lambda: None, TypeError, "items: expected an iterable, got None"),
    "a number": (lambda: 5, TypeError, "items: expected an iterable, got 5"),
}


@pytest.mark.parametrize("what", BAD_ITEMS)
def test_items_are_refused(what: str, queue: JobQueue) -> None:
    make, error, message = BAD_ITEMS[what]
    with pytest.raises(error, match=message):
        queue.create_job("job", make(), do.succeed)
    with pytest.raises(error, match=message):
        queue.run(make(), do.succeed)
    check_nothing_created(queue)


@pytest.mark.parametrize(
    ("id", "handler", "options", "message"),
    [
        (3, do.succeed, {}, "id: expected a str, got 3"),
        ("job", Reprless, {}, "expected a function that can be called with one item"),
        ("job", do.succeed, {"results": "never"}, "results: expected 'keep', 'discard' or a sink, got 'never'"),
        ("job", do.succeed, {"cost": 3}, "cost: expected a function of an item, or a list of numbers, got 3"),
        ("job", do.succeed, {"cost": "recorded"}, "cost: expected a queue with a journal"),
        ("job", do.succeed, {"label": 3}, "label: expected"),
        ("job", do.succeed, {"rerun": 3}, "rerun: expected a Rerun"),
    ],
)
def test_a_plan_refuses_the_arguments_that_its_job_would(
    id: Any, handler: Callable[..., Any], options: dict[str, Any], message: str, queue: JobQueue
) -> None:
    for call in queue.create_job, queue.plan_job:
        with pytest.raises((TypeError, ValueError), match=message):
            call(id, ["a"], handler, **options)
    check_nothing_created(queue)


def test_where_the_function_and_the_items_are_swapped_the_error_asks_so(queue: JobQueue) -> None:
    swapped: Any = do.succeed
    asks = pytest.raises(TypeError, match=r"expected (an iterable|a callable), got .*function and the items swapped")
    calls: list[Callable[[], object]] = [
        lambda: mpqueue.map([1, 2], swapped),  # type: ignore[call-overload]
        lambda: mpqueue.starmap([(1, 2)], swapped),  # type: ignore[call-overload]
        lambda: mpqueue.imap([1, 2], swapped),  # type: ignore[call-overload]
        lambda: mpqueue.stages(swapped, [[1, 2]]),  # type: ignore[list-item]
    ]
    for call in calls:
        with asks:
            call()
    with asks:
        queue.run(swapped, [1, 2])  # type: ignore[call-overload]
    with asks:
        queue.create_job("job", swapped, [1, 2])  # type: ignore[call-overload]
    check_nothing_created(queue)
    with pytest.raises(TypeError, match=r"expected an iterable, got 5 of type int$"):
        mpqueue.map(do.succeed, 5)  # type: ignore[call-overload]


#: Options of a queue, of a job, and of both.
OPTIONS: list[tuple[str, str, Any, type[Exception]]] = [
    *(("both", "max_retries", value, TypeError) for value in (1.5, True, "3")),
    *(("both", "retry", value, TypeError) for value in (3, "often", {"max_retries": 3})),
    *(("both", "timeout", value, ValueError) for value in (0, -1, -1.0, math.nan, math.inf, 10**400, "soon")),
    ("both", "max_retries", -1, ValueError),
    *(("job", "priority", value, TypeError) for value in (True, 1.5, "high")),
    ("job", "chunksize", 0, ValueError),
    ("job", "chunksize", 2.0, TypeError),
    *(("queue", "concurrency", value, ValueError) for value in (0, -1, 10_001)),
    *(("queue", "concurrency", value, TypeError) for value in (2.0, True, Pretender(), "3")),
    *(("queue", "progress_interval", value, ValueError) for value in (-1, math.nan)),
    ("queue", "progress_interval", None, TypeError),
    *(("queue", "per_worker", value, TypeError) for value in (100, ["items"])),
]

POLICIES: list[tuple[dict[str, Any], type[Exception]]] = [
    *(({"max_retries": value}, ValueError) for value in (-1, 10**400)),
    *(({"max_retries": value}, TypeError) for value in (None, 1.0, True)),
    *(({"base_delay": value}, ValueError) for value in (-0.1, math.nan, math.inf, 10**400)),
    *(({"factor": value}, ValueError) for value in (-1, math.nan)),
    *(({"max_delay": value}, ValueError) for value in (-1, math.inf)),
    *(({"jitter": value}, ValueError) for value in (1.1, -0.1, math.nan)),
    *(({name: "soon"}, ValueError) for name in ("base_delay", "max_delay")),
    *(({name: "2"}, TypeError) for name in ("factor", "jitter")),
    *(({"retry_on": value}, TypeError) for value in (("ValueError",), (ValueError, int), int)),
    *(({"give_up_on": value}, TypeError) for value in ([ValueError], ValueError())),
]


@pytest.mark.parametrize(("of", "name", "value", "error"), OPTIONS, ids=lambda value: str(value)[:40])
def test_options_of_a_queue_and_of_a_job_are_refused(
    of: str, name: str, value: Any, error: type[Exception], queue: JobQueue
) -> None:
    said = f"^{name}: expected .*got {re.escape(repr(value)[:90])}"
    options: dict[str, Any] = {name: value}
    if of != "queue":
        with pytest.raises(error, match=said):
            queue.create_job("job", ["a", "b"], do.succeed, **options)
        assert queue.jobs() == []
    if of != "job":
        with pytest.raises(error, match=said):
            JobQueue(**options)


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("threads", 0, ValueError),
        ("threads", 1.0, TypeError),
        ("items", 0, ValueError),
        ("items", False, TypeError),
        ("setup_timeout", 0, ValueError),
        ("setup_timeout", [], TypeError),
    ],
)
def test_limits_of_a_worker_are_refused(key: Any, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^per_worker\['{key}'\]: expected .*got {re.escape(repr(value))}"):
        anything.JobQueue(per_worker={key: value})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("item", r"; did you mean 'items'\?"),
        ("max_memory", r"; did you mean 'memory'\?"),
        ("max_items_per_worker", r"; write JobQueue\(per_worker=\{'items': 5\}\)"),
        (7, ""),
    ],
)
def test_a_limit_that_a_worker_can_t_have_is_named_with_the_one_that_is_meant(key: Any, hint: str) -> None:
    keys = "'threads', 'items', 'memory', 'setup_timeout'"
    with pytest.raises(TypeError, match=f"^per_worker: expected some of the keys {keys}, got {key!r}{hint}$"):
        anything.JobQueue(per_worker={key: 5})


@pytest.mark.parametrize(("options", "error"), POLICIES, ids=lambda value: str(value)[:40])
def test_options_of_a_policy_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    ((name, _),) = options.items()
    with pytest.raises(error, match=f"^{name}: expected"):
        RetryPolicy(**options)


def two(a: object, b: object) -> None: ...


def keyword(a: object, *, b: object) -> None: ...


class TakesTwo:
    def __call__(self, a: object, b: object) -> None: ...


#: A handler that can't be called, whether it has a state, and what is said.
CALLS: list[tuple[Callable[..., Any], bool, str]] = [
    (
        two,
        False,
        r"called with one item, got two\(.*missing a required argument: 'b'; setup= makes .*; functools.partial",
    ),
    (keyword, False, r"called with one item, got keyword\(.*'b'"),
    (TakesTwo(), False, r"called with one item, got TakesTwo object \(.*'b'"),
    (lambda: None, False, r"called with one item, got .*<lambda>\(\): too many positional arguments$"),
    (lambda item: None, True, r"called with an item and the state that setup returned, got .*\(item\): too many"),
    (partial(two, 1, 2), False, "called with one item, got partial object .*too many"),
]


@pytest.mark.parametrize(("handler", "has_setup", "said"), CALLS)
def test_a_handler_that_can_t_be_called_with_an_item_is_refused(
    handler: Callable[..., Any], has_setup: bool, said: str, queue: JobQueue
) -> None:
    setup: Any = object if has_setup else None
    with pytest.raises(TypeError, match=f"^handler: expected a function that can be {said}"):
        queue.create_job("job", [1], handler, setup=setup)
    check_nothing_created(queue)


def injected(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(item: object) -> Any:
        return function(item, "more")

    return call


@pytest.mark.parametrize(
    "handler",
    [injected(two), partial(two, 1), partial(keyword, b=1), TakesTwo().__call__, max, str, math.hypot],
)
def test_a_handler_that_may_be_callable_is_not_refused(handler: Callable[..., Any]) -> None:
    setup: Any = object if getattr(handler, "__name__", "") == "__call__" else None
    with JobQueue(1) as queue:
        queue.create_job("job", [1], handler, setup=setup)


#: What type checkers would refuse before.
anything: Any = mpqueue
MISNAMED: list[tuple[Callable[[Any], object], str]] = [
    (lambda queue: anything.JobQueue(max_retires=1), r"^JobQueue\(\) got .*'max_retires'; did you mean max_retries\?$"),
    (lambda queue: queue.create_job("job", [1], abs, time_out=1), r"^JobQueue.create_job\(\) got .*mean timeout\?$"),
    (lambda queue: queue.run([1], abs, proirity=1), r"^JobQueue.run\(\) got .*did you mean priority\?$"),
    (lambda queue: queue.plan_job("job", [1], abs, chunksise=1), r"^JobQueue.plan_job\(\) got .*mean chunksize\?$"),
    (lambda queue: queue.run([1], abs, colour=1), r"^JobQueue.run\(\) got an unexpected keyword argument 'colour'$"),
    (lambda queue: anything.map(abs, [1], max_retires=1), r"^mpqueue.map\(\) got .*did you mean max_retries\?$"),
    (
        lambda queue: anything.imap(abs, [1], chunk_size=1),
        r"^mpqueue.imap\(\) .*: did you mean chunksize\?$",
    ),
    (lambda queue: anything.Pool(process=1), r"^Pool\(\) got .*did you mean processes\?$"),
    (lambda queue: anything.Executor(max_worker=1), r"^Executor\(\) got .*did you mean max_workers\?$"),
    # what other libraries call it
    (lambda queue: anything.JobQueue(max_workers=1), r"did you mean concurrency\?$"),
    (lambda queue: queue.run([1], abs, n_jobs=1), r"did you mean concurrency\?$"),
    (lambda queue: anything.Pool(n_jobs=1), r"did you mean processes\?$"),
    (lambda queue: anything.Executor(processes=1), r"did you mean max_workers\?$"),
    (lambda queue: anything.Stage(abs, tries=1), r"did you mean max_retries\?$"),
    (lambda queue: queue.run([1], abs, verbose=1), r"did you mean progress\?$"),
    (lambda queue: queue.run([1], abs, progess=1), r"did you mean progress\?$"),
    (lambda queue: anything.JobQueue(tqdm=True), r": run\(progress=True\) and map\(progress=True\) show it$"),
    (lambda queue: queue.create_job("job", [1], abs, initializer=abs), r"did you mean setup\?$"),
    (lambda queue: anything.JobQueue(setup=abs), r"did you mean initializer\?$"),
    (
        lambda queue: anything.map(abs, [1], args=(1,)),
        r": functools.partial\(function, ...\) gives it what is the same",
    ),
    (lambda queue: queue.run([1], abs, callback=abs), r": queue.on\('item:completed', function\) calls one with each"),
    (
        lambda queue: anything.JobQueue(setup_timeout=60, workers=2),
        r"write JobQueue\(per_worker=\{'setup_timeout': 60\}\)$",
    ),
    (lambda queue: anything.JobQueue(cpus=2), r": JobQueue\(concurrency=...\) says how many workers"),
    (lambda queue: anything.JobQueue(maxtasksperchild=5), r"write JobQueue\(per_worker=\{'items': 5\}\)$"),
    (lambda queue: queue.run([1], abs, maxtasksperchild=5), r"write JobQueue\(per_worker=\{'items': 5\}\)$"),
    (lambda queue: anything.Pool(max_tasks_per_child=5), r"did you mean maxtasksperchild\?$"),
    (lambda queue: anything.Executor(setup=abs), r"did you mean initializer\?$"),
    (lambda queue: queue.open_job("job", [1], abs, workers=2), r"^JobQueue.open_job\(\) .*did you mean concurrency\?$"),
    (lambda queue: queue.run_stages([1], [abs], verbose=1), r"^JobQueue.run_stages\(\) .* did you mean progress\?$"),
    (lambda queue: queue.run_stages([1], [abs], workers=1), r": JobQueue\(concurrency=...\) says how many workers"),
    (lambda queue: queue.run_stages([1], [abs], tries=1), r": max_retries, of JobQueue, .* counts the tries after"),
    (lambda queue: anything.stages([1], [abs], n_jobs=2), r"did you mean concurrency\?$"),
    (lambda queue: anything.imap_unordered(abs, [1], callback=abs), r": queue.on\('item:completed', function\)"),
    (lambda queue: anything.starmap(pow, [(1, 2)], tries=1), r"did you mean max_retries\?$"),
    *(
        (call, r"^\w+\(\) takes one iterable of items, got 2: zip\(\) makes one of them, .*mpqueue.starmap\(\) calls")
        for call in (
            lambda queue: anything.map(pow, [1], [2]),
            lambda queue: asyncio.run(anything.amap(pow, [1], [2])),
            lambda queue: anything.imap(pow, [1], [2]),
            lambda queue: anything.imap_unordered(pow, [1], [2]),
        )
    ),
    # what it was called in 1.0.0rc1
    (
        lambda queue: anything.JobQueue(max_items_per_worker=100),
        r"^JobQueue\(\) has no option 'max_items_per_worker': write JobQueue\(per_worker=\{'items': 100\}\)$",
    ),
    *(
        (call, r" has no option 'max_memory_per_worker': write JobQueue\(per_worker=\{'memory': '2GB'\}\)$")
        for call in (
            lambda queue: queue.run([1], abs, max_memory_per_worker="2GB"),
            lambda queue: anything.map(abs, [1], max_memory_per_worker="2GB"),
            lambda queue: anything.Stage(abs, max_memory_per_worker="2GB"),
            lambda queue: anything.Pool(max_memory_per_worker="2GB"),
            lambda queue: anything.Executor(max_memory_per_worker="2GB"),
        )
    ),
]


def test_what_other_libraries_call_it_is_answered_with_what_does_it_here() -> None:
    with JobQueue(1) as queue:
        for name, said in (("stop", "queue.close"), ("submit", "add_items"), ("map", "queue.run"), ("join", "result")):
            with pytest.raises(AttributeError, match=rf"no attribute '{name}'; .*{said}.* is what you want$"):
                getattr(queue, name)
        assert not hasattr(queue, "colour")
        job: Any = queue.run([1], abs)
        with pytest.raises(TypeError, match=r"await queue.start"):
            asyncio.run(_awaited(job))
        with pytest.raises(IndexError, match=r"^items: expected a position below 1, got 5$"):
            job.items[5]


async def _awaited(what: Any) -> Any:
    return await what


@LINUX_ONLY
def test_a_memory_limit_of_two_bytes_is_refused_with_the_question_what_was_meant() -> None:
    with pytest.raises(ValueError, match=r"^per_worker\['memory'\]: .* got 2; did you mean \"2GB\"\?$"):
        JobQueue(per_worker={"memory": 2})


@pytest.mark.parametrize(("call", "said"), MISNAMED)
def test_an_option_that_is_misspelled_is_named_with_the_one_that_is_meant(
    call: Callable[[JobQueue], object], said: str, queue: JobQueue
) -> None:
    with pytest.raises(TypeError, match=said):
        call(queue)
    check_nothing_created(queue)


def test_an_id_that_no_job_has_is_named_with_the_one_that_is_meant(tmp_path: Path) -> None:
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        queue.run(["a"], do.succeed, id="Thumbnails-2026")
        for call in (queue.start, queue.pause, queue.cancel, queue.clear_job, queue.retry_failed, queue.load_job):
            with pytest.raises(JobNotFoundError, match=r"got none; did you mean 'Thumbnails-2026'\?$"):
                call("Thumbnail-2026")
            with pytest.raises(JobNotFoundError, match=r"got none$"):
                call("other")
        with pytest.raises(JobNotFoundError, match=r"in the journal, got none; did you mean 'Thumbnails-2026'\?$"):
            queue.prune("thumbnails-2026")
        assert queue.get_job("Thumbnail-2026") is None


@pytest.mark.parametrize("job_id", [5, None, b"job", ("job",)], ids=repr)
def test_id_that_is_no_string_is_refused(job_id: Any, queue: JobQueue) -> None:
    with pytest.raises(TypeError, match=r"^id: expected a str, got"):
        queue.create_job(job_id, ["a", "b"], do.succeed)
    assert queue.jobs() == []


def test_long_values_are_cut_and_values_without_a_repr_are_named_by_their_type() -> None:
    with pytest.raises(TypeError, match=r"^max_retries: expected a whole number, got <Reprless: .* of type Reprless$"):
        RetryPolicy(Reprless())  # type: ignore[arg-type]
    with pytest.raises(TypeError) as caught:
        RetryPolicy("many " * 10_000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 1000
    assert "(50002 characters)" in str(caught.value)


def test_object_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ItemPicklingError, match=r"^share: expected an object that can be pickled, got <.*lock"):
        share(threading.Lock())
    with pytest.raises(ItemPicklingError, match=r"^share: expected"):
        share(do.Unpicklable())


def test_items_are_looked_at_once_and_before_anything_is_created() -> None:
    seen: list[int] = []

    def items() -> Iterator[int]:
        assert own.get_job("job") is None
        for number in range(3):
            seen.append(number)
            yield number

    with JobQueue(1) as own:
        own.create_job("job", items(), do.succeed)
        assert seen == [0, 1, 2]
        assert own.start("job").result(300).results == [0, 1, 2]


def test_iterable_may_create_the_very_job_and_then_is_refused() -> None:
    def items() -> Iterator[int]:
        own.create_job("job", [7], do.succeed)
        yield 1

    with JobQueue(1) as own:
        with pytest.raises(ValueError, match="job 'job': expected a new id"):
            own.create_job("job", items(), do.succeed)
        assert own.start("job").result(300).results == [7]
