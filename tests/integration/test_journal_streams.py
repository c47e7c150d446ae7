"""`imap` with a journal: what has ended in an earlier run is yielded in its place, in constant memory."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

import mpqueue
from mpqueue import ItemStatus, JobQueue, JobStatus
from mpqueue.errors import JobStateError, JournalError, JournalMismatchError
from mpqueue.testing import InlinePool
from tests.support import handlers as do
from tests.support.command_line import main
from tests.support.disk import Disk
from tests.support.journals import Line, is_free, lines_of, values_of, wait_until_free
from tests.support.kinds import Calls
from tests.support.loops import in_loops
from tests.support.results import outcomes

pytestmark = pytest.mark.usefixtures("forked_workers")

both = pytest.mark.parametrize("imap", [mpqueue.imap, mpqueue.imap_unordered])


def once(handler: Any, items: Any, **options: Any) -> Any:
    """Run the stream, in no process of its own."""
    given_else: dict[str, Any] = {"concurrency": 1, "max_retries": 0, "job_id": "job", "backend": InlinePool()}
    return mpqueue.imap(handler, items, **(given_else | options))


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path)


def counts(path: Path) -> Line:
    return lines_of(path)["job"]


# -- breaking off ------------------------------------------------------------------------------------------------------


@both
def test_an_infinite_input_is_broken_off_and_goes_on(imap: Callable[..., Any], path: Path, calls: Calls) -> None:
    def run(count: int) -> list[Any]:
        results = imap(calls, itertools.count(), journal=path, job_id="job", concurrency=2, buffersize=8)
        return [*itertools.islice(results, count)]  # and it is dropped

    first = run(10)
    ran = calls.take()
    assert 10 <= len(ran) <= 18
    if imap is mpqueue.imap:
        assert first == [f"result of {number}" for number in range(10)]
    again = run(20)
    assert len(set(again)) == 20
    assert not {one.removeprefix("result of ") for one in first}.intersection(calls.take())
    wait_until_free(path)
    status, completed, failed, _ = counts(path)
    assert (status, failed) == (JobStatus.CANCELLED, 0)
    assert completed >= 20


def test_the_end_of_the_loop_and_close_leave_the_journal_to_others(path: Path, calls: Calls) -> None:
    assert len([*once(calls, range(3), journal=path)]) == 3
    with JobQueue(1, journal=path) as queue:
        assert queue.run(["a", "b"], do.succeed, id="bystander").completed == 2
    with contextlib.closing(once(calls, itertools.count(), journal=path)) as results:
        assert next(results) == "result of 0"
        with pytest.raises(JournalError, match="another queue of this process has open"):
            once(calls, range(3), journal=path)
    with JobQueue(1, journal=path) as queue:
        assert [job.id for job in queue.jobs()] == ["job", "bystander"]


@pytest.mark.slow
@in_loops
async def test_async_loops_have_the_same_results_and_wait_for_the_end(path: Path, calls: Calls) -> None:
    for _ in range(2):
        assert [each async for each in once(calls, range(4), journal=path)] == [
            f"result of {number}" for number in range(4)
        ]
    async with contextlib.aclosing(once(calls, itertools.count(), journal=path)) as results:
        async for _ in results:
            break
    assert is_free(path)
    calls.take()
    for _ in range(2):
        assert await mpqueue.amap(calls, "abca", journal=path, job_id="list", concurrency=1) == [
            f"result of {each!r}" for each in "abca"
        ]
    assert sorted(calls.take()) == sorted(map(repr, "abca"))
    with pytest.raises(JournalMismatchError):
        await mpqueue.amap(calls, "abc", journal=path, job_id="list", concurrency=1)
    assert (
        len(
            await mpqueue.amap(
                calls, "xc", journal=path, job_id="list", concurrency=1, rerun=mpqueue.Rerun(update=True)
            )
        )
        == 2
    )
    assert calls.take() == ["'x'"]
    await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("way", [mpqueue.imap, mpqueue.map])
def test_an_interruption_while_a_result_is_read_makes_no_item_run_again(
    way: Callable[..., Any], path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = partial(way, do.note_call, [1, 2], journal=path, job_id="job", concurrency=1)
    assert len([*call()]) == 2
    monkeypatch.setattr(do.Noted, "is_interrupted", True)
    with pytest.raises(KeyboardInterrupt):
        [*call()]
    monkeypatch.setattr(do.Noted, "is_interrupted", False)
    assert [result.item for result in call()] == [1, 2]
    assert [called.read_text() for called in tmp_path.glob("called-*")] == ["called ", "called "]


@pytest.mark.slow
@pytest.mark.long(but=["imap"])
@both
def test_what_is_yielded_is_on_disk(imap: Callable[..., Any], path: Path) -> None:
    results = imap(do.square, range(200), journal=path, job_id="job", concurrency=2, chunksize=3)
    for count, _ in enumerate(results, 1):
        assert counts(path)[1] >= count


# -- memory ------------------------------------------------------------------------------------------------------------


def peak(count: int, path: Path) -> int:
    """The most memory that a run of so many items takes beyond what there was, in bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        results: Any = once(make_kilobyte, iter(range(count)), journal=path, chunksize=250, buffersize=1_000)
        assert sum(len(result) for result in results) == 1_000 * count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def make_kilobyte(item: int) -> bytes:
    return item.to_bytes(4, "big") * 250


@pytest.mark.slow
@pytest.mark.long
def test_memory_depends_neither_on_what_is_recorded_nor_on_the_input(path: Path) -> None:
    """But for which items there were, less than 40 bytes each, and what is read ahead, which is a megabyte."""
    other = path.with_name("other.db")
    peak(50, path.with_name("first.db"))  # what is imported
    few, few_resumed = peak(2_000, other), peak(2_000, other)
    many, many_resumed = peak(10_000, path), peak(10_000, path)
    assert many < few + 8_000 * 40 + 1_500_000
    assert many_resumed < few_resumed + 8_000 * 40 + 1_500_000


# -- failures ----------------------------------------------------------------------------------------------------------


def test_an_item_whose_key_is_another_runs_again(path: Path, calls: Calls, tmp_path: Path) -> None:
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_text("one")
    for _ in range(2):
        assert len([*once(calls, files, journal=path, rerun=mpqueue.Rerun(key=mpqueue.content_key))]) == 2
    assert len(calls.take()) == 2
    files[0].write_text("two")
    assert len([*once(calls, files, journal=path, rerun=mpqueue.Rerun(key=mpqueue.content_key))]) == 2
    assert calls.take() == [repr(files[0])]
    files[1].unlink()
    found = outcomes(once(calls, files, journal=path, rerun=mpqueue.Rerun(key=mpqueue.content_key)))
    assert found[0] == f"result of {files[0]!r}"
    assert found[1].startswith("FileNotFoundError: [Errno 2] the key of item 1")


def text_or_number(item: str) -> Any:
    return 5 if item == "b" else "5"


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        (
            ["a", do.Unpicklable()],
            {},
            r'items\[1\].*no identity.*give each item an "id" or an .id, or leave out',
        ),
        ([{"id": "a"}, {"name": "b"}], {}, r'items\[1\]: expected an "id" key, as the first item has'),
        ([{"id": "a"}, {"id": do.Unpicklable()}], {}, "use ids that have one"),
        (
            ["a", "b"],
            {"rerun": mpqueue.Rerun(key=text_or_number)},
            "bytes or a str, got 5 for item 1",
        ),
    ],
)
def test_an_item_that_can_not_be_known_again_is_refused_in_its_place(
    path: Path, items: list[Any], options: dict[str, Any], message: str
) -> None:
    results = once(do.succeed, items, journal=path, **options)
    assert next(results) == items[0]
    with pytest.raises(TypeError, match=message):
        next(results)
    assert [*results] == []


def test_a_key_that_raises_stop_iteration_does_not_end_the_loop_silently(path: Path) -> None:
    results = once(
        do.succeed, "ab", journal=path, rerun=mpqueue.Rerun(key=lambda item: item if item == "a" else next(iter(())))
    )
    assert next(results) == "a"
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        next(results)


def test_what_a_stream_has_not_is_refused(path: Path) -> None:
    with pytest.raises(TypeError, match="job_id"):
        mpqueue.imap(do.succeed, "ab", journal=path, job_id=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="key"):
        mpqueue.imap(do.succeed, "ab", journal=path, rerun=mpqueue.Rerun(key=5))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="for a stream"):
        mpqueue.imap(do.succeed, "ab", journal=path, job_id="job", rerun=mpqueue.Rerun(redo=[1]))
    assert outcomes(once(do.only("b", do.fail), "ab", journal=path))[0] == "a"
    with JobQueue(1, journal=path) as queue:
        with pytest.raises(JournalMismatchError, match="expected a job with a list of items, got a stream"):
            queue.plan_job("job", ["a", "b"], do.succeed)
        with pytest.raises(JobStateError, match="got a stream"):
            queue.retry_failed("job")
    assert counts(path)[1:] == (1, 1, 2)


# -- a disk that fills -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_full_disk_raises_and_room_lets_it_go_on(path: Path, disk: Disk) -> None:
    results = once(do.return_value(os.urandom(2000)), range(300), journal=path, chunksize=2, buffersize=40)
    found: list[Any] = []
    disk.is_full = True
    with pytest.raises(JournalError, match="room on the disk"):
        found.extend(results)
    disk.is_full = False
    while len(found) < 300:
        with contextlib.suppress(JournalError):
            found.extend(results)
    assert counts(path).completed == 300


# -- what is in it -----------------------------------------------------------------------------------------------------


class Odd(Exception):
    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{number} {text}")


def make(item: dict[str, Any]) -> Any:
    match item["id"]:
        case "array":
            return np.full(40_000, item["value"])
        case "object":
            return complex(item["value"]), {item["value"]}
        case "odd":
            raise Odd(1, "odd")
        case _:
            return item["value"]


def test_all_of_a_stream_is_kept_pruned_and_cleared(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [{"id": name, "value": 1} for name in ("array", "object", "odd", "int")]
    for _ in range(2):
        found = [*once(make, items, journal=path, on_error="collect")]
        assert (found[0].tolist(), found[1], found[3]) == ([1] * 40_000, (1 + 0j, {1}), 1)
        assert "1 odd" in str(found[2])
    assert len(values_of(path)) == 1
    items[0]["value"] = 2
    assert len([*once(make, items, journal=path, on_error="skip")]) == 3
    with JobQueue(1, journal=path) as queue:
        assert len(values_of(path)) == 2
        assert queue.prune().items == 0
        assert len(values_of(path)) == 1
        job = queue.load_job("job")
        assert {item.id: item.status for item in job.items} == {
            "array": ItemStatus.COMPLETED, "object": ItemStatus.COMPLETED,
            "odd": ItemStatus.FAILED, "int": ItemStatus.COMPLETED,
        }  # fmt: skip
        assert next(item for item in job.items if item.id == "int").payload == {"id": "int", "value": 1}
    assert main(["retry", str(path)]) != 0
    assert "got a stream" in capsys.readouterr().err
    with JobQueue(1, journal=path) as queue:
        queue.run(["a"], do.succeed, id="bystander")
        assert queue.prune(older_than=3600).jobs == 0
        queue.clear_job("job")
        assert values_of(path) == []
        assert [job.id for job in queue.jobs()] == ["bystander"]
    assert [*once(make, items[3:], journal=path)] == [1]
    with JobQueue(1, journal=path) as queue:
        assert queue.prune(older_than=0).jobs == 2
        assert queue.jobs() == []
