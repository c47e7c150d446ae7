"""What a wheel must do in an empty environment, without extras; nothing of the checkout is imported.

Run by `.ci/test-wheel` only, hence its name.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata, resources
from pathlib import Path

import mpqueue
from mpqueue import JobQueue, WorkerCrashedError
from tests.wheel.extras import run_mpqueue


def crash_once(item: int) -> int:
    if item == 2 and mpqueue.current_item().attempt == 1:
        os._exit(3)
    return item * 10


def crash_always(item: int) -> int:
    return os._exit(3) if item == 2 else item


def test_it_is_the_wheel_that_is_tested() -> None:
    assert Path(mpqueue.__file__).is_relative_to(sys.prefix)
    assert metadata.version("mpqueue") == mpqueue.__version__


def test_types_and_the_live_page_are_there() -> None:
    package = resources.files("mpqueue")
    assert package.joinpath("py.typed").is_file()
    static = package.joinpath("_live_page", "static")
    page = static.joinpath("index.html").read_text()
    assert "main.js" in page
    assert static.joinpath("main.js").is_file()
    assert static.joinpath("views", "item_list.js").is_file()


def test_every_public_name_that_needs_no_extra_can_be_had() -> None:
    for name in mpqueue.__all__:  # type: ignore[attr-defined]
        assert getattr(mpqueue, name)


def test_a_crash_costs_one_attempt() -> None:
    with JobQueue(2, retry=mpqueue.RetryPolicy(max_retries=1, base_delay=0.0)) as queue:
        assert queue.run([1, 2, 3], crash_once).results == [10, 20, 30]
        job = queue.run([1, 2, 3], crash_always)
    assert job.results == [1, None, 3]
    assert isinstance(job.items[1].exception, WorkerCrashedError)


def test_a_journal_goes_on(tmp_path: Path) -> None:
    for _ in range(2):
        with JobQueue(1, journal=tmp_path / "run.db") as queue:
            assert queue.run([-1, -2], abs, id="job").results == [1, 2]
    assert "job" in run_mpqueue("status", str(tmp_path / "run.db"))


def test_the_command_runs_a_function(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    run_mpqueue("run", "os.path:getsize", str(tmp_path / "a.txt"), "-o", str(tmp_path / "sizes.csv"))
    assert "3" in (tmp_path / "sizes.csv").read_text()


def test_a_pool_and_an_executor_stand_in() -> None:
    with mpqueue.Pool(1) as pool:
        assert pool.map(abs, [-1, 2]) == [1, 2]
    with mpqueue.Executor(1) as executor:
        assert executor.submit(abs, -3).result() == 3
