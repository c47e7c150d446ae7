"""What is read of a journal is of one moment, whatever a program writes there meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue
from mpqueue._core.state.item_table import make_table
from mpqueue._os.monotonic import monotonic
from mpqueue._parent.journal import journal_reader
from mpqueue._parent.journal.journal_file import folder_of
from mpqueue._parent.journal.journal_reader import Reader
from mpqueue._parent.journal.kept_values import BIG
from mpqueue._queue.job import Job
from mpqueue._queue.new_job import record_options
from mpqueue._queue.recorded import job_plan
from mpqueue._queue.recorded.journal_view import JournalView
from mpqueue._queue.recorded.recorded_book import RecordedBook
from mpqueue.errors import JournalError, RemoteError
from mpqueue.status import COMPLETED

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

COUNT = 600  # more than one block of slots


def times_ten(item: dict[str, Any]) -> int:
    return int(item["v"]) * 10


def times_hundred(item: dict[str, Any]) -> int:
    return int(item["v"]) * 100


def in_order(order: Any) -> list[dict[str, Any]]:
    return [{"id": f"k{v}", "v": v} for v in order]


def once(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[], object]) -> None:
    """Have this happen in the midst of a look: just before the reader calls that function for the first time."""
    function, happened = getattr(journal_reader, name), list[bool]()

    def after_the_change(*arguments: Any) -> Any:
        if not happened:
            happened.append(True)
            change()
        return function(*arguments)

    monkeypatch.setattr(journal_reader, name, after_the_change)


def job_of(path: str) -> Job[Any, Any]:
    reader = Reader(path)
    line = reader.find("job")
    assert line is not None
    return Job(RecordedBook(reader, line))


def test_items_that_come_in_another_order_while_they_are_read_keep_their_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "run.db")
    with JobQueue(1, journal=path) as queue:
        queue.run(in_order(range(COUNT)), times_ten, id="job")
    with JobQueue(1, journal=path) as queue:
        once(
            monkeypatch,
            "read_payloads",
            lambda: queue.create_job("job", in_order(range(COUNT)[::-1]), times_ten, update=True, replace=True),
        )
        job = job_of(path)
        assert [(item.id, item.payload["v"], item.result) for item in job.items] == [
            (f"k{v}", v, v * 10) for v in range(COUNT)
        ]
        assert [item.id for item in job_of(path).items] == [f"k{v}" for v in range(COUNT)[::-1]]


def test_a_job_whose_items_are_read_later_says_of_itself_what_they_say(tmp_path: Path) -> None:
    path = str(tmp_path / "run.db")
    with JobQueue(1, journal=path) as queue:
        queue.run(in_order(range(10)), times_ten, id="job")
        job = job_of(path)
        assert (job.total, job.completed, job.status) == (10, 10, "completed")
        queue.create_job("job", in_order(range(30)), times_ten, update=True, replace=True)
        assert [item.id for item in job.items] == [f"k{v}" for v in range(30)]
        assert (job.total, job.completed, job.status) == (30, 10, "pending")
        gone = job_of(path)
        queue.clear_job("job")
        with pytest.raises(JournalError, match="expected job 'job', which has been removed from it"):
            _ = gone.items[0].payload


def test_an_item_never_runs_again_with_the_handler_of_a_later_job(tmp_path: Path) -> None:
    path = str(tmp_path / "run.db")
    with JobQueue(1, journal=path) as queue:
        queue.run(in_order(range(3)), times_ten, id="job")
        job = job_of(path)
        assert job.items[2].replay() == 20
        queue.run(in_order(range(3)), times_hundred, id="job", update=True, replace=True, version="2")
        with pytest.raises(JournalError, match=r"was created anew meanwhile; get it again, with get_job\(\) say"):
            job.items[2].replay()
        assert job_of(path).items[2].replay() == 200


def big_error(item: dict[str, Any]) -> int:
    raise ValueError(b"x" * BIG)


def test_a_look_that_names_a_file_which_was_pruned_since_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "run.db")
    with JobQueue(1, journal=path) as queue:
        queue.run(in_order([1, 2]), big_error, id="job", max_retries=0)
        assert any(folder_of(path).iterdir())

        def run_again() -> None:
            queue.run(in_order([1, 2]), times_ten, id="job", update=True, replace=True, redo="all")
            queue.prune("job")
            assert not any(folder_of(path).iterdir())

        once(monkeypatch, "_read", run_again)
        with caplog.at_level(logging.WARNING, logger="mpqueue"):
            job = job_of(path)
            assert [(item.status, item.result, item.error) for item in job.items] == [
                ("completed", 10, None),
                ("completed", 20, None),
            ]
        assert not caplog.records


def test_a_file_that_is_really_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "run.db")
    with JobQueue(1, journal=path) as queue:
        queue.run(in_order([1, 2]), big_error, id="job", max_retries=0)
        for file in folder_of(path).iterdir():
            file.unlink()
        job = job_of(path)
        assert [item.status for item in job.items] == ["failed", "failed"]
        assert [type(item.exception) for item in job.items] == [RemoteError, RemoteError]


def test_a_plan_is_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "run.db")
    with JobQueue(1, journal=path) as queue:
        queue.run(in_order(range(10)), times_ten, id="job")
        reader = Reader(path)
        line = reader.find("job")
        queue.run(in_order(range(20)), times_ten, id="job", update=True, replace=True)
        found = job_plan.plan(
            reader, line, make_table(in_order(range(15))), (times_ten, None), record_options(), wants_results=True
        )
        assert (found.same, found.gone) == (tuple(f"k{v}" for v in range(15)), tuple(f"k{v}" for v in range(15, 20)))


def big_result(item: dict[str, Any]) -> bytes:
    return b"x" * BIG


def test_a_job_that_is_just_being_removed_is_there_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "run.db")
    with JobQueue(1, journal=path) as queue:
        queue.run(in_order([1]), big_result, id="job")
    unlink, found = Path.unlink, list[Any]()
    with JobQueue(1, journal=path) as queue:

        def unlink_later(file: Path, missing_ok: bool = False) -> None:
            if file.parent == folder_of(path):  # the job's line is gone, and its files are to go
                found.append(queue.get_job("job"))
            unlink(file, missing_ok)

        monkeypatch.setattr(Path, "unlink", unlink_later)
        queue.clear_job("job")
        assert found == [None]
        assert queue.get_job("job") is None
        assert not any(folder_of(path).iterdir())


def test_a_page_never_keeps_items_that_were_being_read_when_the_journal_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, later = str(tmp_path / "run.db"), monotonic() + 1000.0
    with JobQueue(1, journal=path) as queue:
        queue.create_job("job", in_order(range(20)), times_ten)
        view = JournalView([path])
        (shown,) = view.books()

        def look_again() -> None:
            """The job runs, and another thread of the page looks at the journal."""
            queue.start("job").result()
            monkeypatch.setattr(view._clock, "now", lambda: later)
            looker = threading.Thread(target=view.books)
            looker.start()
            looker.join()

        once(monkeypatch, "KeptResults", look_again)
        assert shown.table.status.count(COMPLETED) == 0
        assert (shown.status, shown.completed) == ("completed", 20)
        assert shown.table.status.count(COMPLETED) == 20


def test_a_job_whose_items_only_come_in_another_order_is_shown_in_it(tmp_path: Path) -> None:
    path, orders = str(tmp_path / "run.db"), [[1, 3, 2], [3, 2, 1]]
    with JobQueue(1, journal=path) as queue:
        queue.run(in_order([1, 2, 3]), times_ten, id="job")
    view = JournalView([path])
    known = []
    for order in orders:
        with JobQueue(1, journal=path) as queue:
            queue.create_job("job", in_order(order), times_ten, update=True)
        with JobQueue(1, journal=path) as queue:
            known.append(job_of(path))
            view._look()
            (shown,) = view.books()
            for job in (known[-1], Job(shown)):
                assert [(item.payload["v"], item.result) for item in job.items] == [(v, v * 10) for v in order]
