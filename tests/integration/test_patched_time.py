"""Programs that freeze the time, or put greenlets in the place of threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.programs import run_program

pytestmark = pytest.mark.slow

#: Deadlines of all kinds pass: of retries, a time limit, a crash, the journal; also in a worker that is frozen.
FROZEN = """
import datetime, os, signal, sys, time
when, package, tick = sys.argv[1], sys.argv[2], sys.argv[3] == "ticks"
DATE = datetime.datetime(2012, 1, 14, tzinfo=datetime.timezone.utc)

def freeze(package, tick):
    if package == "freezegun":
        from freezegun import freeze_time
        frozen = freeze_time(DATE, tick=tick)
    else:
        from time_machine import travel
        frozen = travel(DATE, tick=tick)
    frozen.start()
    return frozen

def work(item):
    if item == "freezes":
        freeze(package, tick)
    if item == "hangs":
        time.sleep(600)
    if current_item().attempt == 1:
        if item == "fails":
            raise ValueError(item)
        if item == "crashes":
            os.kill(os.getpid(), signal.SIGKILL)
    return item

now = freeze(package, tick) if when == "before the import" else None
from mpqueue import ItemTimeoutError, JobQueue, RetryPolicy, current_item
now = freeze(package, tick) if when == "after the import" else now
ITEMS = ["freezes", "fails", "hangs", "crashes", "bystander"]
RETRY = RetryPolicy(max_retries=1, base_delay=0.1, give_up_on=(ItemTimeoutError,))
with JobQueue(2, journal="run.db", timeout=6, retry=RETRY) as queue:
    queue.create_job("job", ITEMS, work)
    run = queue.start("job")
    now = freeze(package, tick) if when == "while it runs" else now
    job = run.result(300)
    for item in job.items:
        print(item.payload, item.result, type(item.exception).__name__)
    print(job.duration > 0)
now.stop()
"""


@pytest.mark.long(but=["while it runs-freezegun-ticks"])
@pytest.mark.parametrize(
    ("when", "package", "tick"),
    [
        ("before the import", "freezegun", "stands"),
        ("after the import", "freezegun", "stands"),
        ("while it runs", "freezegun", "ticks"),
        ("before the import", "time_machine", "stands"),
    ],
)
def test_deadlines_pass_while_the_time_is_frozen(tmp_path: Path, when: str, package: str, tick: str) -> None:
    pytest.importorskip(package)
    done = run_program(tmp_path, FROZEN, when, package, tick)
    assert done.stdout.splitlines() == [
        "freezes freezes NoneType",
        "fails fails NoneType",
        "hangs None ItemTimeoutError",
        "crashes crashes NoneType",
        "bystander bystander NoneType",
        "True",
    ]


#: A queue that was there before the patch, and has run something, is refused as well, and its workers end.
GREENLETS = """
import sys
when, arguments = sys.argv[1], dict.fromkeys(sys.argv[2:], False)
from gevent import monkey

def work(item):
    return 2 * item

if when == "before the import":
    monkey.patch_all(**arguments)
import mpqueue
if when == "after the import":
    monkey.patch_all(**arguments)
try:
    with mpqueue.JobQueue(2) as queue:
        if when == "after a run":
            print(queue.run([1], work).results)
            monkey.patch_all(**arguments)
        print(queue.run([1, 2], work).results)
except RuntimeError as error:
    print(error)
"""


@pytest.mark.long(but=["before the import"])
@pytest.mark.parametrize("when", ["before the import", "after the import", "after a run"])
def test_greenlets_in_place_of_threads_are_refused(tmp_path: Path, when: str) -> None:
    pytest.importorskip("gevent")
    said = run_program(tmp_path, GREENLETS, when).stdout.splitlines()
    if when == "after a run":
        assert said.pop(0) == "[2]"
    assert len(said) == 1
    assert "call gevent.monkey.patch_all(thread=False, queue=False, select=False)" in said[0]


def test_a_program_that_leaves_threads_alone_may_patch_the_rest(tmp_path: Path) -> None:
    pytest.importorskip("gevent")
    done = run_program(tmp_path, GREENLETS, "before the import", "thread", "queue", "select")
    assert done.stdout.splitlines() == ["[2, 4]"]
