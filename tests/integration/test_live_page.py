"""The live page of a queue, by HTTP: what it tells, what it does, and how it ends."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import signal
import socket
import textwrap
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from mpqueue import JobQueue, JobStatus, QueueClosedError, RetryPolicy
from mpqueue.testing import InlinePool
from tests.support import handlers as do
from tests.support.page_results import ODD, PICTURES, return_odd, return_picture, return_slow_repr
from tests.support.pages import Visitor, visit
from tests.support.programs import run_program
from tests.support.spinning import spin
from tests.support.strength import workers_of
from tests.support.this_system import IS_LINUX
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


# --- what is told -----------------------------------------------------------------------------------------------------


def test_a_job_is_told_from_its_start_to_its_end(queue: JobQueue, page: Visitor, gate: Gate) -> None:
    with page.stream() as stream:
        queue.create_job("job", list("abc"), do.block_until_told(gate), chunksize=1)
        stream.listen_until(lambda: stream.statuses("job") == ["pending"] * 3)
        queue.start("job")
        stream.listen_until(lambda: stream.statuses("job") == ["processing", "processing", "pending"])
        stream.listen_until(lambda: stream.states["job"]["counts"]["processing"] == 2)
        stream.listen_until(lambda: {lane.get("item") for lane in stream.workers["lanes"]} == {0, 1})
        gate.open()
        stream.listen_until(lambda: stream.states["job"]["status"] == "completed")
        stream.listen_until(lambda: stream.statuses("job") == ["completed"] * 3)
        told = stream.items("job")[1]
        assert told.pop("elapsed") > 0
        assert told == {"id": 1, "index": 1, "label": "b", "status": "completed", "attempts": 1, "result": "b"}


def test_a_page_of_a_list_says_the_same_as_its_header(queue: JobQueue, page: Visitor, gate: Gate) -> None:
    run = queue.start(queue.create_job("job", range(500), do.block_until_told(gate), chunksize=1).id)
    gate.wait_for_count(2)
    number = page.get("jobs")[0]["number"]
    for opened in (False, True):
        if opened:
            gate.open()
        while True:
            told = page.get(f"jobs/{number}/items?limit=200")
            rest = [page.get(f"jobs/{number}/items?limit=0&status={status}") for status in told["state"]["counts"]]
            counted = Counter(row["status"] for row in told["rows"])
            for status, count in told["state"]["counts"].items():
                assert counted[status] <= count
            for listed in rest:
                assert listed["matching"] in listed["state"]["counts"].values()
            if not opened or told["state"]["completed"] == 500:
                break
    assert run.result().completed == 500


def test_lists_are_filtered_searched_and_sorted_by_the_program(queue: JobQueue, page: Visitor) -> None:
    def nap(item: dict[str, Any]) -> str:
        spin(item["seconds"])
        if item["seconds"] == 0.02:
            raise ValueError("too short")
        return f"slept {item['seconds']}"

    seconds = [0.03, 0.01, 0.02, 0.04, 0.02]
    job = queue.run([{"id": f"nap-{n}", "seconds": one} for n, one in enumerate(seconds)], nap, chunksize=1)
    queue.create_job("waiting", ["a", "b"], do.succeed)
    number = page.get("jobs")[0]["number"]

    def listed(**wish: object) -> list[int]:
        return [item["index"] for item in page.items(number, **wish)]

    assert listed() == [0, 1, 2, 3, 4]
    assert listed(sort="-index") == [4, 3, 2, 1, 0]
    by_time = sorted(range(5), key=lambda index: job.items[index].elapsed)
    assert listed(sort="elapsed") == by_time
    assert listed(sort="-elapsed") == by_time[::-1]
    assert listed(status="failed") == listed(search="too SHORT") == listed(search="valueerror") == [2, 4]
    assert listed(search="slept 0.0") == [0, 1, 3]
    assert listed(search="slept nap-3") == [3]
    assert listed(status="completed", search="nap", sort="-elapsed") == [i for i in by_time[::-1] if i not in (2, 4)]
    failures = page.get(f"jobs/{number}/failures")
    (group,) = failures["groups"]
    assert failures["failed"] == group["count"] == 2
    assert (group["errorType"], group["message"]) == ("ValueError", "too short")
    assert listed(group=group["key"]) == [2, 4]
    assert listed(group="no such") == listed(status="pending") == []
    found = page.get(f"jobs/{number}/items?limit=2&offset=1&find=4&sort=-index")
    assert ([row["index"] for row in found["rows"]], found["at"], found["matching"]) == ([3, 2], 0, 5)
    assert page.get(f"jobs/{number}/items?status=failed&find=0")["at"] is None
    assert page.get(f"jobs/{number}/labels?items=0,4,99") == {"0": "nap-0", "4": "nap-4"}
    never = page.get("jobs")[1]["number"]
    assert [item["status"] for item in page.items(never, sort="-elapsed")] == ["pending"] * 2
    for wrong in ("status=odd", "sort=colour", "offset=-1", "limit=x", "find=x"):
        assert page.ask(f"jobs/{number}/items?{wrong}").status == 400
    assert page.ask(f"jobs/{number}/labels?items=x").status == 400
    for path in ("items", "labels", "failures", "throughput", "report"):
        assert page.ask(f"jobs/77/{path}").status == 404


def test_the_rate_of_a_job_that_has_ended_is_that_of_its_last_run(
    queue: JobQueue, page: Visitor, tmp_path: Path
) -> None:
    well = tmp_path / "well"

    def handle(item: int) -> int:
        if item == 7 and not well.exists():
            raise ValueError
        return item

    job = queue.run(range(500), handle, id="job")
    (state,) = page.get("jobs")
    assert state["rate"] == pytest.approx(500 / (job.duration or 0), rel=0.01)
    well.touch()
    again = queue.retry_failed("job").result()
    (state,) = page.get("jobs")
    assert state["rate"] == pytest.approx(1 / (again.duration or 0), rel=0.01)


def test_the_throughput_is_of_what_has_ended_and_there_is_none_before(
    queue: JobQueue, page: Visitor, gate: Gate
) -> None:
    run = queue.start(queue.create_job("job", list("abc"), do.block_until_told(gate), chunksize=1).id)
    gate.wait_for_count(2)
    number = page.get("jobs")[0]["number"]
    assert page.get(f"jobs/{number}/throughput") is None
    gate.open()
    run.result()
    assert re.match(
        r"<svg .* aria-label=.Items per second over the whole run: at most ", page.get(f"jobs/{number}/throughput")
    )
    queue.run_stages(range(10), [do.double, do.double], id="stages")
    head, *stages = page.get("jobs")[1:]
    assert [one.get("stage") for one in (head, *stages)] == [None, head["number"], head["number"]]
    drawn = [page.get(f"jobs/{one['number']}/throughput") for one in (head, *stages)]
    assert [one is None for one in drawn] == [True, False, False]


def test_a_search_goes_on_where_it_was_cut_off(queue: JobQueue, page: Visitor) -> None:
    queue.run(range(2000), do.only(0, return_slow_repr, do.double), id="job")
    number = page.get("jobs")[0]["number"]
    told: list[Any] = []
    while not told or "searched" in told[-1]:
        told.append(page.get(f"jobs/{number}/items?search=3998"))
        assert len(told) < 10
    assert 0 < told[0]["searched"] < 2000
    assert told[0]["rows"] == []
    assert [row["index"] for row in told[-1]["rows"]] == [1999]


def test_items_that_come_while_the_page_is_open_are_listed(queue: JobQueue, page: Visitor) -> None:
    queue.open_job("job", handler=do.double)
    with page.stream() as stream:
        queue.start("job")
        for count in (1, 3, 50):
            queue.add_items("job", range(len(stream.items("job")), count))
            stream.listen_until(lambda count=count: stream.statuses("job") == ["completed"] * count)  # type: ignore[misc]
        queue.seal("job")
        stream.listen_until(lambda: stream.states["job"]["status"] == "completed")
        assert [item["result"] for item in stream.items("job")] == [2 * item for item in range(50)]


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
        pids = workers_of(queue)
        stream.listen_until(lambda: {lane["pid"] for lane in stream.workers["lanes"]} == pids)


def test_a_job_that_is_cleared_goes_and_its_id_may_come_again(queue: JobQueue, page: Visitor) -> None:
    queue.run(["a", "b"], do.succeed, id="job")
    with page.stream() as stream:
        stream.listen_until(lambda: len(stream.items("job")) == 2)
        queue.clear_job("job")
        queue.create_job("job", list("xyz"), do.succeed)
        stream.listen_until(lambda: stream.statuses("job") == ["pending"] * 3)
    assert "job:gone" in stream.names


def test_results_that_are_long_or_odd_do_no_harm(queue: JobQueue, page: Visitor) -> None:
    job = queue.run(range(len(ODD)), return_odd, id="job")
    assert job.failed == 0
    number = page.get("jobs")[0]["number"]
    for item, part in zip(page.items(number), ODD, strict=True):
        told = str(item["result"])
        assert part in told
        assert len(told) < 500
    details = f"jobs/{number}/items"
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
    assert failed["history"][0]["pid"] in workers_of(queue)
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


def test_some_items_run_again_or_are_cancelled(queue: JobQueue, page: Visitor, gate: Gate) -> None:
    job = queue.run(list("abcb"), fail_on_b, id="job")
    number = page.get("jobs")[0]["number"]
    (group,) = page.get(f"jobs/{number}/failures")["groups"]
    for wish, tries in (({"items": [3]}, [1, 2]), ({"group": group["key"]}, [2, 3])):
        assert page.post(f"jobs/{number}/retry-failed", **wish).status == 200
        wait_until(lambda tries=tries: [len(job.items[at].history) for at in (1, 3)] == tries and job.status.final)  # type: ignore[misc]
    for wrong in ([77], [-1], ["1"], 1, [True]):
        assert page.post(f"jobs/{number}/retry-failed", items=wrong).status == 400
    assert page.post(f"jobs/{number}/retry-failed", items=[0]).status == 409
    assert page.post(f"jobs/{number}/cancel", items=[1]).status in (200, 409)  # it has ended
    assert [len(job.items[at].history) for at in (1, 3)] == [2, 3]

    run = queue.start(queue.create_job("other", list("xyz"), do.block_until_told(gate), chunksize=1).id)
    gate.wait_for_count(2)
    other = page.get("jobs")[1]["number"]
    assert page.post(f"jobs/{other}/cancel", items=[2]).status == 200
    wait_until(lambda: run.job.items[2].error_type == "ItemCancelledError")
    gate.open()
    assert (run.result().completed, run.job.failed) == (2, 1)


def test_a_body_that_is_no_wish_does_nothing(queue: JobQueue, page: Visitor) -> None:
    job = queue.run(list("abc"), fail_on_b, id="job")
    other = queue.create_job("other", list("xyz"), do.succeed)
    (failed, waiting) = (one["number"] for one in page.get("jobs"))
    (group,) = page.get(f"jobs/{failed}/failures")["groups"]
    for body, status in (
        ('{"items": [3', 400),
        ("[3]", 400),
        ('"x"', 400),
        ("null", 400),
        ("\xff", 400),
        ("[" * 99_000, 400),
        (json.dumps({"items": [0] * 50_000}), 400),
        ('{"item": [1]}', 400),
        ('{"group": null}', 400),
        ('{"group": 5}', 400),
        (json.dumps({"group": group["key"], "items": [1]}), 400),
        ('{"kill": 1}', 400),
        ('{"group": "none"}', 404),
    ):
        for number, action in ((waiting, "cancel"), (failed, "retry-failed"), (waiting, "pause")):
            answer = page.ask(f"jobs/{number}/{action}", "POST", body)
            assert answer.status == (status if action == "retry-failed" else 400), (action, body[:80])
            assert len(answer.json["error"]) < 500
            assert "expected" in answer.json["error"]
    for body in ('{"concurrency": 2', '{"concurrency": 2, "kill": true}', "2"):
        assert page.ask("workers", "POST", body).status == 400
    assert (other.status, job.status, queue.concurrency) == (
        JobStatus.PENDING,
        JobStatus.COMPLETED_WITH_ERRORS,
        2,
    )
    assert len(job.items[1].history) == 1
    assert page.ask(f"jobs/{failed}/retry-failed", "POST", "").status == 200
    wait_until(lambda: len(job.items[1].history) == 2 and job.status.final)


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
    with page.stream() as stream:
        stream.listen_until(lambda: stream.workers and len(stream.workers["lanes"]) == 3)
        assert page.post("workers", concurrency=1).status == 200
        stream.listen_until(lambda: len(stream.workers["lanes"]) == 1)


def test_of_300_workers_only_those_that_change_are_told(gate: Gate) -> None:
    with JobQueue(300, backend=InlinePool()) as queue:
        queue.start(queue.create_job("job", range(300), do.block_until_told(gate), chunksize=1).id)
        with visit(queue.serve().url).stream() as stream:
            stream.listen_until(lambda: stream.workers and len(stream.workers["lanes"]) == 300)
            stream.listen_until(lambda: all("job" in lane for lane in stream.workers["lanes"]))
            stream.listen_until(lambda: any("item" in lane for lane in stream.workers["lanes"]))
            told: list[Any] = []
            while len(told) < 3:
                name, data = stream.next()
                told += [data] if name == "workers" else []
            assert [(one["lanes"], one["gone"]) for one in told] == [([], [])] * 3
            gate.open()
            stream.listen_until(lambda: stream.states["job"]["status"] == "completed")
            stream.listen_until(lambda: not any("job" in lane for lane in stream.workers["lanes"]))


def test_the_work_and_the_ends_of_workers_are_told_once_they_are_asked_for(queue: JobQueue, page: Visitor) -> None:
    def handle(item: str) -> str:
        spin(0.05)
        if item == "crash":
            os._exit(3)
        return item

    queue.run(["a", "crash", "b"], handle, id="job", chunksize=1)
    told = page.get("workers?seconds=60")
    work = {item: (start, end) for _, start, end, kind, _, item in told["stretches"] if kind == "running"}
    assert work.keys() == {0, 1, 2}
    assert all(0 < end - start < 60_000 for start, end in work.values()), "also the work that was lost"
    ((lane, at, why, job, item),) = told["marks"]
    assert (why, job, item, at) == ("exit code 3", 1, 1, work[1][1])
    assert lane in (0, 1)
    used = {lane: started for lane, cpu, memory, started in told["use"] if cpu > 0 and memory > 1e6}
    if IS_LINUX:
        survivor = used.pop(1 - lane)
        assert used.keys() <= {lane}
        assert all(started > survivor for started in used.values()), "of its successor, which may have done something"
    else:
        assert not used
    assert page.get("workers?seconds=0")["marks"] == []
    assert page.ask("workers?seconds=-1").status == 400


def test_items_are_found_by_their_ids(queue: JobQueue, page: Visitor) -> None:
    ids = ["a b/c", 7, "x", ("x", 1), 2.0]
    queue.run([{"id": one} for one in ids], do.return_pid, id="job")
    queue.run(["p", "q"], do.succeed, id="positions")
    for index, text in enumerate(("a b/c", "7", "x", '["x",1]', "2")):
        assert page.get(f"jobs/1/find?{urlencode({'id': text})}") == {"index": index}
    assert page.get("jobs/2/find?id=1") == {"index": 1}
    for address in ("jobs/1/find?id=y", "jobs/1/find", "jobs/2/find?id=q", "jobs/2/find?id=true"):
        assert page.ask(address).status == 404


def test_jobs_that_share_a_handler_or_ids_are_alike(queue: JobQueue, page: Visitor) -> None:
    items = [{"id": "a"}, {"id": "b"}]
    queue.run(items, do.return_pid)
    queue.run(items[1:], do.succeed)
    queue.run(["x"], do.return_pid)
    queue.run(["x"], do.succeed)
    queue.create_job("never started", items, do.return_pid)
    assert [page.get(f"jobs/{number}/like") for number in (1, 2, 3, 4)] == [[2, 3], [1, 4], [1], [2]]


def wait_deep(gate: Gate) -> Any:
    def wait_here(item: str) -> str:
        gate.announce(os.getpid())
        result: str = do.block_until_told(gate)(item)
        return result

    return wait_here


def test_where_every_worker_is_can_be_seen_and_none_is_the_worse_for_it(
    queue: JobQueue, page: Visitor, gate: Gate
) -> None:
    assert page.post("stacks").json == {"workers": []}
    run = queue.start(queue.create_job("job", ["a", "b"], wait_deep(gate), chunksize=1, max_retries=0))
    gate.wait_for("a", "b")
    for _ in range(2):
        workers = page.post("stacks").json["workers"]
        assert [one["worker"] for one in workers] == [0, 1]
        assert all("in wait_here" in one["stack"] and "serving.py" not in one["stack"] for one in workers)
    pid = next(int(name) for name in gate.arrived() if name.isdigit())
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: None in [one["stack"] for one in page.post("stacks").json["workers"]])
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


# --- a journal's jobs -----------------------------------------------------------------------------------------------


def test_jobs_of_the_journal_are_shown_compared_and_run_again(tmp_path: Path) -> None:
    def handle(item: str) -> str:
        if item == "b" and not (tmp_path / "repaired").exists():
            raise ValueError("not yet")
        return item * 2

    with JobQueue(1, max_retries=0, journal=tmp_path / "run.db") as queue:
        queue.run(list("abc"), handle, id="yesterday")
    (tmp_path / "repaired").touch()
    with JobQueue(1, max_retries=0, journal=tmp_path / "run.db") as queue:
        page = visit(queue.serve().url)
        queue.run(list("abcd"), handle, id="today")
        past, today = page.get("jobs")
        assert (past["jobId"], past["status"], past["counts"]["failed"]) == ("yesterday", "completed_with_errors", 1)
        assert past["recorded"]
        assert past["report"]
        assert today["report"]
        rows = page.items(past["number"])
        assert [row["status"] for row in rows] == ["completed", "failed", "completed"]
        assert (rows[0]["result"], rows[1]["error"]) == ("aa", "not yet")
        assert page.get(f"jobs/{past['number']}/items/1")["error"] == "ValueError: not yet"
        assert b"ValueError" in page.ask(f"jobs/{past['number']}/report").body
        told = page.get(f"jobs/{past['number']}/compare/{today['number']}")
        assert [run["jobId"] for run in told["runs"]] == ["yesterday", "today"]
        assert (told["matched"], told["only"], told["changed"]) == (3, [0, 1], 1)
        assert told["items"][0]["label"] == "b"
        assert [one["status"] for one in told["items"][0]["runs"]] == ["failed", "completed"]
        assert page.ask(f"jobs/{past['number']}/compare/77").status == 404

        assert page.post(f"jobs/{past['number']}/cancel").status in (404, 409)
        assert page.post(f"jobs/{past['number']}/retry-failed").status == 200
        wait_until(lambda: [job["completed"] for job in page.get("jobs") if job["jobId"] == "yesterday"] == [3])
        assert len(page.get("jobs")) == 2


def test_stages_are_compared_by_the_ids_of_their_inputs() -> None:
    def fail_on_zero(item: int) -> int:
        return 6 // item

    def take(item: int) -> int:
        return {0: 0, 1: 6, 2: 3}[item]

    def fail_on_six(value: int) -> int:
        return 1 // (value - 6)

    with JobQueue(1, max_retries=0) as queue:
        page = visit(queue.serve().url)
        for load in (fail_on_zero, take):
            queue.run_stages(range(3), [load, fail_on_six])
        one, other = (state["number"] for state in page.get("jobs") if state["jobId"].endswith("fail_on_six"))
        told = page.get(f"jobs/{one}/compare/{other}")
        assert (told["matched"], told["only"], told["changed"]) == (2, [0, 1], 0)


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
    state = stream.states["job"]
    assert (state["status"], state["counts"]["completed"]) == ("completed", 3000)
    assert not [thread for thread in threading.enumerate() if "page" in thread.name]
    with pytest.raises(QueueClosedError):
        queue.serve()


@pytest.mark.parametrize("kwargs", [{"kill": True}, {"wait": False}])
def test_closing_in_other_ways_closes_the_page_too(kwargs: Any, gate: Gate) -> None:
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


def test_the_links_of_a_notebook_open_the_page_as_long_as_it_is_served(queue: JobQueue) -> None:
    page, job = queue.serve(), queue.run([1], abs, id="a/b")
    for shown, end in ((page, '"'), (job, '#/a%2Fb"')):
        link = re.search(r'href="([^"#]+)([^ ]+)', shown._repr_html_())
        assert link is not None
        assert link[2] == end
        assert visit(link[1]).get("jobs")[0]["jobId"] == "a/b"
    assert "/" not in repr(page)  # an address without its token would be refused
    page.close()
    assert "href" not in page._repr_html_() + job._repr_html_()


def test_a_page_does_not_keep_its_queue_alive() -> None:
    queue = JobQueue(1)
    page = queue.serve()
    queue.run(["a"], do.succeed)
    gone = weakref.ref(queue)
    del queue
    gc.collect()
    assert gone() is None
    wait_until(lambda: "closed" in repr(page), what="the page to end")


def test_a_closed_page_is_kept_by_nothing_and_keeps_no_job(queue: JobQueue) -> None:
    page, payload = queue.serve(), {"a"}
    item = weakref.ref(payload)
    queue.run([payload], do.succeed, id="job")
    del payload
    assert len(visit(page.url).get("jobs")) == 1
    page.close()
    queue.clear_job("job")
    gc.collect()
    assert item() is None
    closed = weakref.ref(page)
    del page
    gc.collect()
    assert closed() is None


def test_a_port_that_is_taken_is_said_at_once(queue: JobQueue) -> None:
    port = int(visit(queue.serve().url).netloc.rpartition(":")[2])
    with pytest.raises(OSError, match=f"port {port}.*port=0 takes a free one"):
        queue.serve(port=port)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError):  # noqa: PT011 - in use, or denied, by the system
            other.bind(("127.0.0.1", port))


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


LEFT = """
    import contextlib, socket
    from mpqueue import JobQueue
    from tests.support import handlers as do
    from tests.support.pages import visit

    with contextlib.ExitStack() as stay, JobQueue(1) as queue:
        viewer = visit(queue.serve().url)
        host, _, port = viewer.netloc.partition(":")
        known = f"Host: localhost\\r\\nCookie: {{viewer.headers['Cookie']}}\\r\\n"

        def connect():
            return socket.create_connection((host, int(port)), 1)

        queue.run(["item"], do.succeed, id="job")
        {leave}
        print(viewer.get("jobs")[0]["status"])
"""

WAYS_TO_LEAVE = {
    "in the middle of a request": """
        with connect() as connection:
            head = f"POST {viewer.place}jobs/1/pause HTTP/1.1\\r\\n{known}Content-Length: 9\\r\\n\\r\\n"
            connection.sendall(head.encode() + b"{")
    """,
    "and reads nothing more": """
        connection = stay.enter_context(connect())
        with contextlib.suppress(TimeoutError):
            while True:  # until there is no room for more
                connection.sendall(f"GET {viewer.place}style.css HTTP/1.1\\r\\n{known}\\r\\n".encode())
    """,
}


@pytest.mark.parametrize("way", WAYS_TO_LEAVE)
def test_a_viewer_leaves(way: str, tmp_path: Path) -> None:
    leave = textwrap.indent(textwrap.dedent(WAYS_TO_LEAVE[way]), " " * 8).strip()
    done = run_program(tmp_path, LEFT.format(leave=leave))
    assert (done.stdout, done.stderr) == ("completed\n", "")
