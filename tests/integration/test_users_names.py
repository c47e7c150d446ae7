"""What tab completion shows of all that users hold: their names, and none that the package keeps for itself."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing.pool
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import mpqueue
from mpqueue.testing import InlinePool, close_shared_pool
from tests.support.handlers import succeed
from tests.support.programs import run_program
from tests.support.public_names import listing

pytestmark = pytest.mark.usefixtures("forked_workers")


def listed(kind: str) -> set[str]:
    """What docs/reference/public-api.txt has of a class: its names, without those of protocols."""
    _, _, rest = "\n".join(listing()["mpqueue"]).partition(f"class {kind}(")
    lines = itertools.takewhile(lambda line: line.startswith("    "), rest.splitlines()[1:])
    found = {re.split(r"\W", line.strip().removeprefix("async "))[0] for line in lines}
    return {name for name in found if not name.startswith("_")} - {kind}


def names(of: object) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


def test_a_queue_and_what_it_gives_show_users_names_only() -> None:
    with mpqueue.JobQueue(1, backend=InlinePool()) as queue:
        job = queue.create_job("job", ["a"], succeed)
        run = queue.start("job")
        run.result(300)
        assert names(queue) == listed("JobQueue") | {"on", "once", "off", "remove_all_listeners"}
        assert names(job) == listed("Job")
        assert names(job.items) == names(Sequence)
        assert names(job.items[0]) == listed("JobItem")
        of_those_who_run_it = {"set_exception", "set_result", "set_running_or_notify_cancel"}
        assert names(run) == listed("JobRun") | {"job"} | names(concurrent.futures.Future) - of_those_who_run_it
        assert names(job.report()) == {"advice", "figures", "findings", "profile", "save", "to_html"}


@pytest.mark.slow
def test_public_modules_are_loaded_when_they_are_first_named(tmp_path: Path) -> None:
    body = """
    import sys
    import mpqueue
    public = {name for name in sys.modules if name.startswith("mpqueue.") and not name.startswith("mpqueue._")}
    assert public == {"mpqueue.errors"}
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
