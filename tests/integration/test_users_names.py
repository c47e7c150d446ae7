"""What tab completion shows of all that users hold: their names, and none that the package keeps for itself."""

from __future__ import annotations

import concurrent.futures
import multiprocessing.pool
from collections.abc import Sequence
from pathlib import Path

import pytest

import mpqueue
from mpqueue.testing import InlinePool, close_shared_pool
from tests.support.handlers import succeed
from tests.support.programs import run_program

pytestmark = pytest.mark.usefixtures("forked_workers")

QUEUE = {
    *("cancel", "clear_job", "close", "concurrency", "create_job", "get_job", "get_stats", "jobs", "load_job"),
    *(
        "add_items",
        "last_job",
        "adrain",
        "cancel_items",
        "drain",
        "max_retries",
        "open_job",
        "pause",
        "plan_job",
        "prune",
        "resize",
        "resume",
        "retry_failed",
        "run",
        "run_stages",
        "seal",
        "serve",
        "start",
        "start_stages",
    ),
}
JOB = {
    *("cancelled", "completed", "duration", "failed", "failures", "finished_at", "id", "items", "paused", "results"),
    *("retries", "sealed", "seed", "started_at", "status", "stopped_why", "total"),
    *(
        "export",
        "failure_groups",
        "profile",
        "raise_for_failures",
        "report",
        "to_dict",
        "to_pandas",
        "to_polars",
        "to_records",
        "trace",
    ),
}
ITEM = {
    *("attempts", "cpu_seconds", "elapsed", "error", "error_type", "exception", "fraction", "history", "id", "payload"),
    *("label", "peak_memory", "proposed_alt", "result", "status", "stderr", "stdout", "traceback", "replay", "to_dict"),
}
RUN = {
    *("add_done_callback", "as_completed", "cancel", "cancelled", "done", "exception", "job", "result", "running"),
}


def names(of: object) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


def test_a_queue_and_what_it_gives_show_users_names_only() -> None:
    with mpqueue.JobQueue(1, backend=InlinePool()) as queue:
        job = queue.create_job("job", ["a"], succeed)
        run = queue.start("job")
        run.result(300)
        assert names(queue) == QUEUE | {"on", "once", "off", "remove_all_listeners"}
        assert names(job) == JOB
        assert names(job.items) == names(Sequence)
        assert names(job.items[0]) == ITEM
        assert names(run) == RUN
        assert names(job.report()) == {"advice", "figures", "findings", "profile", "save", "to_html"}


@pytest.mark.slow
def test_public_modules_are_loaded_when_they_are_first_named(tmp_path: Path) -> None:
    body = """
    import sys
    import mpqueue
    assert not [name for name in sys.modules if name.startswith("mpqueue.")]
    for name in ("backends", "errors", "events", "retry", "sinks", "status", "testing"):
        assert getattr(mpqueue, name) is sys.modules[f"mpqueue.{name}"]
    """
    run_program(tmp_path, body)


@pytest.mark.slow
def test_a_page_shows_users_names_only() -> None:
    with mpqueue.JobQueue(1, backend=InlinePool()) as queue:
        assert names(queue.serve()) == {"close", "url"}


@pytest.mark.slow
def test_drop_ins_show_the_names_that_they_stand_in_for() -> None:
    with mpqueue.Pool(1) as pool:
        assert names(pool) == names(multiprocessing.pool.Pool)
        assert names(pool.apply_async(succeed, "a")) == names(multiprocessing.pool.AsyncResult)
        assert names(pool.map_async(succeed, "a")) == names(multiprocessing.pool.MapResult)
        results = pool.imap(succeed, "a")
        assert names(results) == names(multiprocessing.pool.IMapIterator)
        assert list(results) == ["a"]
    with mpqueue.Executor(1) as executor:
        more = {"kill_workers", "terminate_workers"}  # of `ProcessPoolExecutor` from Python 3.14 on
        assert names(executor) == names(concurrent.futures.Executor) | more
        assert names(executor.submit(succeed, "a")) == names(concurrent.futures.Future)
    try:
        results_of_imap = mpqueue.imap(succeed, "a", concurrency=1)
        assert names(results_of_imap) == {"aclose", "close"}
        assert list(results_of_imap) == ["a"]
    finally:
        close_shared_pool(kill=True)
