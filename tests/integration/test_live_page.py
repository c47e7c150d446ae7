"""The live page of a queue, by HTTP: what it tells, what it does, and how it ends."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue, JobStatus, QueueClosedError, RetryPolicy
from mpqueue._queue.job import Items
from mpqueue.events import JobProgress
from mpqueue.testing import InlinePool
from tests.support import handlers as do
from tests.support.page_results import ODD, PICTURES, return_odd, return_picture
from tests.support.pages import Visitor, visit
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    with JobQueue(2, max_retries=0) as queue:
        yield queue


@pytest.fixture
def page(queue: JobQueue) -> Visitor:
    return visit(queue.serve().url)


def fail_on_b(item: str) -> str:
    if item == "b":
        raise ValueError("not b")
    return item * 2


def invert(item: Any) -> dict[str, str]:
    return {"altText": f"{1 / item['n']}"}


# --- what is told -----------------------------------------------------------------------------------------------------


def test_a_job_is_told_from_its_start_to_its_end(queue: JobQueue, page: Visitor, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with page.stream() as stream:
        queue.create_job("job", list("abc"), do.block_until_told(gate), chunksize=1)
        stream.listen_until(lambda: stream.statuses("job") == ["pending"] * 3)
        queue.start("job")
        stream.listen_until(lambda: stream.statuses("job") == ["processing", "processing", "pending"])
        assert stream.states["job"]["counts"]["processing"] == 2
        stream.listen_until(lambda: {lane.get("item") for lane in stream.workers["lanes"]} == {0, 1})
        gate.open()
        stream.listen_until(lambda: stream.states["job"]["status"] == "completed")
        stream.listen_until(lambda: stream.statuses("job") == ["completed"] * 3)
        assert stream.items["job"][1] == {
            "id": 1,
            "index": 1,
            "label": "b",
            "status": "completed",
            "result": "b",
        }


def test_progress_is_told_in_its_wire_form(queue: JobQueue, page: Visitor) -> None:
    items = [{"id": "x", "n": 1}, {"id": "y", "n": 0}, {"id": "z", "n": 2}]
    job = queue.run(items, invert, id="job")
    event = JobProgress("job", job.status, 3, 2, 1, paused=False, items=Items(job._book.table))
    with page.stream() as stream:
        stream.listen_until(lambda: len(stream.items.get("job", ())) == 3)
    told = stream.progress[-1]
    for item in told["items"]:
        del item["index"]  # the one key more
    assert told == event.to_dict()
    assert told["items"][0]["proposedAlt"] == "1.0"


def test_items_come_all_once_and_then_those_that_changed(queue: JobQueue, page: Visitor, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    queue.create_job("job", range(500), do.block_until_told(gate), chunksize=1)
    with page.stream() as stream:
        stream.listen_until(lambda: len(stream.items.get("job", ())) == 500)
        told = len(stream.progress)
        queue.start("job")
        stream.listen_until(lambda: stream.statuses("job").count("processing") == 2)
        assert {item["index"] for event in stream.progress[told:] for item in event["items"]} == {0, 1}
        queue.cancel("job")
        gate.open()
        stream.listen_until(lambda: stream.states["job"]["status"] == "cancelled")


def test_items_that_come_while_somebody_looks_are_told(queue: JobQueue, page: Visitor) -> None:
    queue.create_job("job", handler=do.double, open=True)
    with page.stream() as stream:
        queue.start("job")
        for count in (1, 3, 50):
            queue.add_items("job", range(len(stream.items.get("job", ())), count))
            stream.listen_until(lambda count=count: stream.statuses("job") == ["completed"] * count)  # type: ignore[misc]
        queue.seal("job")
        stream.listen_until(lambda: stream.states["job"]["status"] == "completed")
    assert [item["result"] for item in stream.items["job"].values()] == [2 * item for item in range(50)]


def test_a_second_viewer_sees_the_same(queue: JobQueue, page: Visitor) -> None:
    with page.stream() as first, page.stream() as second:
        run = queue.start(queue.create_job("job", range(1000), do.double).id)
        for stream in (first, second):
            stream.listen_until(lambda stream=stream: stream.statuses("job").count("completed") == 1000)  # type: ignore[misc]
        assert first.items == second.items
        assert first.items["job"][999]["result"] == 1998
    assert run.result().completed == 1000


def test_an_item_that_waits_for_its_next_try_is_told_with_its_error(queue: JobQueue, page: Visitor) -> None:
    queue.create_job("job", list("abc"), fail_on_b, retry=RetryPolicy(1, base_delay=300.0))
    with page.stream() as stream:
        queue.start("job")
        stream.listen_until(lambda: stream.statuses("job") == ["completed", "retry", "completed"])
        assert stream.items["job"][1]["error"] == "not b"
        queue.cancel("job")
        stream.listen_until(lambda: stream.states["job"]["status"] == "cancelled")


def test_failures_retries_and_what_a_worker_is_at(queue: JobQueue, page: Visitor) -> None:
    queue.create_job("job", list("abc"), fail_on_b, retry=RetryPolicy(1, base_delay=0.0))
    with page.stream() as stream:
        queue.start("job")
        stream.listen_until(lambda: stream.statuses("job") == ["completed", "failed", "completed"])
        stream.listen_until(lambda: stream.states["job"]["status"] == "completed_with_errors")
        assert stream.states["job"]["retries"] == 1
        assert stream.states["job"]["counts"] == {
            "completed": 2, "failed": 1, "retry": 0, "processing": 0, "pending": 0
        }  # fmt: skip
        stream.listen_until(lambda: [lane["pid"] for lane in stream.workers["lanes"]] == queue._host.worker_pids())


def test_an_error_that_changes_between_two_looks_is_told(queue: JobQueue, page: Visitor, tmp_path: Path) -> None:
    """The same status as before, after ``retry_failed``: the error is another one."""
    (tmp_path / "count").write_text("")

    def fail_differently(item: str) -> None:
        with (tmp_path / "count").open("a") as file:
            file.write("x")
        raise ValueError(f"time {len((tmp_path / 'count').read_text())}")

    queue.run(["a"], fail_differently, id="job")
    with page.stream() as stream:
        stream.listen_until(lambda: stream.items.get("job", {}).get(0, {}).get("error") == "time 1")
        queue.retry_failed("job").result()
        stream.listen_until(lambda: stream.items["job"][0].get("error") == "time 2")


def test_a_job_that_is_cleared_goes_and_its_id_may_come_again(queue: JobQueue, page: Visitor) -> None:
    queue.run(["a", "b"], do.succeed, id="job")
    with page.stream() as stream:
        stream.listen_until(lambda: len(stream.items.get("job", ())) == 2)
        queue.clear_job("job")
        queue.create_job("job", list("xyz"), do.succeed)
        stream.listen_until(lambda: stream.statuses("job") == ["pending"] * 3)
    assert "job:gone" in stream.names


def test_results_that_are_long_or_odd_do_no_harm(queue: JobQueue, page: Visitor) -> None:
    job = queue.run(range(len(ODD)), return_odd, id="job")
    assert job.failed == 0
    with page.stream() as stream:
        stream.listen_until(lambda: len(stream.items.get("job", ())) == len(ODD))
    for index, part in enumerate(ODD):
        told = str(stream.items["job"][index]["result"])
        assert part in told
        assert len(told) < 500
    details = f"jobs/{stream.states['job']['number']}/items"
    assert len(page.get(f"{details}/1")["result"]) > 10_000
    assert "BadRepr" in page.get(f"{details}/5")["result"]


# --- one item -----------------------------------------------------------------------------------------------------


def test_an_item_is_told_with_all_that_is_known_of_it(queue: JobQueue, page: Visitor) -> None:
    def speak_and_fail(item: str) -> str:
        print("I am", item)
        return fail_on_b(item)

    job = queue.run(list("abc"), speak_and_fail, id="job", capture_output=True)
    state = page.get("jobs")[0]
    failed = page.get(f"jobs/{state['number']}/items/1")
    assert (failed["status"], failed["error"], failed["attempts"]) == ("failed", "ValueError: not b", 1)
    assert "fail_on_b" in failed["traceback"]
    assert failed["stdout"] == "I am b\n"
    assert failed["payload"] == "'b'"
    assert failed["history"] == [
        {
            "error": "ValueError: not b",
            "duration": round(job.items[1].elapsed, 6),
            "pid": failed["history"][0]["pid"],
        }
    ]
    assert failed["history"][0]["pid"] in queue._host.worker_pids()
    good = page.get(f"jobs/{state['number']}/items/0")
    assert (good["result"], good["picture"], good["history"]) == ("aa", False, [])


def test_the_picture_in_a_result_is_shown(queue: JobQueue, page: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    assert queue.run(range(len(PICTURES)), return_picture, id="job").failed == 0
    jobs = f"jobs/{page.get('jobs')[0]['number']}/items"
    for index, media_type in enumerate(PICTURES):
        answer = page.ask(f"{jobs}/{index}/picture")
        assert (answer.status, answer.headers["Content-Type"]) == (
            (404, "application/json") if media_type is None else (200, media_type)
        )
        assert page.get(f"{jobs}/{index}")["picture"] is (media_type is not None or index == len(PICTURES) - 1)
    assert "could not be made" in caplog.text  # of the one that broke
    assert page.ask(f"{jobs}/99/picture").status == page.ask(f"{jobs}/99").status == 404


# --- the buttons --------------------------------------------------------------------------------------------------


def test_a_job_is_paused_resumed_and_cancelled(queue: JobQueue, page: Visitor, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    run = queue.start(queue.create_job("job", range(10), do.block_until_told(gate), chunksize=1).id)
    bystander = queue.create_job("bystander", ["x", "y"], do.succeed)
    gate.wait_for(0, 1)
    job = page.get("jobs")[0]["number"]
    assert page.post(f"jobs/{job}/pause").status == 200
    assert page.get("jobs")[0]["status"] == run.job.status == "paused"
    assert page.post(f"jobs/{job}/resume").status == 200
    assert page.get("jobs")[0]["status"] == "running"
    assert page.post(f"jobs/{job}/cancel", kill=True).status == 200
    assert run.result().status is JobStatus.CANCELLED
    assert bystander.status is JobStatus.PENDING
    gate.open()


def test_failed_items_run_again(queue: JobQueue, page: Visitor) -> None:
    job = queue.run(list("abc"), fail_on_b, id="job")
    state = page.get("jobs")[0]
    assert page.post(f"jobs/{state['number']}/retry-failed").status == 200
    wait_until(lambda: job.status is JobStatus.COMPLETED_WITH_ERRORS and len(job.items[1].history) == 2)
    assert job.results == ["aa", None, "cc"]


@pytest.mark.parametrize(
    ("action", "status"), [("pause", 409), ("resume", 409), ("explode", 404), ("retry-failed", 409)]
)
def test_what_can_not_be_done_is_said(queue: JobQueue, page: Visitor, action: str, status: int) -> None:
    job = queue.create_job("job", ["a", "b"], do.succeed)
    answer = page.post(f"jobs/{page.get('jobs')[0]['number']}/{action}")
    assert answer.status == status
    assert answer.json["error"]
    assert job.status is JobStatus.PENDING
    assert page.post("jobs/77/cancel").status == 404


def test_workers_come_and_go(queue: JobQueue, page: Visitor) -> None:
    queue.run(["a", "b"], do.succeed)
    assert page.post("workers", concurrency=3).status == 200
    assert queue.concurrency == 3
    for wrong in (0, -1, 1.5, "2", True, None, 10**9):
        answer = page.post("workers", concurrency=wrong)
        assert answer.status == 400, wrong
        assert answer.json["error"]
    assert queue.concurrency == 3
    assert page.post("workers", concurrency=1).status == 200
    wait_until(lambda: len(queue._engine.lanes_now()) == 1)


def wait_deep(gate: Gate) -> Any:
    def wait_here(item: str) -> str:
        result: str = do.block_until_told(gate)(item)
        return result

    return wait_here


def test_where_every_worker_is_can_be_seen_and_none_is_the_worse_for_it(
    queue: JobQueue, page: Visitor, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    assert page.post("stacks").json == {"workers": []}
    run = queue.start(queue.create_job("job", ["a", "b"], wait_deep(gate), chunksize=1, max_retries=0))
    gate.wait_for_count(2)
    for _ in range(2):
        workers = page.post("stacks").json["workers"]
        assert [one["worker"] for one in workers] == [0, 1]
        assert all("in wait_here" in one["stack"] and "serving.py" not in one["stack"] for one in workers)
    pid = queue._host.worker_pids()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: page.post("stacks").json["workers"][0]["stack"] is None)
    finally:
        os.kill(pid, signal.SIGCONT)
    gate.open()
    assert run.result().results == ["a", "b"]
    assert [one["stack"] for one in page.post("stacks").json["workers"]] == ["", ""]


def test_workers_of_an_engine_stay_as_they_are() -> None:
    with JobQueue(1, backend=InlinePool()) as queue:
        page = visit(queue.serve().url)
        answer = page.post("workers", concurrency=2)
        assert (answer.status, queue.concurrency) == (400, 1)
        assert "expected an engine with workers of the queue's own" in answer.json["error"]
        answer = page.post("stacks")
        assert answer.status == 409
        assert "expected an engine with workers of the queue's own" in answer.json["error"]


# --- the end ------------------------------------------------------------------------------------------------------


def test_closing_the_queue_tells_the_last_state_and_ends_the_stream() -> None:
    queue: Any = JobQueue(2)
    page = queue.serve()
    with visit(page.url).stream() as stream:
        run = queue.start(queue.create_job("job", range(3000), do.double).id)
        closer = threading.Thread(target=queue.close)
        closer.start()
        while not stream.ended:
            stream.next()
        closer.join()
    assert run.job.completed == 3000
    assert stream.names[-1] == "closed"
    assert stream.states["job"]["status"] == "completed"
    assert stream.statuses("job") == ["completed"] * 3000
    assert not [thread for thread in threading.enumerate() if "page" in thread.name]
    with pytest.raises(QueueClosedError):
        queue.serve()


@pytest.mark.parametrize("kwargs", [{"kill": True}, {"wait": False}])
def test_closing_in_other_ways_closes_the_page_too(kwargs: Any, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    queue = JobQueue(1)
    visitor = visit(queue.serve().url)
    queue.start(queue.create_job("job", ["a", "b"], do.block_until_told(gate), chunksize=1).id)
    gate.wait_for("a")
    with visitor.stream() as stream:
        queue.close(**kwargs)
        gate.open()
        while not stream.ended:
            stream.next()
    assert stream.states["job"]["status"] == "cancelled"


def test_a_page_can_be_closed_alone_and_another_opened(queue: JobQueue) -> None:
    page = queue.serve()
    address = visit(page.url)
    page.close()
    page.close()
    with pytest.raises(ConnectionRefusedError):
        address.ask("jobs")
    assert "closed" in repr(page)
    assert queue.run(["a", "b"], do.succeed).results == ["a", "b"]
    assert visit(queue.serve().url).get("jobs")[0]["completed"] == 2


def test_a_page_does_not_keep_its_queue_alive() -> None:
    queue = JobQueue(1)
    page = queue.serve()
    queue.run(["a"], do.succeed)
    gone = weakref.ref(queue)
    del queue
    gc.collect()
    assert gone() is None
    wait_until(lambda: "closed" in repr(page), what="the page to end")


def test_a_port_that_is_taken_is_said_at_once(queue: JobQueue) -> None:
    port = int(visit(queue.serve().url).netloc.rpartition(":")[2])
    with pytest.raises(OSError, match=f"port {port}.*port=0 takes a free one"):
        queue.serve(port=port)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"port": 70_000}, ValueError),
        ({"port": "80"}, TypeError),
        ({"host": 7}, TypeError),
        ({"hosts": "name"}, TypeError),
        ({"hosts": [7]}, TypeError),
    ],
)
def test_addresses_that_are_none_are_refused(queue: JobQueue, arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="expected"):
        queue.serve(**arguments)


def test_nothing_is_logged_when_all_is_well(queue: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        page = queue.serve()
        with visit(page.url).stream() as stream:
            stream.next()
        page.close()
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
