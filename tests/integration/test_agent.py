"""An agent by itself: local lanes that are reached by calls, and report by notices, without any cluster."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mpqueue
from mpqueue._core.messages import BellRung, LaneBroken, LaneDied, LaneReady, LaneStartFailed
from mpqueue._core.rules import overdue
from mpqueue._engines.agent.agent import Agent, Answered
from mpqueue._engines.agent.notices import Crowded, Notice, dump_notice, load_notice
from mpqueue._engines.loky.loky_lane import LokyLane
from mpqueue._os import monotonic as clock
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._wire.frames import ChunkFrame, Ended, dump_frame
from mpqueue._wire.ids import IdRule
from mpqueue._wire.memory.ledger import Phase
from mpqueue._wire.memory.segments import NOTHING_CARRIED, Carried, SegmentStore
from mpqueue._wire.memory.shared import Token, notes_shared, parts_of, token_of
from mpqueue._wire.pickling import payload
from mpqueue._wire.pickling.packed_handler import Travels, pack_handler
from mpqueue._wire.pickling.payload import Packed, dump
from mpqueue._worker.elsewhere.hosted import SetLimit
from mpqueue._worker.elsewhere.private import Leaving
from mpqueue.errors import WorkerStartError
from tests.integration.test_hosted import chunk_of, elsewhere, report_of, results
from tests.support import handlers as do
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow

LANE = (3, 0)
SETTINGS = LaneSettings(1, threads_per_worker=None, carries_segments=True)


class Node:
    """An agent, and what it has said."""

    def __init__(self, settings: LaneSettings = SETTINGS, end_process: Callable[[], object] | None = None) -> None:
        self.said: list[Notice] = []
        self._answers: defaultdict[tuple[int, int, int], Future[Answered]] = defaultdict(Future)
        self.agent = Agent(
            settings,
            lambda data: self.said.append(load_notice(data, clock.monotonic())),
            lambda served: self._answers[served[:3]].set_result(served),
            end_process,
        )

    def start(self, lane: tuple[int, int] = LANE) -> None:
        """Start a worker, and wait for the news."""
        self.agent.start(*lane)
        self.wait_for(LaneReady)

    def wait_for(self, kind: type[Any]) -> Any:
        """The first notice of that kind, which is taken out."""
        found = wait_until(lambda: [notice for notice in self.said if isinstance(notice, kind)], what=kind.__name__)
        self.said.remove(found[0])
        return found[0]

    def send(
        self,
        turn: int,
        frame: bytes,
        tokens: Sequence[Token] = (),
        *,
        dropped: Sequence[Token] = (),
        lane: tuple[int, int] = LANE,
        hold: bool = True,
        carried: Carried = NOTHING_CARRIED,
    ) -> Future[Answered]:
        """Hand a frame to the agent, and have it done."""
        self.agent.take_in(lane, turn, frame, tokens, dropped, carried)
        if hold:
            self.hold(lane)
        return self._answers[*lane, turn]

    def hold(self, lane: tuple[int, int] = LANE, is_wanted: Callable[[], bool] = lambda: False) -> Future[bool]:
        """Let the worker do its frames, on a thread as an engine has it."""
        held: Future[bool] = Future()
        threading.Thread(target=lambda: held.set_result(self.agent.hold(lane, is_wanted))).start()
        return held


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with one worker."""
    node = Node()
    try:
        node.start()
        yield node
    finally:
        node.agent.close(kill=True)


def chunk(items: list[Any], handler: Callable[..., Any], number: int = 1) -> bytes:
    """The first chunk of a job of its own."""
    with notes_shared():
        packed = pack_handler("job", handler, None, IdRule.POSITION, travels=Travels.SHARED_APART).frame
        return dump_frame(ChunkFrame(number, number, dump(items), range(len(items)), handler=packed))


def test_frames_are_done_in_their_order_however_they_come_and_once(node: Node, tmp_path: Path) -> None:
    later = node.send(1, chunk([2], do.double, 2))
    assert not later.done()
    first = node.send(0, chunk([1], do.double, 1))
    assert results(first.result(30).answer) == [2]
    assert results(later.result(30).answer) == [4]
    for turn in (0, 1):
        node.send(turn, chunk([3], do.double, 3))  # a second answer would be an error
    assert results(node.send(2, chunk([4], do.double, 4)).result(30).answer) == [8]


def test_frames_wait_until_their_lane_is_held_and_it_is_held_while_there_are_any(node: Node, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    answers = [node.send(turn, chunk([turn], do.block_until_told(gate), turn + 1), hold=False) for turn in range(2)]
    assert not gate.arrived()
    held = node.hold()
    gate.wait_for(0)
    assert not held.done()
    gate.open()
    assert [results(answer.result(30).answer) for answer in answers] == [[0], [1]]
    assert held.result(30)


def test_a_lane_whose_place_is_wanted_does_one_frame_each_time(node: Node) -> None:
    answers = [node.send(turn, chunk([turn], do.double, turn + 1), hold=False) for turn in range(3)]
    for turn, answer in enumerate(answers):
        assert not answer.done()
        assert node.hold(is_wanted=lambda: True).result(30)
        assert results(answer.result(30).answer) == [2 * turn]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has little time to begin what it was sent."""
    monkeypatch.setattr(overdue, "ANSWER_LIMIT", 3.0)


@pytest.mark.usefixtures("soon")
def test_a_worker_that_does_nothing_of_what_it_was_sent_is_ended(node: Node, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    first = node.send(0, chunk([1], do.drain_descriptors(gate, 30), 1))
    gate.wait_for(1)
    lost = node.send(1, chunk([2], do.double, 2))
    assert results(first.result(30).answer) == [1]
    assert node.wait_for(LaneBroken).why == "it did not begin what it was sent within 3 s"
    node.wait_for(LaneDied)
    assert lost.result(30).answer is None


def test_what_was_left_early_is_fetched_or_comes_with_the_answer(node: Node, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    answer = node.send(0, chunk([0, 1, 2], do.only(2, do.block_until_told(gate))))
    node.wait_for(BellRung)
    assert results(node.agent.fetch(LANE)) == [0, 1]
    assert node.agent.fetch(LANE) is None
    gate.open()
    last = answer.result(30)
    assert (results(last.answer), last.early) == ([2], None)


def test_orders_reach_a_worker_that_runs_and_a_look_is_newer(node: Node, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    answer = node.send(0, chunk([0, 1, 2, 3], do.only(1, do.block_until_told(gate))))
    gate.wait_for(1)
    seen = wait_until(lambda: (node.agent.control(LANE, [SetLimit(1, 2)]) or ())[:4] == (1, Phase.RUNNING, 1, 2))
    assert seen
    stacks: list[str | None] = []
    node.agent.tell_stack(LANE, stacks.append)
    assert "pass_through" in (wait_until(lambda: stacks)[0] or "")
    gate.open()
    last = answer.result(30)
    early = last.early or node.agent.fetch(LANE)
    assert [*results(early), *results(last.answer)] == [0, 1]


def test_a_death_is_reported_with_the_claim_and_leaves_the_rest_to_be_fetched(node: Node, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    answer = node.send(0, chunk([0, 1, 2, 3], do.only(2, do.block_until_told(gate, then=do.kill_self))))
    gate.wait_for(2)
    wait_until(lambda: any(isinstance(notice, BellRung) for notice in node.said), what="early results")
    waiting = node.send(2, chunk([0], do.double, 3))  # the one before it never comes
    gate.open()
    last = answer.result(30)
    died = node.wait_for(LaneDied)
    assert (died.lane, died.generation, died.signal) == (*LANE, "SIGKILL")
    assert died.claim is not None
    assert (died.claim.phase, died.claim.lo) == (Phase.RUNNING, 2)
    assert 0.0 <= clock.monotonic() - died.claim.since < 3600
    assert last.answer is None
    rest = node.agent.last_words(LANE)
    assert waiting.result(30).answer is None
    left = [one for one in (last.early, *rest.early) if one is not None]  # each of these may be first to ask
    assert [results(one) for one in left] == [[0, 1]]
    assert node.send(3, chunk([0], do.double, 3)).result(30) == Answered(*LANE, 3, None, None)
    node.agent.let_go(LANE)
    assert node.agent.control(LANE, []) is None
    assert not node.hold().result(30)
    assert node.send(4, chunk([0], do.double)).result(30) == Answered(*LANE, 4, None, None)


def test_a_shared_object_is_kept_until_it_is_dropped(node: Node) -> None:
    table = mpqueue.share(np.arange(200_000))
    token = token_of(table)
    node.agent.bring(parts_of(table))
    answer = node.send(0, chunk([7], lambda item: int(table[item])), [token])
    assert results(answer.result(30).answer) == [7]
    assert [*node.agent._lent] == [token]
    assert results(node.send(1, chunk([1], do.double, 2), dropped=[token]).result(30).answer) == [2]
    assert not node.agent._lent


def test_a_big_frame_is_mapped_or_sent_where_the_worker_can_t_open_it(node: Node) -> None:
    big = np.arange(1_000_000)
    assert results(node.send(0, chunk([big], len)).result(30).answer) == [1_000_000]
    node.send(1, chunk([0], _lose_the_right_to_open, 2)).result(30)
    answers = [node.send(turn, chunk([big], len, turn + 1)) for turn in (2, 3)]
    assert [results(answer.result(30).answer) for answer in answers] == [[1_000_000]] * 2
    (berth,) = node.agent._berths.values()
    assert berth.is_blind
    assert not berth.apart


def test_segments_of_the_program_are_opened_by_workers_or_carried_to_them() -> None:
    node = Node()
    store, arrays = SegmentStore(), [np.full(100_000, at) for at in range(5)]
    packed = [dump([array], store) for array in arrays]
    contents = [{one.segment.serial: store.contents(one.segment)} for one in packed if one.segment is not None]

    def send(turn: int, items: Packed, at: int | None = None) -> Answered:
        frame = chunk_of(items, 1, _first, number=turn + 1)
        return node.send(turn, frame, carried=NOTHING_CARRIED if at is None else contents[at]).result(30)

    try:
        node.start()
        assert results(send(0, packed[0]).answer) == [0]
        assert results(send(1, far_off(packed[1]), 1).answer) == [1]
        lost = send(2, far_off(packed[2]))
        assert lost.answer is not None
        report = report_of(Leaving(lost.answer))
        assert (report.done, report.ended, report.failures) == (0, Ended.UNREADABLE, {})
        assert lost.is_blind
        assert results(send(3, far_off(packed[2]), 2).answer) == [2]
        node.send(4, chunk([0], _lose_the_right_to_open, 5)).result(30)  # also what is in segments of the agent
        assert [results(send(turn, far_off(packed[turn - 2]), turn - 2).answer) for turn in (5, 6)] == [[3], [4]]
    finally:
        node.agent.close(kill=True)


def test_results_are_carried_where_the_program_can_not_open_them(tmp_path: Path) -> None:
    node = Node(SETTINGS._replace(can_open_results=False))
    gate = Gate(tmp_path)
    give = do.only(1, do.block_until_told(gate), lambda _: bytes(1_000_000))  # plain: it can be sent early
    try:
        node.start()
        waiting = node.send(0, chunk([0, 1], give))
        node.wait_for(BellRung)
        early = node.agent.fetch(LANE)
        assert early is not None
        assert len(early.carried) == 1
        assert results(early) == [bytes(1_000_000)]
        gate.open()
        assert results(waiting.result(30).answer) == [1]
        served = node.send(1, chunk([2, 3], _big, 2)).result(30)
        assert served.answer is not None
        assert served.carried
        assert [int(result[0]) for result in results(Leaving(served.answer, served.carried))] == [2, 3]
        served = node.send(2, chunk([4], do.succeed, 3)).result(30)
        assert (results(served.answer), served.carried) == ([4], {})
    finally:
        node.agent.close(kill=True)


def test_results_are_carried_once_the_program_could_not_open_one(node: Node) -> None:
    assert not node.send(0, chunk([0], _big)).result(30).carried
    node.agent.take_results_by_pipe(LANE)
    assert node.send(1, chunk([1], _big, 2)).result(30).carried


def _big(item: int) -> Any:
    return np.full(100_000, item)


def far_off(packed: Packed) -> Packed:
    """The same, by a name that leads nowhere, nor to a segment of this process, which is that of the agent too."""
    named = elsewhere(packed)
    assert named.segment is not None
    return named._replace(segment=named.segment._replace(inode=0))


def _first(array: Any) -> int:
    return int(array[0])


def _lose_the_right_to_open(item: int) -> int:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "not yours any more")

    vars(payload)["view"] = refuse
    return item


def test_a_fresh_worker_takes_a_lane_over(node: Node) -> None:
    (old,) = results(node.send(0, chunk([0], do.return_pid)).result(30).answer)
    node.agent.let_go(LANE)
    node.agent.let_go(LANE)
    node.agent.start(LANE[0], 1)
    node.wait_for(LaneReady)
    node.agent.let_go(LANE)  # comes late, and is of the one before
    served = node.send(0, chunk([0], do.return_pid), lane=(LANE[0], 1)).result(30)
    assert results(served.answer) != [old]
    assert not [notice for notice in node.said if isinstance(notice, LaneDied)]


def test_where_no_process_can_be_started_lanes_are_seats_in_this_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "no processes here")

    monkeypatch.setattr(LokyLane, "__init__", refuse)
    ended: list[int] = []
    node = Node(end_process=lambda: ended.append(1))
    gate = Gate(tmp_path)
    try:
        node.start()
        assert "no processes here" in node.wait_for(Crowded).reason
        answer = node.send(0, chunk([0, 1, 2], do.only(2, do.block_until_told(gate))))
        node.wait_for(BellRung)
        node.agent.kill(LANE, dump_stack=True)
        assert ended == [1]
        stacks: list[str | None] = []
        node.agent.tell_stack(LANE, stacks.append)
        assert stacks == [None]
        gate.open()
        last = answer.result(30)
        assert (results(last.early), results(last.answer)) == ([0, 1], [2])
        node.agent.let_go(LANE)
    finally:
        node.agent.close(kill=True)
    needy = Node(SETTINGS._replace(threads_per_worker=1))
    try:
        needy.agent.start(*LANE)
        failed: LaneStartFailed = needy.wait_for(LaneStartFailed)
        assert isinstance(failed.error, PermissionError)
    finally:
        needy.agent.close(kill=True)


def test_an_error_that_can_t_be_sent_is_sent_as_its_text() -> None:
    class LocalError(Exception):
        pass

    sent = load_notice(dump_notice(LaneStartFailed(1, 0, LocalError("why"), lasting=True), 0.0), 0.0)
    assert isinstance(sent, LaneStartFailed)
    assert (type(sent.error), str(sent.error), sent.lasting) == (WorkerStartError, "LocalError: why", True)
