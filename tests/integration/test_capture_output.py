"""``capture_output=True``: what an item writes to stdout and stderr is kept with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue, RetryPolicy, Stage, WorkerCrashedError, current_item
from tests.support import handlers as do
from tests.support.programs import run_program
from tests.support.systems import LINUX_ONLY, not_on_windows
from tests.support.this_system import IS_WINDOWS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

AT_ONCE = RetryPolicy(3, base_delay=0)


def talk(item: Any) -> Any:
    print("out", item)
    print("err", item, file=sys.stderr)
    return item


class Speaks:
    """Writes while it is pickled."""

    def __init__(self, item: int) -> None:
        self.item = item

    def __reduce__(self) -> Any:
        print("pickled", self.item)
        return Speaks, (self.item,)


@pytest.mark.parametrize("chunksize", [None, 1, 100])
def test_each_item_has_what_it_wrote_also_while_its_result_was_pickled(chunksize: int | None) -> None:
    def handle(item: int) -> Any:
        talk(item)
        return Speaks(item) if item % 3 else item

    with JobQueue(2) as queue:
        job = queue.run(range(300), handle, capture_output=True, chunksize=chunksize)
    assert [item.stdout for item in job.items] == [
        f"out {number}\n" + (f"pickled {number}\n" if number % 3 else "") for number in range(300)
    ]
    assert [item.stderr for item in job.items] == [f"err {number}\n" for number in range(300)]


def test_a_try_that_killed_its_worker_has_no_output_nor_that_of_the_try_before(tmp_path: Path) -> None:
    def handle(item: str) -> None:
        print("try", current_item().attempt)
        if current_item().attempt == 1:
            raise ValueError
        os._exit(1)

    journal = tmp_path / "journal.db"
    # The wait between the tries lets the journal write a row for each.
    with JobQueue(1, retry=RetryPolicy(1, base_delay=0.1), journal=journal) as queue:
        (live,) = queue.run(["a"], handle, id="job", capture_output=True).items
    with JobQueue(1, journal=journal) as queue:
        (read,) = queue.load_job("job").items
    for item in (live, read):
        assert (item.attempts, item.stdout, item.stderr) == (2, None, None)
        assert isinstance(item.exception, WorkerCrashedError)


def test_a_later_run_without_the_option_leaves_no_output_of_an_earlier_one(tmp_path: Path) -> None:
    journal, mended = tmp_path / "journal.db", tmp_path / "mended"

    def handle(item: str) -> str:
        print("try")
        if item == "b" and not mended.exists():
            raise ValueError
        return item

    with JobQueue(1, max_retries=0, journal=journal) as queue:
        queue.run(["a", "b"], handle, id="job", capture_output=True)
    mended.touch()
    with JobQueue(1, max_retries=0, journal=journal) as queue:
        job = queue.create_job("job", ["a", "b"], handle)
        assert [item.stdout for item in job.items] == ["try\n", "try\n"]
        queue.retry_failed("job").result()
        assert [(item.stdout, item.stderr) for item in job.items] == [("try\n", ""), (None, None)]
    with JobQueue(1, journal=journal) as queue:
        items = queue.load_job("job").items
        assert [(item.stdout, item.stderr) for item in items] == [("try\n", ""), (None, None)]


def test_an_item_that_wrote_nothing_has_nothing_and_without_the_option_there_is_none() -> None:
    with JobQueue(1) as queue:
        quiet = queue.run(["a", "b"], do.succeed, capture_output=True)
        other = queue.run(["a", "b"], do.succeed)
        wrong: Any = "yes"
        with pytest.raises(TypeError, match="capture_output: expected True or False, got 'yes'"):
            queue.create_job("odd", ["a"], do.succeed, capture_output=wrong)
        assert queue.get_job("odd") is None
    assert [(item.stdout, item.stderr) for item in quiet.items] == [("", "")] * 2
    assert [(item.stdout, item.stderr) for item in other.items] == [(None, None)] * 2


def test_c_code_and_child_processes_are_heard() -> None:
    def handle(item: str) -> None:
        print("python", end=" ")
        sys.stdout.flush()
        ctypes.CDLL("ucrtbase" if IS_WINDOWS else None).puts(b"C")
        os.write(1, b"descriptor\n")
        subprocess.run([sys.executable, "-c", "import sys; print('child', file=sys.stderr)"], check=True)

    with JobQueue(1) as queue:
        job = queue.run(["a", "b"], handle, capture_output=True)
    for item in job.items:
        assert item.stdout is not None
        assert sorted(item.stdout.split()) == ["C", "descriptor", "python"]
        assert item.stderr == "child\n"


def test_all_that_a_thread_writes_beside_the_items_is_kept_or_shown(tmp_path: Path) -> None:
    body = r"""
        import itertools
        import os
        import sys
        import threading

        import mpqueue

        def write():
            for number in range(50_000):
                os.write(1, b"%d\n" % number)

        def handle(item):
            if not hasattr(sys, "runs"):  # chunks may run in any order
                sys.runs = itertools.count()
                sys.thread = threading.Thread(target=write)
                sys.thread.start()
            run = next(sys.runs)
            if run == 3000:
                sys.thread.join()
            return run

        if __name__ == "__main__":
            with mpqueue.JobQueue(1) as queue:
                job = queue.run(range(3001), handle, capture_output=True, max_retries=0)
            print("".join(item.stdout for item in sorted(job.items, key=lambda item: item.result)), end="")
    """
    done = run_program(tmp_path, body)
    assert sorted(map(int, done.stdout.splitlines())) == list(range(50_000))


@LINUX_ONLY  # /dev/stderr is a duplicate elsewhere
def test_items_whose_shells_write_to_dev_stderr_have_what_each_wrote() -> None:
    def handle(item: str) -> None:
        subprocess.run(f"echo {item} >/dev/stderr; echo {item}; echo more", shell=True, check=True)

    items = ["first", "other", "x", "longer than all of them", "last"]
    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(items, handle, capture_output=True)
    assert [item.stderr for item in job.items] == [f"{item}\n" for item in items]
    assert [item.stdout for item in job.items] == [f"{item}\nmore\n" for item in items]


def test_of_a_failed_item_the_last_try_s_output_is_kept() -> None:
    def handle(item: str) -> str:
        print("try", current_item().attempt)
        if item == "b":
            raise ValueError
        return item

    with JobQueue(1, retry=AT_ONCE) as queue:
        job = queue.run(list("abc"), handle, capture_output=True)
    assert [item.stdout for item in job.items] == ["try 1\n", "try 4\n", "try 1\n"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_text_is_kept_that_was_not_flushed_when_its_item_closed_the_descriptor(
    unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)

    def handle(item: int) -> int:
        # As it is without PYTHONUNBUFFERED.
        sys.stdout.reconfigure(write_through=False)  # type: ignore[union-attr]
        print("out", item, end="")
        if item % 100 == 7:  # some are in the middle of a stretch
            os.close(1)
        return item

    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(range(1000), handle, capture_output=True)
    assert [item.stdout for item in job.items] == [f"out {number}" for number in range(1000)]


def test_stages_and_coroutines_may_close_what_they_write_to() -> None:
    bad = do.only(7, do.close_stdout_and_its_fd, talk)

    async def close_later(item: int) -> Any:
        return bad(item)

    with JobQueue(1, max_retries=0) as queue:
        stages = queue.run_stages(range(20), [Stage(bad, capture_output=True), abs])
        coroutines = queue.run(range(20), close_later, capture_output=True)
    assert stages.results == coroutines.results == list(range(20))
    written = [item.stdout for item in coroutines.items if item.id != 7]
    assert written == [f"out {number}\n" for number in range(20) if number != 7]


def test_a_job_is_heard_after_an_item_of_another_one_has_closed_the_stream_and_the_descriptor() -> None:
    def close_with_text_in_it(item: str) -> str:
        # As it is without PYTHONUNBUFFERED.
        sys.stdout.reconfigure(write_through=False)  # type: ignore[union-attr]
        print("never seen", end="")
        os.close(1)
        return item

    with JobQueue(1, max_retries=0) as queue:
        queue.run(["a"], close_with_text_in_it)
        heard = queue.run(["b"], talk, capture_output=True)
        queue.run(["c"], do.close_standard_streams)
        heard_again = queue.run(["d"], talk, capture_output=True)
    assert (heard.items[0].stdout, heard.items[0].stderr) == ("out b\n", "err b\n")
    assert (heard_again.items[0].stdout, heard_again.items[0].stderr) == ("out d\n", "err d\n")


@not_on_windows("no limit of descriptors")
def test_a_worker_with_no_descriptor_left_keeps_no_output_and_fails_no_item() -> None:
    def use_up(item: str) -> str:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        kept: list[int] = []
        with contextlib.suppress(OSError):
            while True:
                kept.append(os.open(os.devnull, os.O_RDONLY))
        sys.kept_open = kept  # type: ignore[attr-defined]
        return item

    def give_back(item: str) -> str:
        for fd in sys.kept_open:  # type: ignore[attr-defined]
            os.close(fd)
        return item

    with JobQueue(1, max_retries=0) as queue:
        queue.run(["a"], use_up)
        unheard = queue.run(["b"], talk, capture_output=True)
        queue.run(["c"], give_back)
        heard = queue.run(["d"], talk, capture_output=True)
    assert unheard.results == ["b"]
    assert (heard.results, heard.items[0].stdout) == (["d"], "out d\n")


def test_a_stream_of_a_handler_that_raises_at_all_fails_no_item() -> None:
    with JobQueue(1, max_retries=0) as queue:
        job = queue.run(range(20), do.only(7, do.put_harmful_stdout, do.succeed), capture_output=True)
    assert job.results == list(range(20))


def test_coroutines_and_functions_that_return_one_are_heard() -> None:
    async def handle(item: str) -> str:
        print("in", item)
        return item

    with JobQueue(1) as queue:
        first = queue.run(["a", "b"], handle, capture_output=True)
        second = queue.run(["a", "b"], lambda item: handle(f"{item}"), capture_output=True)
    for job in (first, second):
        assert job.results == ["a", "b"]
        assert [item.stdout for item in job.items] == ["in a\n", "in b\n"]


def test_bytes_that_are_no_text_are_replaced() -> None:
    with JobQueue(1) as queue:
        job = queue.run(["a"], lambda item: os.write(1, b"\xff!"), capture_output=True)
    assert job.items[0].stdout == "\ufffd!"


def test_other_jobs_write_where_they_ever_did(tmp_path: Path) -> None:
    body = """
        import mpqueue

        with mpqueue.JobQueue(1) as queue:
            job = queue.run(list("ab"), print, capture_output=True)
            queue.run(list("cd"), print)
        print([item.stdout for item in job.items])
    """
    done = run_program(tmp_path, body)
    assert sorted(done.stdout.splitlines()) == ["['a\\n', 'b\\n']", "c", "d"]


def test_progress_events_have_it_too() -> None:
    told: list[Any] = []
    with JobQueue(1, retry=AT_ONCE) as queue:
        queue.on("job:progress", lambda progress: told.append((progress.item.id, progress.item.stdout)))
        queue.run(["a", "b"], do.only("b", do.fail, talk), capture_output=True)
    assert told == [(0, "out a\n"), (1, "")]
