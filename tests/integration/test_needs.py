"""What items need, with real workers: units, GPUs that a worker sees, inner threads, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import JobQueue, JobStatus, Stage, current_item
from tests.support import handlers as do
from tests.support.results import results_of
from tests.support.this_system import KILL

pytestmark = pytest.mark.usefixtures("forked_workers")

VARIABLE = "CUDA_VISIBLE_DEVICES"


@pytest.fixture(name="queue")
def _queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobQueue]:
    monkeypatch.delenv(VARIABLE, raising=False)
    with JobQueue(2, resources={"gpu": 2, "license": 1, "memory": "1GB"}, gpu_env=True) as queue:
        yield queue


@pytest.fixture(name="module")
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that asks as it is imported, once, as CUDA does."""
    (tmp_path / "asks_at_import.py").write_text(f"import os\nseen = os.environ[{VARIABLE!r}]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "asks_at_import"


def seen_at_import(item: Any) -> tuple[str, list[int]]:
    import asks_at_import  # type: ignore[import-not-found]

    return asks_at_import.seen, current_item().uses.get("gpu", [])


@pytest.mark.slow
def test_a_worker_sees_the_gpus_of_its_items_from_its_first_import_on(queue: JobQueue, module: str) -> None:
    """Also where it had imported the library before, for others: then it is another worker."""
    assert results_of(queue.run(range(4), seen_at_import)) == [("", [])] * 4
    one, both = ({"gpu": 1}, {"gpu": 2})
    for uses in (one, both, one):
        for seen, units in results_of(queue.run(range(6), seen_at_import, uses=uses)):
            assert seen == ",".join(map(str, units))
            assert len(units) == uses["gpu"]
    mixed = queue.run(range(6), seen_at_import, uses=lambda item: {"gpu": item % 3})
    assert [len(units) for _, units in results_of(mixed)] == [item % 3 for item in range(6)]
    assert all(seen == ",".join(map(str, units)) for seen, units in results_of(mixed) if units)


def test_which_gpus_there_are_is_known_when_the_queue_is_made(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "GPU-8932f937, 6,7,-1,8")
    with JobQueue(1, resources={"gpu": 2}, gpu_env=True) as queue:
        monkeypatch.setenv(VARIABLE, "")
        job = queue.run(range(2), seen_at_import, uses={"gpu": 2})
        assert results_of(job) == [("GPU-8932f937,6", [0, 1])] * 2


@pytest.mark.parametrize(
    ("given", "units", "named"),
    [("1", 2, 1), ("", 1, 0), ("4", 2, 1), ("1,1", 2, 1), ("0,-1,2", 2, 1), ("NoDevFiles", 1, 0), ("3,", 2, 1)],
)
def test_more_units_than_gpus_that_the_program_sees_are_refused(
    monkeypatch: pytest.MonkeyPatch, given: str, units: int, named: int
) -> None:
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(ValueError, match=f"at least as many.* {units}, got '{given}', which names {named}; pass"):
        JobQueue(1, resources={"gpu": units}, gpu_env=True)
    JobQueue(1, resources={"gpu": units}).close()


@pytest.mark.slow
def test_one_unit_is_never_held_by_two(queue: JobQueue, tmp_path: Path) -> None:
    """Each item takes a file that must not be there, and some are killed while they have it."""
    handler = alone_in(tmp_path / "held", tmp_path / "killed")
    job = queue.run(range(12), handler, uses={"license": 1}, timeout=60.0, max_retries=1)
    assert job.status is JobStatus.COMPLETED, job.failures
    assert results_of(job) == [[0]] * 12


def alone_in(held: Path, killed: Path) -> Callable[[int], list[int]]:
    def handler(item: int) -> list[int]:
        mine = held.with_name(f"held-{os.getpid()}")
        if item == 5 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), KILL)
        held.mkdir()  # raises where another item has it
        mine.touch()
        mine.unlink()
        held.rmdir()
        return current_item().uses["license"]

    return handler


def threads(_: int) -> tuple[str, str]:
    return os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]


@pytest.mark.slow
def test_inner_threads_follow_the_cpus_of_the_item() -> None:
    with JobQueue(2, per_worker={"threads": 3}) as queue:
        job = queue.run(range(6), threads, uses={"cpu": lambda item: 1 + item % 2})
        assert results_of(job) == [(str(3 * (1 + item % 2)),) * 2 for item in range(6)]
        assert results_of(queue.run(range(2), threads)) == [("3", "3")] * 2


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"resources": {"cpus": 4}}, ValueError, "expected no 'cpus'"),
        ({"resources": {"gpu": -1}}, ValueError, "resources['gpu']"),
        ({"resources": {"a gpu": 1}}, ValueError, "expected names such as"),
        ({"resources": {"gpu": "2"}}, TypeError, "expected a whole number"),
        ({"resources": 2}, TypeError, "expected a mapping"),
        ({"gpu_env": True}, ValueError, "gpu_env: expected False, or a number of GPUs as in resources"),
        ({"resources": {"gpu": 1}, "gpu_env": True, "initializer": print}, ValueError, "initializer: expected None"),
        ({"resources": {"gpu": 1}, "gpu_env": True, "preload": ["json"]}, ValueError, "preload: expected None"),
    ],
)
def test_resources_that_make_no_sense_are_refused(options: dict[str, Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind) as caught:
        JobQueue(1, **options)
    assert says in str(caught.value)


def test_an_open_job_has_values_only(queue: JobQueue) -> None:
    with pytest.raises(ValueError, match="expected numbers where the items are still to come"):
        queue.open_job("open", range(1), threads, uses={"cpu": lambda item: 1})
    job = queue.open_job("open", range(1), threads, uses={"license": 1})
    run = queue.start("open")
    queue.add_items("open", [1, 2])
    queue.seal("open")
    assert run.result().completed == 3
    queue.clear_job(job.id)


def hold(item: tuple[int, str]) -> tuple[int, str]:
    """Takes a token of the folder for as long as it runs; one that is there already means two at once."""
    _, folder = item
    with open(f"{folder}/token", "x"):
        sum(range(300_000))
    os.remove(f"{folder}/token")
    return item


def unit(item: tuple[int, str]) -> tuple[int, list[int]]:
    return item[0], current_item().uses["gpu"]


@pytest.mark.usefixtures("shared_pool_ends")
def test_needs_of_a_call_s_stages_go_by_its_own_concurrency() -> None:
    two = [Stage(do.double, uses={"cpu": 2})]
    assert mpqueue.map(do.double, [1], concurrency=1) == [2]
    assert mpqueue.stages([1, 2], two, concurrency=2) == [2, 4]
    with pytest.raises(ValueError, match=r"uses\['cpu'\]: expected at most 1, the queue's concurrency, got 2"):
        mpqueue.stages([1, 2], two, concurrency=1)
    assert mpqueue.stages([1, 2], two) == [2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("is_open", [False, True])
def test_what_items_need_is_in_the_journal_for_a_later_retry(is_open: bool, tmp_path: Path) -> None:
    def units(item: str) -> Any:
        if item == "bad" and not (tmp_path / "healed").exists():
            raise ValueError("not yet")
        return dict(current_item().uses)

    journal = tmp_path / "run.db"
    for amounts in ({"gpu": 2}, {"gpu": 1}):  # the last one counts
        with JobQueue(2, journal=journal, resources={"gpu": 2}, max_retries=0) as queue:
            if is_open:
                queue.open_job("job", ["good", "bad"], units, uses=amounts)
                run = queue.start("job")
                queue.seal("job")
            else:
                queue.create_job("job", ["good", "bad"], units, uses=amounts, rerun=mpqueue.Rerun(update=True))
                run = queue.start("job")
            assert run.result().failed == 1
    with (
        JobQueue(2, journal=journal) as queue,
        pytest.raises(ValueError, match=r"expected names of what there is .*, got 'gpu'"),
    ):
        queue.retry_failed("job")
    (tmp_path / "healed").touch()
    with JobQueue(2, journal=journal, resources={"gpu": 1}) as queue:
        assert queue.retry_failed("job").result().results == [{"gpu": [0, 1]}, {"gpu": [0]}]


@pytest.mark.slow
def test_needs_that_functions_said_are_not_in_the_journal_and_a_retry_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with JobQueue(1, journal=tmp_path / "run.db", resources={"gpu": 1}, max_retries=0) as queue:
        queue.run(["a"], do.fail, id="job", uses={"gpu": lambda _: 1})
    with JobQueue(1, journal=tmp_path / "run.db", max_retries=0) as queue:
        assert queue.retry_failed("job").result().failed == 1
    assert [record.message.partition(":")[0] for record in caplog.records if "uses=" in record.message] == ["job 'job'"]


@pytest.mark.slow
def test_a_stage_has_needs_of_its_own(tmp_path: Path) -> None:
    with JobQueue(3, resources={"license": 1, "gpu": 2}) as queue:
        items = [(number, str(tmp_path)) for number in range(12)]
        job = queue.run_stages(items, [Stage(hold, uses={"license": 1}), Stage(unit, uses={"gpu": 2})])
        assert job.results == [(number, [0, 1]) for number in range(12)]
        with pytest.raises(ValueError, match=r"^stage 'unit': uses\['gpu'\]: expected at most 2, all there are, got 3"):
            queue.run_stages(items, [hold, Stage(unit, uses={"gpu": 3})])
        with pytest.raises(ValueError, match=r"^stage .unit.: uses: expected numbers where the items"):
            queue.run_stages(items, [hold, Stage(unit, uses={"cpu": len})])
