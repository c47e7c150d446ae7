"""What a step of the scheduler costs with many lanes or stages: in instructions, not in seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest

from mpqueue._core.commands import Command
from mpqueue._core.messages import Message
from tests.support.fake_lanes import FakeLanes, succeed

FEW, MANY = 16, 160
STEPS = 40


def instructions(call: Callable[[], object]) -> int:
    """How many of Python's instructions a call takes."""
    count = 0

    def tracer(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def long_items(fleet: FakeLanes, lanes: int) -> None:
    """Each lane holds one chunk, and none gets another in advance."""
    fleet.start(fleet.job([succeed(1.0 + 0.01 * (number % 7)) for number in range(4 * lanes)]))
    fleet.run_until(1.5)


def few_lanes_allowed(fleet: FakeLanes, lanes: int) -> None:
    """Most lanes are idle, since the job may have only two of them."""
    fleet.start(fleet.job([succeed(0.01)] * 200, chunksize=1, max_lanes=2))
    fleet.run_until(0.5)


def two_jobs(fleet: FakeLanes, lanes: int) -> None:
    """The lanes of one job have no second chunk, since the other job goes first."""
    fleet.start(fleet.job([succeed(0.3)] * (6 * lanes)))
    fleet.run_until(0.6)
    fleet.start(fleet.job([succeed(0.02)] * (10 * lanes), chunksize=1, max_lanes=lanes // 2 - 1, priority=1))
    fleet.run_until(1.0)


def chunks_near_the_end(fleet: FakeLanes, lanes: int) -> None:
    """The size of each chunk depends on what all lanes hold."""
    fleet.start(fleet.job([succeed(0.02 + 0.0001 * (number % 13)) for number in range(8 * lanes)]))
    fleet.run_until(0.2)


def last_items(fleet: FakeLanes, lanes: int) -> None:
    """Half of the lanes are idle, and the others hold nothing that could be taken from them."""
    fleet.start(fleet.job([succeed(1.0 + 0.7 * number / lanes) for number in range(lanes)]))
    fleet.run_until(1.35)


@pytest.mark.slow
@pytest.mark.parametrize("story", [long_items, few_lanes_allowed, two_jobs, chunks_near_the_end, last_items])
def test_a_step_costs_as_much_with_few_lanes_as_with_many(story: Callable[[FakeLanes, int], None]) -> None:
    costs = {lanes: average_step(FakeLanes(lanes, latency=1e-4), story, lanes) for lanes in (FEW, MANY)}
    assert costs[MANY] < 2 * costs[FEW], costs


def ordered_stages(fleet: FakeLanes, stages: int) -> None:
    """Inputs are on their way through all of them, and later ones wait for those before."""
    item = succeed(0.001)
    for _ in range(stages - 1):
        item = replace(succeed(0.001), returns=item)
    head = fleet.stages([item] * 200, [None] * stages, ordered=True)
    fleet.start(head)
    fleet.run_while(lambda: head.completed < 5)


@pytest.mark.slow
def test_a_step_with_sixteen_times_as_many_ordered_stages_costs_about_as_much() -> None:
    costs = {stages: average_step(FakeLanes(4, latency=1e-4), ordered_stages, stages) for stages in (4, 64)}
    assert costs[64] < 2.5 * costs[4], costs


def average_step(fleet: FakeLanes, story: Callable[[FakeLanes, int], None], size: int) -> float:
    """The instructions of a step, of those that follow upon the story."""
    handle, counted = fleet.scheduler.handle, []

    def count(message: Message, now: float) -> list[Command]:
        commands: list[Command] = []
        counted.append(instructions(lambda: commands.extend(handle(message, now))))
        return commands

    story(fleet, size)
    fleet.scheduler.handle = count  # type: ignore[method-assign]
    fleet.run_while(lambda: len(counted) < STEPS and fleet.books.jobs)
    return sum(counted) / len(counted)
