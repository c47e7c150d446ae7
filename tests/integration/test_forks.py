"""Processes that are forked while they have items or results: what they find there later is what was there."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpqueue import JobQueue, imap
from tests.support.programs import run_program
from tests.support.results import results_of
from tests.support.waiting import Gate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

#: Numbers in an array: 800 kB, which goes through a segment.
COUNT = 100_000

#: Arrays that are looked at in forked children.
FORKS = 6


def array(fill: float) -> Any:
    return np.full(COUNT, float(fill))


def is_full_of(found: Any, fill: float) -> bool:
    return bool((found == fill).all())


def look_later(gate: Gate, fill: float, found: Any) -> None:
    """In a forked child: once the gate is open, say whether the array is full of this number."""
    gate.pass_through(f"{fill:g}")
    gate.announce(f"{fill:g} {'kept' if is_full_of(found, fill) else 'changed'}")


def verdicts(gate: Gate, count: int) -> set[str]:
    """What the forked children found once the gate is open."""
    gate.wait_for(*range(count))
    gate.open()
    return gate.wait_for_count(2 * count) - {str(number) for number in range(count)}


@pytest.mark.long(but=["JobQueue"])
@pytest.mark.usefixtures("shared_pool_ends")
@pytest.mark.parametrize("name", ["JobQueue", "Executor", "Pool"])
def test_a_fork_that_leaves_the_block_ends_as_it_wants(name: str, tmp_path: Path) -> None:
    program = f"""
import os, sys, mpqueue
with mpqueue.{name}(1) as made:
    pid = os.fork()
    if not pid:
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print(list(made.map(abs, [-1])) if hasattr(made, "map") else made.run([-1], abs).results)
"""
    ended = run_program(tmp_path, program)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "3\n[1]\n")


KEPT = {f"{number} kept" for number in range(FORKS)}


@pytest.mark.usefixtures("shared_pool_ends")
def test_processes_that_are_forked_with_a_result_each_find_their_own(gate: Gate) -> None:
    fork = multiprocessing.get_context("fork")
    savers = []
    for number, result in enumerate(imap(array, range(8 * FORKS), concurrency=1)):
        assert is_full_of(result, number)
        if number < FORKS:
            savers.append(fork.Process(target=look_later, args=(gate, number, result)))
            savers[-1].start()
        del result
    assert verdicts(gate, FORKS) == KEPT
    for saver in savers:
        saver.join()


def test_a_forked_process_keeps_the_results_that_its_parent_has_dropped(gate: Gate) -> None:
    def look_at_all(results: list[Any]) -> None:
        gate.pass_through(0)
        right = all(is_full_of(result, number) for number, result in enumerate(results))
        gate.announce(f"0 {'kept' if right else 'changed'}")

    kept: list[Any] = []
    with JobQueue(1) as queue:
        job = queue.run(range(FORKS), array, chunksize=1)
        reader = multiprocessing.get_context("fork").Process(target=look_at_all, args=(job.results,))
        reader.start()
        queue.clear_job(job.id)
        del job
        for _ in range(3):
            kept = results_of(queue.run(range(-FORKS, 0), array, chunksize=1))
        assert all(is_full_of(found, number) for number, found in zip(range(-FORKS, 0), kept, strict=True))
        assert verdicts(gate, 1) == {"0 kept"}
    reader.join()


def fork_unseen_by_python() -> int:
    """As a C library may do it.

    The child goes on in Python, where it would hang for ever if another thread had asked for the interpreter's lock:
    there is nobody in the child to take it over. So nobody may ask meanwhile.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    threading.Event().wait(0.001)  # whoever has asked by now gets it
    if pid := int(ctypes.PyDLL(None).fork()):
        sys.setswitchinterval(interval)
    return pid


def handle(fork: Callable[[], int], gate: Gate, table: Any, item: Any) -> float:
    """Fork a child that looks later at the table, if there is one, otherwise at the item."""
    found = item if table is None else table
    if fork() == 0:
        try:
            look_later(gate, found[0], found)
        finally:
            os._exit(0)
    return float(found[0])


@pytest.mark.long(but=["item-fork", "table"])
@pytest.mark.parametrize("fork", [os.fork, fork_unseen_by_python])
@pytest.mark.parametrize("what", ["item", "table"])
def test_what_a_handler_forks_keeps_what_it_was_forked_with(fork: Callable[[], int], what: str, gate: Gate) -> None:
    with JobQueue(1) as queue:
        for number in range(FORKS):
            table = array(number) if what == "table" else None
            job = queue.run([array(number)], partial(handle, fork, gate, table))
            assert job.results == [number]
            queue.clear_job(job.id)
            del job
        for _ in range(3):
            assert queue.run([array(-1)] * FORKS, np.max, chunksize=1).results == [-1] * FORKS
        assert verdicts(gate, FORKS) == KEPT
