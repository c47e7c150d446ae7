"""What a type checker says of the interface: each ``assert_type`` is checked by mypy, with the rest of the tests.

Nothing here is run but what shows that the generic classes can be subscripted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Never, NoReturn, TypeVar, assert_type

import pytest

import mpqueue
from mpqueue import Job, JobItem, JobPlan, JobQueue, JobRun

T = TypeVar("T")


@dataclass
class Photo:
    path: str


def path_of(photo: Photo) -> str:
    return photo.path


def describe(photo: Photo) -> str:
    return photo.path


async def describe_later(photo: Photo) -> str:
    return photo.path


def describe_with(photo: Photo, model: bytes) -> str:
    return photo.path


async def describe_later_with(photo: Photo, model: bytes) -> str:
    return photo.path


def load_model() -> bytes:
    return b""


def load_and_drop_model() -> Iterator[bytes]:
    yield b""


def refuse(photo: Photo) -> NoReturn:
    raise ValueError(photo)


def untyped(photo: Any) -> Any:
    return photo


def identity(number: int) -> int:
    return number


def halve(number: float) -> float:
    return number / 2


PHOTOS = [Photo("a")]


def check_map() -> None:
    assert_type(mpqueue.map(describe, PHOTOS), list[str])
    assert_type(mpqueue.map(describe_later, PHOTOS), list[str])
    assert_type(mpqueue.map(untyped, PHOTOS), list[Any])
    assert_type(mpqueue.map(lambda photo: len(photo.path), PHOTOS), list[int])
    assert_type(mpqueue.map(len, ["a", "b"]), list[int])
    assert_type(mpqueue.map(halve, [1, 2]), list[float])
    assert_type(mpqueue.map(describe, PHOTOS, on_error="skip", max_retries=0, timeout=1.0), list[str])
    assert_type(mpqueue.map(describe, PHOTOS, on_error="collect"), list[str | BaseException])
    assert_type(mpqueue.map(describe_later, PHOTOS, on_error="collect"), list[str | BaseException])
    mpqueue.map(describe, ["a"])  # type: ignore[arg-type]
    mpqueue.map(describe, PHOTOS, on_error="ignore")  # type: ignore[call-overload]
    mpqueue.map(describe, PHOTOS, retries=3)  # type: ignore[call-overload]


def check_starmap() -> None:
    assert_type(mpqueue.starmap(describe_with, [(PHOTOS[0], b"")]), list[str])
    assert_type(mpqueue.starmap(describe_later_with, [(PHOTOS[0], b"")]), list[str])
    assert_type(mpqueue.starmap(divmod, [(7, 2)], on_error="collect"), list[Any | BaseException])


def check_imap() -> None:
    assert_type(next(mpqueue.imap(describe, PHOTOS)), str)
    assert_type(next(mpqueue.imap_unordered(describe_later, PHOTOS, buffersize=3)), str)
    assert_type(next(mpqueue.imap(describe, PHOTOS, on_error="collect")), str | BaseException)
    assert_type(list(mpqueue.imap(describe, PHOTOS)), list[str])
    for text in mpqueue.imap_unordered(describe, PHOTOS):
        assert_type(text, str)
    mpqueue.imap(describe, PHOTOS, on_error="group")  # type: ignore[call-overload]


async def check_coroutines(run: JobRun[Photo, str]) -> None:
    assert_type(await mpqueue.amap(describe, PHOTOS), list[str])
    assert_type(await mpqueue.amap(describe_later, PHOTOS), list[str])
    assert_type(await mpqueue.amap(describe, PHOTOS, on_error="collect"), list[str | BaseException])
    async for text in mpqueue.imap(describe, PHOTOS):
        assert_type(text, str)
    assert_type(await run, Job[Photo, str])
    async for item in run:
        assert_type(item, JobItem[Photo, str])


def check_jobs(queue: JobQueue) -> None:
    assert_type(queue.plan_job("a", PHOTOS, describe, rerun=mpqueue.Rerun(key=path_of, redo="failed")), JobPlan)
    assert_type(
        queue.create_job("a", PHOTOS, describe, rerun=mpqueue.Rerun(update=True, key=path_of, redo=["a"])),
        Job[Photo, str],
    )
    assert_type(mpqueue.map(describe, PHOTOS, rerun=mpqueue.Rerun(update=True, key=path_of, version="2")), list[str])
    job = queue.create_job("a", PHOTOS, describe, max_retries=0, priority=1, rerun=mpqueue.Rerun(version="2"))
    assert_type(job, Job[Photo, str])
    assert_type(job.results, list[str | None])
    assert_type(job.items[0], JobItem[Photo, str])
    assert_type(job.items[:1], list[JobItem[Photo, str]])
    assert_type(job.items[0].payload, Photo)
    assert_type(job.items[0].result, str | None)
    for item in job.items:
        assert_type(item.payload, Photo)
    assert_type(queue.create_job("b", PHOTOS, describe_later), Job[Photo, str])
    assert_type(queue.create_job("c", PHOTOS, refuse), Job[Photo, Never])
    assert_type(queue.create_job("d", PHOTOS, untyped), Job[Photo, Any])
    assert_type(queue.create_job("e", PHOTOS, describe_with, setup=load_model), Job[Photo, str])
    assert_type(queue.create_job("f", PHOTOS, describe_with, setup=load_and_drop_model), Job[Photo, str])
    assert_type(queue.create_job("g", PHOTOS, describe_later_with, setup=load_model), Job[Photo, str])
    queue.create_job("h", ["a"], describe)  # type: ignore[arg-type]
    queue.create_job("i", PHOTOS, describe_with)  # type: ignore[arg-type]
    queue.create_job("j", PHOTOS, describe, retries=3)  # type: ignore[call-overload]


def check_runs(queue: JobQueue) -> None:
    assert_type(queue.run(PHOTOS, describe), Job[Photo, str])
    assert_type(queue.run(PHOTOS, describe_later, id="a"), Job[Photo, str])
    assert_type(queue.run(PHOTOS, refuse), Job[Photo, Never])
    assert_type(queue.run(PHOTOS, describe_with, setup=load_model, timeout=1.0), Job[Photo, str])
    assert_type(queue.run([1], identity).results, list[int | None])
    assert_type(queue.start("a"), JobRun[Any, Any])
    assert_type(queue.start("a").result(), Job[Any, Any])


def check_open_jobs(queue: JobQueue) -> None:
    assert_type(queue.open_job("a", PHOTOS, describe), Job[Photo, str])
    assert_type(queue.open_job("b", PHOTOS, describe_later, max_waiting=3), Job[Photo, str])
    assert_type(queue.open_job("c", handler=describe), Job[Photo, str])
    assert_type(queue.open_job("d", handler=describe_later), Job[Photo, str])
    assert_type(queue.open_job("e", PHOTOS, describe_with, setup=load_model), Job[Photo, str])
    assert_type(queue.open_job("f", handler=describe_later_with, setup=load_model), Job[Photo, str])
    queue.create_job("g", PHOTOS, describe, max_waiting=3)  # type: ignore[call-overload]
    queue.create_job("h", handler=describe)  # type: ignore[call-overload]


def check_jobs_name_themselves(queue: JobQueue, job: Job[Photo, str], either: Job[Photo, str] | str) -> None:
    assert_type(queue.start(job), JobRun[Photo, str])
    assert_type(queue.start(job, progress=True).result(), Job[Photo, str])
    assert_type(queue.retry_failed(job, items=[0]), JobRun[Photo, str])
    assert_type(queue.load_job(job), Job[Photo, str])
    assert_type(queue.get_job(job), Job[Photo, str] | None)
    assert_type(queue.get_job("a"), Job | None)
    queue.start(either).result()
    queue.prune(job, gone=False)
    queue.start(3)  # type: ignore[arg-type]


def check_calls(executor: mpqueue.Executor) -> None:
    assert_type(executor.submit(describe_with, PHOTOS[0], model=b"").result(), str)
    assert_type(list(executor.map(describe, PHOTOS)), list[str])
    executor.submit(describe_with, PHOTOS[0], b"", 3)  # type: ignore[call-arg]


def check_unspecified(job: Job, item: JobItem, run: JobRun) -> None:
    assert_type(job, Job[Any, Any])
    assert_type(item.payload, Any)
    assert_type(run, JobRun[Any, Any])


def check_views_are_covariant(
    job: Job[bool, str], item: JobItem[bool, str]
) -> tuple[Job[int, object], JobItem[int, object]]:
    return job, item


def test_generic_classes_can_be_subscripted_when_they_run() -> None:
    assert Job[int, str].__args__ == (int, str)  # type: ignore[attr-defined]
    assert JobItem[int, str].__args__ == (int, str)  # type: ignore[attr-defined]
    assert JobRun[int, str].__args__ == (int, str)  # type: ignore[attr-defined]
    assert mpqueue.imap.__name__ == "imap"


def test_types_that_are_left_out_are_any_when_they_run_too() -> None:
    class Listed(Job[T, str]):
        pass

    assert Job[int].__args__ == JobItem[int].__args__ == (int, Any)  # type: ignore[attr-defined]
    assert Job[T][int].__args__ == (int, Any)  # type: ignore[valid-type]
    assert Listed[int].__args__ == (int,)  # type: ignore[attr-defined]
    assert JobRun[int].__args__ == (int,)  # type: ignore[attr-defined]
    for wrong in ((int, str, bytes), ()):
        with pytest.raises(TypeError, match=r"arguments|Parameter"):
            Job[wrong]  # type: ignore[valid-type]
