"""Where a chaos run hangs, what it prints says who waits for what."""

from __future__ import annotations

import queue as queues
import random
from pathlib import Path

import pytest

from mpqueue import JobQueue
from tests.chaos import harness
from tests.chaos.arena import Arena, Pulse
from tests.chaos.audit import Struck
from tests.chaos.consumers import CallDriver
from tests.chaos.postmortem import describe, stacks
from tests.support import handlers as do
from tests.support.waiting import Gate

pytestmark = pytest.mark.slow


def test_a_queue_tells_what_its_unfinished_jobs_wait_for(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with JobQueue(1) as queue:
        job = queue.create_job("held", ["a", "bystander"], do.only("a", do.block_until_told(gate)))
        run = queue.start(job.id)
        gate.wait_for("a")
        told = "\n".join(describe("the one", queue))
        for part in ("--- the one", "for 1 workers", "'held'", "2 have not ended: 0 processing after 0, 1 "):
            assert part in told
        gate.open()
        assert run.result(60).completed == 2


def test_an_executor_tells_what_it_has_not_heard_of(tmp_path: Path) -> None:
    objections: list[str] = []
    arena = Arena(random.Random(1), tmp_path, Struck(), objections.append, Pulse())
    with arena.queue:
        driver = CallDriver(random.Random(1), arena, Struck())
        driver.add(3)
        assert "open, 3 submitted, 3 not heard of" in driver.describe()
        driver.end("shut down")
        assert "shut down, 3 submitted, 0 not heard of" in driver.describe()
    assert objections == []


def test_each_thread_tells_by_its_name_where_it_is() -> None:
    told = "\n".join(stacks())
    assert "--- thread MainThread" in told
    assert "test_each_thread_tells_by_its_name_where_it_is" in told


def test_a_run_that_hangs_is_a_complaint_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "DEADLINE", 0.1)
    chaos = harness.Chaos(1, tmp_path)
    waiting: queues.SimpleQueue[None] = queues.SimpleQueue()
    thread = chaos.beside("sleeper", waiting.get, lambda: "waits for the test")
    chaos.join(thread)
    waiting.put(None)
    thread.join(60)
    assert chaos.complaints == ["thread chaos-sleeper did not end: nothing went on for 0.1 s"]
    assert "chaos-sleeper waits for the test" in capfd.readouterr().err
