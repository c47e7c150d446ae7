"""A list of items that changes from start to start, and a journal: whose results are whose."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import JobPlan, JobQueue, current_item
from mpqueue.errors import JournalMismatchError
from tests.support import handlers as do
from tests.support.command_line import main
from tests.support.journals import lines_of, queue_of, rows_of, told
from tests.support.kinds import EACH_KIND, JOB, KINDS, Calls, Kind
from tests.support.programs import run_program
from tests.support.systems import not_on_windows

pytestmark = pytest.mark.usefixtures("forked_workers")


def draw(_: object) -> int:
    """A random number of the item's own."""
    return int(current_item().rng.integers(1 << 60))


@EACH_KIND
def test_random_numbers_follow_the_item(kind: Kind, tmp_path: Path) -> None:
    def drawn(items: str, **options: Any) -> dict[str, int]:
        return dict(zip(items, kind.run(draw, [*items], tmp_path / "run.db", **options), strict=True))

    first = drawn("abcd", seed=7)
    again = drawn("dcnab", seed=7, rerun=mpqueue.Rerun(version="2"))
    if kind.name != "open":  # whose numbers go by the order in which items came
        assert {item: again[item] for item in first} == first
    assert len(set(again.values())) == 5


@pytest.mark.slow
@pytest.mark.parametrize("key", [mpqueue.file_key, mpqueue.content_key])
def test_a_file_that_has_changed_is_done_again_also_if_it_changed_meanwhile(tmp_path: Path, key: Any) -> None:
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_text("before")

    def run(*change: Path) -> int:
        with JobQueue(1, journal=tmp_path / "run.db") as queue:
            job = queue.create_job("job", files, do.succeed, rerun=mpqueue.Rerun(update=True, key=key))
            waiting = job.total - job.completed
            for file in change:
                file.write_text("after it all")
            queue.start("job").result()
            return waiting

    assert run(files[0]) == 3
    assert run() == 1
    assert run() == 0
    os.utime(files[1], ns=(1, 1))
    assert run() == (1 if key is mpqueue.file_key else 0)


def untyped_key(_: Any) -> Any:
    """No key."""
    return 3


def test_a_key_that_fails_names_the_item_and_nothing_is_created(tmp_path: Path) -> None:
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        missing = str(tmp_path / "missing")
        with pytest.raises(FileNotFoundError, match="key of item 0"):
            queue.create_job("job", [missing], do.succeed, rerun=mpqueue.Rerun(key=mpqueue.file_key))
        with pytest.raises(TypeError, match=r"expected the path of a file, got \{'path'"):
            queue.create_job("job", [{"path": missing}], do.succeed, rerun=mpqueue.Rerun(key=mpqueue.content_key))
        with pytest.raises(TypeError, match="returns bytes or a str, got 3 for item 0"):
            queue.create_job("job", [missing], do.succeed, rerun=mpqueue.Rerun(key=untyped_key))
        with pytest.raises(TypeError, match="key: expected a function"):
            queue.create_job("job", [missing], do.succeed, rerun=mpqueue.Rerun(key="file"))  # type: ignore[arg-type]
        assert queue.jobs() == []


def to_run(path: Path, items: list[Any], handler: Any = do.succeed, **options: Any) -> list[Any]:
    """The items that run; they end then."""
    with queue_of(path) as queue:
        job = queue.create_job("job", items, handler, **options)
        waiting = [item.payload for item in job.items if item.status == "pending"]
        if waiting:
            queue.start("job").result(300)
        return waiting


def test_another_kind_of_key_makes_everything_another(path: Path) -> None:
    assert to_run(path, ["a", "b"]) == ["a", "b"]
    with pytest.raises(JournalMismatchError, match="2 changed"):
        to_run(path, ["a", "b"], rerun=mpqueue.Rerun(key=str.upper))
    assert to_run(path, ["b", "a"], rerun=mpqueue.Rerun(update=True, key=str.upper)) == ["b", "a"]
    assert to_run(path, ["a", "b"], rerun=mpqueue.Rerun(key=str.upper)) == []


@pytest.mark.slow
@EACH_KIND
def test_failed_items_are_told_by_each_command_and_run_again_where_that_is_said(
    kind: Kind, tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = Calls(tmp_path)
    run, well = partial(kind.run, calls, [*range(4)], path), [f"result of {number}" for number in range(4)]
    calls.fail(2)
    failed = [*well[:2], "ValueError: not 2", well[3]]
    assert run() == failed
    assert len(calls.take()) == 4
    assert lines_of(path)[JOB] == ("completed_with_errors", 3, 1, 4)
    assert main(["failures", str(path)]) == 0
    assert "ValueError: not 2" in capsys.readouterr().out
    assert [row["error"] for row in rows_of(path, JOB) if row["status"] == "failed"] == ["ValueError: not 2"]
    assert run() == failed
    assert calls.take() == ["2"] * kind.runs_failed_again
    assert main(["prune", str(path)]) == 0
    assert run(rerun=mpqueue.Rerun(redo="failed")) == failed
    assert calls.take() == ["2"]
    calls.fail()
    assert run(rerun=mpqueue.Rerun(redo="failed")) == well
    assert calls.take() == ["2"]
    assert run() == well
    assert calls.take() == []
    assert lines_of(path)[JOB] == ("completed", 4, 0, 4)


@EACH_KIND
def test_a_job_of_another_kind_is_refused_and_the_recorded_one_stays(kind: Kind, path: Path) -> None:
    kind.run(do.succeed, ["a", "b"], path)
    before = rows_of(path, JOB)
    for other in KINDS:
        if other is not kind:
            with pytest.raises(
                JournalMismatchError, match=r"expected a.*, got a.*, which .* resumes; nothing was changed"
            ):
                other.run(do.succeed, ["a", "b"], path)
    assert (len(before), rows_of(path, JOB)) == (2, before)


@pytest.mark.slow
def test_a_plan_says_what_would_run_and_writes_nothing(path: Path) -> None:
    failing = do.only("b", do.fail_with(ValueError("no")), do.succeed)
    with JobQueue(1) as queue:
        assert queue.plan_job("job", list("abc"), failing) == JobPlan(new=(0, 1, 2), to_run=3)
    with JobQueue(1, journal=path, max_retries=0) as queue:
        assert queue.plan_job("job", list("abc"), failing, rerun=mpqueue.Rerun(update=True)) == JobPlan(
            new=(0, 1, 2), to_run=3
        )
        assert queue.jobs() == []
        queue.run(list("abc"), failing, id="job")
        queue.create_job("ids", [{"id": "a", "n": 1}, {"id": "b", "n": 1}], failing)
    before = path.read_bytes()
    with JobQueue(1, journal=path) as queue:
        plan = queue.plan_job("job", list("xba"), failing)
        assert plan == JobPlan(same=(1, 2), new=(0,), gone=("c",), failed=(1,), to_run=1)
        assert str(plan) == "2 same, 0 changed, 1 new, 1 gone, 1 failed; 1 to run"
        assert queue.plan_job("job", list("xba"), failing, rerun=mpqueue.Rerun(redo="failed")).to_run == 2
        assert queue.plan_job("job", ["b", "a"], do.succeed).code_changed
        assert queue.plan_job("job", ["b", "a"], failing, rerun=mpqueue.Rerun(version="2")).changed == (0, 1)
        plan = queue.plan_job("ids", [{"id": "a", "n": 2}, {"id": "c", "n": 1}], failing)
        assert plan == JobPlan(changed=("a",), new=("c",), gone=("b",), to_run=2)
    assert len(path.read_bytes()) == len(before)


def test_an_item_without_identity_is_refused_with_what_to_do_about_it(tmp_path: Path) -> None:
    with queue_of(tmp_path / "run.db") as queue:
        grows = queue.open_job("grows", handler=do.succeed)
        for call in (
            partial(queue.create_job, "job", handler=do.succeed),
            partial(queue.open_job, "job", handler=do.succeed),
            partial(queue.add_items, "grows"),
        ):
            with pytest.raises(TypeError, match=r'items\[1\].*no identity.*give each item an "id"'):
                call(items=[1, threading.Lock()])
        assert (queue.jobs(), grows.total) == ([grows], 0)
        assert queue.create_job("job", [{"id": 1, "lock": threading.Lock()}], do.succeed).total == 1


def test_a_job_that_could_not_be_written_to_the_end_is_none(tmp_path: Path) -> None:
    def fail_late(item: int) -> str:
        if item == 4500:
            raise OSError("no such state")
        return "state"

    with queue_of(tmp_path / "run.db") as queue:
        with pytest.raises(OSError, match="the key of item 4500: no such state"):
            queue.create_job("job", range(5000), do.succeed, rerun=mpqueue.Rerun(key=fail_late))
        assert queue.jobs() == []
        assert queue.create_job("job", range(5000), do.succeed).total == 5000


#: Creates a job, or gives one more items, in processes each of which ends at another commit.
HALFWAY = """
import sys
from pathlib import Path
from mpqueue import JobQueue, Rerun
from mpqueue.testing import InlinePool
from tests.support.ended_early import end_at_each

def create(folder):
    with JobQueue(1, journal=folder / "run.db", backend=InlinePool()) as queue:
        numbers = range(70_000)
        items = [{"id": n} for n in numbers] if sys.argv[2] == "True" else numbers
        queue.create_job("job", items, abs, rerun=Rerun(update=True))

folder = Path(sys.argv[1])
print(end_at_each(folder / "made", folder, create, lambda sql: sql == "COMMIT"))
"""


@pytest.mark.slow
@pytest.mark.long(but=["created-values", "updated-values"])
@not_on_windows("no forks")
@pytest.mark.parametrize("has_ids", [False, True], ids=["values", "ids"])
@pytest.mark.parametrize("is_there", [False, True], ids=["created", "updated"])
def test_a_job_whose_maker_ended_before_all_of_it_was_there_is_as_it_was(
    tmp_path: Path, is_there: bool, has_ids: bool
) -> None:
    def items(*numbers: int) -> list[Any]:
        return [{"id": number} if has_ids else number for number in numbers]

    made = tmp_path / "made" / "run.db"
    made.parent.mkdir()
    with queue_of(made) as queue:
        before = told(queue.run(items(0, 1, 2, 3), do.succeed, id="job")) if is_there else None
    steps = int(run_program(tmp_path, HALFWAY, tmp_path, has_ids).stdout)
    assert steps > 1
    for step in range(1, steps):
        with queue_of(tmp_path / str(step) / "run.db") as queue:
            job = queue.get_job("job")
            if not is_there:
                assert job is None
            elif job is not None and job.total == 4:
                assert told(job) == before
            if job is None or job.total == 4:
                again = queue.create_job("job", items(2, 50, 60_000), do.succeed, rerun=mpqueue.Rerun(update=True))
                assert (again.total, again.completed) == (3, is_there)
                assert queue.start("job").result(300).results == items(2, 50, 60_000)
