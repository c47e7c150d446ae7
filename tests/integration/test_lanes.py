"""Lanes with real workers: that they work, how they die, and that each death is told once, after all answers."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from mpqueue._core.messages import BellRung, LaneBroken, LaneDied
from mpqueue._engines.loky import flag_setter
from mpqueue._engines.loky.process import stack_dump
from mpqueue._wire.memory.ledger import CLAIM, NOBODY, Phase, pack_claim
from tests.support import handlers, lane_verbs
from tests.support.lanes import Lanes, lanes, new_lanes
from tests.support.programs import is_running
from tests.support.systems import LINUX_ONLY
from tests.support.waiting import Gate, wait_until

__all__ = ["lanes", "new_lanes"]

pytestmark = pytest.mark.slow


def test_a_worker_answers_and_knows_its_place(lanes: Lanes) -> None:
    lane, generation, pid, group = lanes.call(lane_verbs.who_am_i)
    assert (lane, generation) == (0, 0)
    assert pid == lanes.lane().pid == group


def test_the_parent_sees_what_the_worker_leaves_early(lanes: Lanes) -> None:
    lanes.call(lane_verbs.leave_in_outbox, b"early")
    assert lanes.take(BellRung) == BellRung(0, 0)
    assert lanes.lane().take_early() == b"early"
    assert lanes.lane().take_early() is None


def test_flags_reach_the_worker_in_order(lanes: Lanes) -> None:
    for job, pause, cancel in ((1, True, False), (1, True, True), (1, False, True), (2, True, True), (3, True, False)):
        lanes.lane().set_flags(job, pause=pause, cancel=cancel)
    wait_until(lambda: lanes.call(lane_verbs.read_flags) == (3, True, False), what="the flags")


def test_flags_of_one_job_are_never_taken_for_those_of_another(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that sets them may be late: until it has done all of it, they count for nobody."""
    lane, go_on, arrived = lanes.lane(), threading.Event(), threading.Event()
    lane.set_flags(1, pause=False, cancel=True)
    wait_until(lambda: lanes.call(lane_verbs.read_flags) == (1, False, True), what="the flags")

    def set_late(event: Event, value: bool) -> None:
        arrived.set()
        assert go_on.wait(30)
        event.set() if value else event.clear()

    monkeypatch.setattr(flag_setter, "_set", set_late)
    lane.set_flags(2, pause=True, cancel=False)
    assert lanes.call(lane_verbs.read_flags)[0] in (NOBODY, 1)
    assert arrived.wait(30)
    assert lanes.call(lane_verbs.read_flags)[0] == NOBODY
    go_on.set()
    wait_until(lambda: lanes.call(lane_verbs.read_flags) == (2, True, False), what="the flags")


DEATHS = [
    pytest.param(handlers.exit_with(3), 3, None, id="exit 3"),
    pytest.param(handlers.exit_zero, 0, None, id="exit 0"),
    pytest.param(handlers.segfault, -11, "SIGSEGV", id="segfault"),
    pytest.param(handlers.abort, -6, "SIGABRT", id="abort"),
    pytest.param(handlers.kill_self, -9, "SIGKILL", id="killed"),
    pytest.param(handlers.terminate_self, -15, "SIGTERM", id="terminated"),
]


@pytest.mark.parametrize(("act", "exitcode", "name"), DEATHS)
def test_a_death_is_told_with_its_cause_after_the_last_answer(
    new_lanes: Callable[..., Lanes], act: Callable[[Any], Any], exitcode: int, name: str | None
) -> None:
    lanes = new_lanes(2)
    bystander = lanes.lane(1)
    call = lanes.send(act, 0)
    call.add_done_callback(lambda _: lanes.messages.put("answered"))
    pid = lanes.lane().pid

    assert lanes.take(str) == "answered"
    assert call.exception() is not None
    died = lanes.take(LaneDied)
    assert (died.lane, died.generation, died.pid) == (0, 0, pid)
    assert (died.exitcode, died.signal, died.stack) == (exitcode, name, None)

    lanes.replace()
    assert lanes.call(handlers.double, 2) == 4
    assert lanes.lane(1) is bystander
    assert lanes.call(handlers.double, 2, lane=1) == 4


def test_a_death_comes_with_what_the_worker_claimed_last(lanes: Lanes) -> None:
    lanes.lane().ledger.words[CLAIM] = pack_claim(7, Phase.RUNNING, 3, 5)
    claim = lanes.kill().claim
    assert claim is not None
    assert (claim.chunk, claim.phase, claim.lo, claim.hi) == (7, Phase.RUNNING, 3, 5)


def test_a_frame_for_a_dead_worker_fails_and_does_not_raise(lanes: Lanes) -> None:
    lane = lanes.lane()
    lanes.kill()
    assert lane.send(b"").exception(timeout=5) is not None
    lanes.pool.retire(0)
    assert lane.send(b"").exception(timeout=5) is not None
    lane.set_flags(1, pause=True, cancel=False)
    lane.kill()


def test_a_worker_whose_answer_is_an_error_is_of_no_more_use(lanes: Lanes) -> None:
    call = lanes.send(lane_verbs.fail_with, ValueError("a bug of ours"))
    assert isinstance(call.exception(timeout=30), ValueError)
    assert "serves no more: ValueError: a bug of ours" in lanes.take(LaneBroken).why
    assert lanes.take(LaneDied).signal == "SIGKILL"


def test_an_idle_worker_that_is_killed_from_outside_is_told(lanes: Lanes) -> None:
    os.kill(lanes.lane().pid, signal.SIGKILL)
    assert lanes.take(LaneDied).signal == "SIGKILL"


#: How a worker that hangs in that way looks from outside: its state in /proc.
HANGS = [
    (handlers.hang_python, "R"),
    (handlers.hang_sleep, "S"),
    (handlers.hang_holding_gil, "R"),
]


@pytest.mark.parametrize(("hang", "state"), HANGS, ids=[hang.__name__ for hang, _ in HANGS])
def test_a_hung_worker_says_where_it_is_before_it_is_killed(
    lanes: Lanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hang: Callable[[Any], Any], state: str
) -> None:
    monkeypatch.setattr(stack_dump, "PATIENCE", 10.0)  # a busy machine may let it wait for a CPU
    gate = Gate(tmp_path)
    pid = lanes.lane().pid
    lanes.send(handlers.announce(gate, hang), "hung")
    gate.wait_for("hung")
    before = look_at(pid).ticks
    wait_until(lambda: look_at(pid).has_settled(state, before), what="the worker to hang")
    died = lanes.kill(dump_stack=True)
    assert died.signal == "SIGKILL"
    assert died.stack is not None
    assert f"in {hang.__name__}" in died.stack


def test_a_stopped_worker_is_killed_without_being_woken_to_say_where_it_is(lanes: Lanes) -> None:
    pid = lanes.lane().pid
    lanes.send(handlers.stop_self, "stopped")
    wait_until(lambda: look_at(pid).state == "T", what="the worker to stop")
    died = lanes.kill(dump_stack=True)
    assert (died.signal, died.stack) == ("SIGKILL", None)


@dataclass
class Look:
    """What /proc says about a process."""

    state: str
    ticks: int  #: hundredths of a second that it has computed

    def has_settled(self, state: str, before: int) -> bool:
        """Whether it is in ``state``; one that computes, long enough to have come to where it will stay."""
        return self.state == state and (state != "R" or self.ticks > before + 5)


def look_at(pid: int) -> Look:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Look(fields[0], int(fields[11]))


def test_a_worker_that_took_all_signals_is_killed_without_a_stack(lanes: Lanes) -> None:
    lanes.call(lane_verbs.raise_on_every_signal)
    lanes.send(handlers.hang_python, 0)
    died = lanes.kill(dump_stack=True)
    assert (died.signal, died.stack) == ("SIGKILL", None)


def test_a_worker_takes_its_signal_back_before_each_chunk(
    lanes: Lanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_dump, "PATIENCE", 10.0)
    lanes.call(lane_verbs.raise_on_every_signal)
    gate = Gate(tmp_path)
    pid = lanes.lane().pid
    lanes.send(lane_verbs.rearm_and_hang, gate)
    gate.wait_for("hung")
    before = look_at(pid).ticks
    wait_until(lambda: look_at(pid).has_settled("R", before), what="the worker to hang")
    assert "in rearm_and_hang" in (lanes.kill(dump_stack=True).stack or "")


def test_a_worker_killed_in_the_middle_of_a_large_answer_is_told(lanes: Lanes) -> None:
    pid = lanes.lane().pid
    call = lanes.send(handlers.big_result, 300_000_000)
    wait_until(lambda: call.done() or written(pid) > 1_000_000, what="the answer to be under way")
    assert lanes.kill().signal == "SIGKILL"
    assert call.done()
    lanes.replace()
    assert lanes.call(handlers.double, 2) == 4


def written(pid: int) -> int:
    """Bytes that the process has written, pipes included."""
    return int(Path(f"/proc/{pid}/io").read_text().split("wchar:")[1].split()[0])


def test_a_worker_killed_before_it_has_read_a_large_frame_is_told(lanes: Lanes) -> None:
    lanes.send(handlers.stop_self, 0)
    call = lanes.send(handlers.return_length, bytes(100_000_000))
    lanes.kill()
    assert call.exception(timeout=0) is not None


@pytest.mark.parametrize("leave", [handlers.leave_child, handlers.leave_forked_child], ids=["program", "fork"])
def test_children_die_with_their_worker_and_hold_nothing_up(lanes: Lanes, leave: Callable[[Any], int]) -> None:
    child = lanes.call(leave, 0)
    assert is_running(child)
    assert lanes.call(handlers.double, 2) == 4
    call = lanes.send(handlers.kill_self, 0)
    lanes.take(LaneDied)
    assert call.done()
    wait_until(lambda: not is_running(child), what="the child's end")


@LINUX_ONLY
def test_children_that_left_the_group_are_found_by_their_cookie(lanes: Lanes) -> None:
    stray = lanes.call(lane_verbs.leave_stray)
    assert is_running(stray)
    lanes.kill()
    wait_until(lambda: not is_running(stray), what="the stray's end")


def test_a_child_that_nobody_can_find_does_not_keep_a_death_from_being_told(lanes: Lanes) -> None:
    """It holds the pipe, so loky waits for the rest of the answer as long as it lives."""
    child = lanes.call(lane_verbs.leave_unseen_fork)
    pid = lanes.lane().pid
    call = lanes.send(handlers.big_result, 300_000_000)
    wait_until(lambda: call.done() or written(pid) > 1_000_000, what="the answer to be under way")
    try:
        assert lanes.kill().signal == "SIGKILL"
        assert call.done()
        lanes.replace()
        assert lanes.call(handlers.double, 2) == 4
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_fork_that_returns_twice_ends_and_the_worker_goes_on(lanes: Lanes) -> None:
    child = lanes.call(handlers.fork_and_return_twice, 0)
    assert child > 0
    assert lanes.call(handlers.double, 2) == 4
    wait_until(lambda: lanes.call(handlers.double, 1) == 2 and not is_running(child), what="the child's end")


def test_a_fork_does_not_write_into_the_ledger(lanes: Lanes) -> None:
    before = list(lanes.lane().ledger.words[:6])
    assert lanes.call(lane_verbs.fork_that_claims, 77) == 0
    assert list(lanes.lane().ledger.words[:6]) == before


def test_a_worker_that_closes_its_descriptors_is_replaced(lanes: Lanes) -> None:
    call = lanes.send(handlers.close_all_fds, 0)
    assert lanes.take(LaneDied).exitcode != 0
    assert call.done()
    lanes.replace()


def test_a_flag_that_a_dead_worker_has_locked_holds_nothing_up(lanes: Lanes) -> None:
    """docs/adr/0003: the thread that sets it gets the lock back, and ends."""
    lane = lanes.lane()
    lanes.send(lane_verbs.die_with_flag_lock)
    for value in (True, False) * 50:
        lane.set_flags(1, pause=value, cancel=False)
    lanes.take(LaneDied)
    lane.set_flags(1, pause=True, cancel=False)
    lanes.replace()
    wait_until(lambda: "mpqueue-flags-0" not in {thread.name for thread in threading.enumerate()})


@pytest.mark.parametrize("act", [handlers.start_process, handlers.start_pool, handlers.start_executor])
def test_handlers_may_start_processes_of_their_own(lanes: Lanes, act: Callable[[Any], Any]) -> None:
    assert lanes.call(act, 21) == 42


def test_exit_codes_reach_handlers_although_the_parent_ignores_its_children(
    new_lanes: Callable[..., Lanes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ignoring SIGCHLD is inherited, and the kernel then keeps no exit codes: neither there nor here."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        lanes = new_lanes()
        assert lanes.call(handlers.run_false, 0) == 1
        lanes.send(handlers.exit_with(3), 0)
        assert lanes.take(LaneDied).exitcode in {3, None}
        lanes.pool.close(kill=True)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_death_is_told_although_somebody_else_has_waited_for_the_process(new_lanes: Callable[..., Lanes]) -> None:
    lanes = new_lanes()
    thief = threading.Thread(target=reap, args=(lanes.lane().pid,))
    thief.start()
    call = lanes.send(handlers.exit_with(3), 0)
    assert lanes.take(LaneDied).exitcode in {3, None}
    assert call.done()
    thief.join()


def reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # loky was faster
        os.waitpid(pid, 0)


def test_deaths_leave_no_descriptor_and_no_thread_behind(lanes: Lanes) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    before = held()
    for act in (handlers.exit_zero, handlers.kill_self, handlers.segfault):
        lanes.send(act, 0)
        lanes.take(LaneDied)
        lanes.replace()
    wait_until(lambda: held() <= before, what=f"{before} descriptors and threads")
