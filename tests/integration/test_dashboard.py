"""``mpqueue dashboard run.db``: a journal on the live page, also while another program writes it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue
from tests.support import handlers as do
from tests.support.command_line import run_command
from tests.support.pages import Visitor, dashboard, visit
from tests.support.programs import PATIENCE
from tests.support.waiting import Gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


def record(path: Path, job_id: str, items: Any, handler: Any, **options: Any) -> None:
    with JobQueue(1, journal=path, max_retries=0) as queue:
        queue.create_job(job_id, items, handler, **options)
        queue.start(job_id).result()


@contextmanager
def watched(*journals: object, folder: Path) -> Iterator[Visitor]:
    """The command, running, and somebody who asks it."""
    with dashboard(*journals, folder=folder) as (url, _):
        yield visit(url)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_jobs_items_failures_reports_and_comparisons_of_a_journal_that_stays_as_it_is(
    tmp_path: Path, path: Path
) -> None:
    record(path, "first", ["a", "b", "c"], do.only("b", do.fail))
    record(path, "second", ["a", "b", "c"], do.only("c", do.fail))
    with JobQueue(1, journal=path) as queue:
        queue.create_job("never", ["x"], do.succeed)
    before = files_of(tmp_path)
    with watched(path, folder=tmp_path) as visitor:
        jobs = {job["jobId"]: job for job in visitor.get("jobs")}
        assert {job_id: (job["status"], job["completed"], job["failed"]) for job_id, job in jobs.items()} == {
            "first": ("completed_with_errors", 2, 1),
            "second": ("completed_with_errors", 2, 1),
            "never": ("pending", 0, 0),
        }
        first, second = jobs["first"]["number"], jobs["second"]["number"]
        assert [row["status"] for row in visitor.items(first)] == ["completed", "failed", "completed"]
        assert visitor.get(f"jobs/{first}/labels?items=1,7") == {"1": "b"}
        assert visitor.get(f"jobs/{first}/items/1")["payload"] == "'b'"
        assert visitor.get(f"jobs/{first}/items?limit=1")["matching"] == 3
        for absent in ("items/7", "items/7/picture", "items/0/picture"):
            assert visitor.ask(f"jobs/{first}/{absent}").status == 404
        assert "cannot do 'b'" in visitor.get(f"jobs/{first}/items/1")["error"]
        assert len(visitor.get(f"jobs/{first}/failures")["groups"]) == 1
        report = visitor.ask(f"jobs/{first}/report")
        assert (report.status, b"How long items took" in report.body) == (200, True)
        assert b"worker" not in report.body.partition(b"<footer>")[0].partition(b"<main>")[2]
        assert visitor.ask(f"jobs/{jobs['never']['number']}/report").status == 404
        compared = visitor.get(f"jobs/{first}/compare/{second}")
        assert (compared["matched"], compared["changed"]) == (3, 2)
        refused = visitor.post(f"jobs/{first}/retry-failed")
        assert (refused.status, "which is only shown" in refused.json["error"]) == (409, True)
        assert visitor.post("workers", concurrency=3).status == 409
        assert visitor.post("stacks").status == 409
    assert files_of(tmp_path) == before


@pytest.mark.long
def test_a_job_goes_on_while_it_is_watched_and_its_writer_is_not_disturbed(tmp_path: Path, path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with JobQueue(1, journal=path, max_retries=0) as queue:
        job = queue.create_job("job", range(5), do.only(3, do.block_until_told(gate), do.only(1, do.fail)), chunksize=1)
        with watched(path, folder=tmp_path) as visitor, visitor.stream() as stream:
            run = queue.start("job")
            gate.wait_for(3)
            stream.listen_until(lambda: stream.states.get("job", {}).get("completed") == 2)
            assert stream.states["job"]["status"] == "running"
            assert [row["status"] for row in stream.items("job")][:3] == ["completed", "failed", "completed"]
            gate.open()
            run.result()
            assert (job.completed, job.failed) == (4, 1)
            stream.listen_until(lambda: stream.states["job"]["status"] == "completed_with_errors")
            assert stream.statuses("job") == ["completed", "failed", "completed", "completed", "completed"]
            queue.create_job("another", [1], do.succeed)
            queue.clear_job("job")
            stream.listen_until(lambda: [*stream.states] == ["another"])


def test_a_job_whose_program_was_killed_is_shown_as_interrupted(tmp_path: Path, path: Path) -> None:
    program = (
        "import os\nfrom mpqueue import JobQueue\n"
        f"queue = JobQueue(1, journal={str(path)!r})\n"
        "def wait(item):\n    import threading\n    return item if item < 2 else threading.Event().wait(300)\n"
        "queue.create_job('job', range(9), wait, chunksize=1)\nrun = queue.start('job')\n"
        "for item in run.as_completed():\n    item.id == 1 and os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=False, timeout=PATIENCE)
    with watched(path, folder=tmp_path) as visitor:
        (job,) = visitor.get("jobs")
        assert job["status"] == "pending"
        assert job["startedAt"] is not None, "by which the page knows that it was interrupted"
        assert job["completed"] >= 1
        refused = visitor.ask(f"jobs/{job['number']}/report")
        assert refused.status == 404


def test_several_journals_are_side_by_side(tmp_path: Path) -> None:
    for name, bad in (("yesterday.db", "a"), ("today.db", "b")):
        record(tmp_path / name, "job", ["a", "b"], do.only(bad, do.fail))
    with watched("yesterday.db", "today.db", folder=tmp_path) as visitor:
        jobs = visitor.get("jobs")
        assert [job["jobId"] for job in jobs] == ["job (yesterday.db)", "job (today.db)"]
        compared = visitor.get(f"jobs/{jobs[0]['number']}/compare/{jobs[1]['number']}")
        assert [run["jobId"] for run in compared["runs"]] == ["job (yesterday.db)", "job (today.db)"]
        assert [[run["status"] for run in item["runs"]] for item in compared["items"]] == [
            ["failed", "completed"],
            ["completed", "failed"],
        ]


def test_a_file_that_goes_leaves_what_was_known(tmp_path: Path, path: Path) -> None:
    record(path, "job", ["a"], do.succeed)
    with dashboard(path, folder=tmp_path) as (url, program):
        visitor = visit(url)
        path.rename(tmp_path / "elsewhere.db")
        with visitor.stream() as stream:  # by which the page looks at the file now and then
            stream.listen_until(lambda: stream.states.get("job"))
            assert program.stderr is not None
            assert "Ctrl-C" in program.stderr.readline()
            assert "expected a journal, got a name that is not there" in program.stderr.readline()
        assert [job["jobId"] for job in visitor.get("jobs")] == ["job"]


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, path: Path) -> None:
    record(path, "job", ["a"], do.succeed)
    (tmp_path / "uvicorn.py").write_text("raise ImportError('none here')")
    done = run_command(tmp_path, "dashboard", "run.db", code=2)
    assert done.stderr.count("\n") == 1
    assert "pip install 'mpqueue[dashboard]'" in done.stderr
