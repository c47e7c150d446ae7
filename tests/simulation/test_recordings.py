"""``MPQUEUE_RECORD``: real and simulated runs, whose messages give the same commands in a fresh scheduler."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mpqueue import Executor, JobQueue, MPQueueError, Pool, RetryPolicy, Stage
from tests.simulation.history import live_through, make_plan
from tests.simulation.replaying import Replay
from tests.support import handlers as do
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

SOON = RetryPolicy(max_retries=2, base_delay=0.01, jitter=0.5)
SECRET = "do not tell"


def fail_with_secret(item: object) -> None:
    raise ValueError(SECRET)


def fail_in_setup() -> int:
    raise OSError(SECRET)


def take_two(item: int, state: int) -> int:
    return item + state


def streams(folder: Path) -> None:
    with Pool(2) as pool:
        assert list(pool.imap(do.double, range(300))) == [2 * item for item in range(300)]
    with Executor(2) as executor:
        futures = [executor.submit(do.succeed, item) for item in range(20)]
        assert sorted(future.result() for future in futures) == list(range(20))


def a_journal(folder: Path) -> None:
    journal, gate = str(folder / "run.db"), Gate(folder)
    with JobQueue(2, journal=journal) as queue:
        job = queue.create_job(
            "job", range(20), do.only(19, do.block_until_told(gate), do.only(2, fail_with_secret)), max_retries=0
        )
        queue.start("job")
        wait_until(lambda: job.completed + job.failed == 19)
        queue.cancel("job", kill=True)
    gate.open()
    with JobQueue(2, journal=journal) as queue:
        again = queue.create_job("job", range(20), do.only(2, do.succeed), max_retries=0)
        queue.start("job").result()
        assert again.completed == 19
        queue.retry_failed("job").result()
        assert again.completed == 20


def stages(folder: Path) -> None:
    with JobQueue(2, retry=SOON) as queue:
        steps: list[Any] = [twice, Stage(do.only(14, do.segfault), max_waiting=3), Stage(do.double, ordered=True)]
        assert queue.run_stages(range(10), steps).failed == 1


def twice(item: int) -> Iterator[int]:
    yield item
    yield item + 7


def a_setup_that_fails(folder: Path) -> None:
    with JobQueue(2, retry=SOON) as queue:
        assert queue.run([1, 2], take_two, setup=fail_in_setup).failed == 2


def items_with_code(folder: Path) -> None:
    items = [*map(Fraction, range(20)), threading.Lock(), *map(Fraction, range(20))]
    with JobQueue(2) as queue:
        job = queue.run(items, do.succeed, chunksize=5)
        assert (job.completed, job.failed) == (40, 1)
    with Executor(1) as executor:
        assert executor.submit(do.succeed, Fraction(1)).result() == 1


RUNS = [streams, stages, a_journal, a_setup_that_fails, items_with_code]


@pytest.mark.long(but=["streams", "a_journal"])
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_a_run_s_messages_give_the_same_commands_again(
    run: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bug.jsonl"
    monkeypatch.setenv("MPQUEUE_RECORD", str(file))
    run(tmp_path)
    kinds = replayed(file)
    assert kinds["ChunkSent"], "something ran"
    if run is items_with_code:
        assert {"ChunkPacking", "ChunkPacked", "ChunkRefused"} <= kinds.keys()
    assert len([*tmp_path.glob("bug.jsonl*")]) == (2 if run in (streams, a_journal, items_with_code) else 1)


def replayed(file: Path) -> Counter[str]:
    """Replay the recordings of that name: how many messages of each kind were recorded."""
    kinds: Counter[str] = Counter()
    for recording in sorted(file.parent.glob(f"{file.name}*")):
        assert SECRET not in recording.read_text()
        assert [step for step in Replay(str(recording)).steps() if not step.same] == []
        kinds += kinds_in(recording)
    return kinds


def test_simulated_histories_give_the_same_commands_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have crashes, thefts, time limits, pauses, cancels and drains, and items that come later."""
    kinds: Counter[str] = Counter()
    for seed in range(40):
        if any(deed == "kill the program" for deeds in make_plan(random.Random(seed)).deeds for _, _, deed in deeds):
            continue  # nothing would close its recording
        (folder := tmp_path / str(seed)).mkdir()
        monkeypatch.setenv("MPQUEUE_RECORD", str(tmp_path / f"history-{seed}.jsonl"))
        live_through(seed, folder)
        kinds += replayed(tmp_path / f"history-{seed}.jsonl")
    assert {"LaneDied", "JobPaused", "JobCancelled", "FailedItemsReset", "ItemsDropped", "ItemsAdded"} <= kinds.keys()


def kinds_in(recording: Path) -> Counter[str]:
    """How many messages of each kind were recorded."""
    lines = map(json.loads, recording.read_text().splitlines())
    return Counter(line["message"]["is"] for line in lines if "message" in line)


def test_the_first_step_that_is_decided_differently_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bug.jsonl"
    monkeypatch.setenv("MPQUEUE_RECORD", str(file))
    with JobQueue(1) as queue:
        queue.run([1, 2], abs)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    at = next(at for at, line in enumerate(lines) if line.get("commands"))
    lines[at]["commands"].pop()
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"at": 1.0, "mess')
    different = [step.number for step in Replay(str(file)).steps() if not step.same]
    assert different == [sum("message" in line for line in lines[: at + 1])]


def test_a_recording_that_can_t_be_made_is_told_when_the_queue_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPQUEUE_RECORD", str(tmp_path / "no folder" / "bug.jsonl"))
    with pytest.raises(
        MPQueueError, match=r"MPQUEUE_RECORD: expected the name of a file that can be made, got .*unset"
    ):
        JobQueue(1)


def test_each_queue_has_a_file_of_its_own_and_none_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bug.jsonl"
    file.write_text("mine")
    monkeypatch.setenv("MPQUEUE_RECORD", str(file))
    with JobQueue(1), JobQueue(1):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bug.jsonl", "bug.jsonl.2", "bug.jsonl.3"]
    assert file.read_text() == "mine"
