"""Workers in a process of somebody else's: seats with threads of their own, and a guardian that reads their ledgers."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpqueue import current_item
from mpqueue._wire.frames import ChunkFrame, Ended, ReportFrame, dump_frame, load_frame
from mpqueue._wire.ids import IdRule
from mpqueue._wire.memory.ledger import Phase
from mpqueue._wire.memory.segments import NOTHING_CARRIED, Carried, CommonSegment, SegmentStore
from mpqueue._wire.pace import CHUNK_SECONDS, LIMIT
from mpqueue._wire.pickling.packed_handler import Travels, pack_handler
from mpqueue._wire.pickling.payload import Packed, dump, load
from mpqueue._worker.elsewhere import hello, hosted
from mpqueue._worker.elsewhere.private import Leaving
from tests.support import handlers as do
from tests.support.programs import start_program
from tests.support.waiting import Gate, wait_until


class Seat:
    """One worker, and what its engine would do with it."""

    def __init__(self, *, carries: bool = False) -> None:
        self.token = uuid.uuid4().hex
        self.bells = threading.Semaphore(0)
        self.told = hosted.open_seat(self.token, 7, 0, 1, self.bells.release, carries=carries)

    def send(
        self,
        frame: bytes,
        make_room: Callable[[], object] | None = None,
        number: int | None = None,
        carried: Carried = NOTHING_CARRIED,
    ) -> Future[tuple[Leaving, Leaving | None]]:
        """Serve a frame on a thread of its own, as an engine does."""
        answer: Future[tuple[Leaving, Leaving | None]] = Future()

        def serve() -> None:
            try:
                answer.set_result(hosted.serve(self.token, frame, make_room, number, carried=carried))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=serve).start()
        return answer


@pytest.fixture
def seat() -> Iterator[Seat]:
    """A worker in this process."""
    seat = Seat()
    yield seat
    hosted.close_seats([seat.token])


@pytest.fixture
def carrying_seat() -> Iterator[Seat]:
    """A worker in this process to which segments are carried, and its parent's side of its ledger."""
    seat = Seat(carries=True)
    assert hosted.adopt(seat.token, seat.told["ledger"])
    yield seat
    hosted.close_seats([seat.token])
    hosted.forget([seat.token])


def chunk(items: list[Any], handler: Callable[..., Any], *, number: int = 1, setup: Any = None, **more: Any) -> bytes:
    """The first chunk of a job of its own."""
    return chunk_of(dump(items), len(items), handler, number=number, setup=setup, **more)


def chunk_of(
    items: Packed | list[Packed],
    count: int,
    handler: Callable[..., Any],
    *,
    number: int = 1,
    setup: Any = None,
    **more: Any,
) -> bytes:
    """The same of items that are pickled already."""
    packed = pack_handler("job", handler, setup, IdRule.POSITION, travels=Travels.WHOLE).frame
    return dump_frame(ChunkFrame(number, number, items, range(count), handler=packed, **more))


def elsewhere(packed: Packed) -> Packed:
    """The same, by a name that leads nowhere."""
    assert packed.segment is not None
    return packed._replace(segment=packed.segment._replace(path="/proc/self/fd/99999"))


def results(left: Leaving | bytes | None) -> list[Any]:
    """What a report brings home."""
    assert left is not None
    left = Leaving(left) if isinstance(left, bytes) else left
    packed, carried = report_of(left).results, left.carried
    if isinstance(packed, Packed):
        return list(load(packed, carried=carried))
    return [load(one, carried=carried) for one in packed if isinstance(one, Packed)]


def report_of(left: Leaving) -> ReportFrame:
    """The report itself."""
    report: ReportFrame = load_frame(left.frame)
    return report


def test_a_chunk_is_run_on_the_worker_s_own_thread_and_setup_ends_with_it(seat: Seat, tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    def setup() -> Iterator[int]:
        yield threading.get_ident()
        gate.announce(threading.get_ident())

    answers = [seat.send(chunk([1, 2], lambda item, thread: (item, thread), setup=setup)) for _ in range(2)]
    (one, early), (two, _) = (answer.result(30) for answer in answers)
    thread = results(one)[0][1]
    assert results(one) == results(two) == [(1, thread), (2, thread)]
    assert (early, thread != threading.get_ident()) == (None, True)
    hosted.close_seats([seat.token])
    assert gate.arrived() == {str(thread)}


def test_what_is_finished_can_be_fetched_once_while_a_slow_item_runs(seat: Seat, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    answer = seat.send(chunk([0, 1, 2], do.only(2, do.block_until_told(gate))))
    assert seat.bells.acquire(timeout=30)
    assert results(hosted.fetch(seat.token)) == [0, 1]
    assert hosted.fetch(seat.token) is None
    gate.open()
    assert results(answer.result(30)[0]) == [2]


def test_what_nobody_fetched_comes_with_the_answer(seat: Seat, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    answer = seat.send(chunk([0, 1, 2], do.only(2, do.block_until_told(gate))))
    assert seat.bells.acquire(timeout=30)
    gate.open()
    last, early = answer.result(30)
    assert (results(early), results(last)) == ([0, 1], [2])


def test_a_chunk_is_ended_between_two_items_and_later_than_on_one_machine(seat: Seat) -> None:
    def nap(seconds: float) -> bool:
        return threading.Event().wait(seconds)

    limit = LIMIT * hosted.CHUNK_SECONDS
    long = report_of(seat.send(chunk([limit, 0.0], nap, limit=limit)).result(30)[0])
    assert (long.done, long.ended) == (1, Ended.TIME)
    began = time.monotonic()
    answer = seat.send(chunk([2 * LIMIT * CHUNK_SECONDS, 0.0], nap, limit=limit)).result(30)[0]
    if time.monotonic() - began < limit:  # else the machine was too busy to say anything
        assert len(results(answer)) == 2


def test_orders_and_looks_reach_the_worker_while_it_runs(seat: Seat, tmp_path: Path) -> None:
    gate = Gate(tmp_path)

    def tell(item: int) -> tuple[int, bool]:
        if item == 1:
            gate.announce(item)
            wait_until(lambda: current_item().paused)
        return item, current_item().paused

    answer = seat.send(chunk([0, 1, 2, 3], tell))
    gate.wait_for(1)
    wait_until(lambda: _seen(seat.token)[:4] == (1, Phase.RUNNING, 1, 2), what="the items behind it to be cut off")
    hosted.control(seat.token, [hosted.TellFlags(1, pause=True, cancel=False)])
    last, early = answer.result(30)
    assert [*(results(early) if early else []), *results(last)] == [(0, False), (1, True)]
    answer = seat.send(chunk([0, 1, 2], do.succeed, number=2))
    assert results(answer.result(30)[0]) == [0, 1, 2], "another job is not paused"
    hosted.control(seat.token, [hosted.SetLimit(3, 1)])
    assert results(seat.send(chunk([0, 1, 2], do.succeed, number=3)).result(30)[0]) == [0]


def test_a_frame_that_waits_makes_room_and_is_not_run_after_the_end(seat: Seat, tmp_path: Path) -> None:
    gate, room = Gate(tmp_path), threading.Event()
    first = seat.send(chunk([0], do.block_until_told(gate)))
    gate.wait_for(0)
    second = seat.send(chunk([1], do.block_until_told(gate), number=2), room.set)
    assert room.wait(30)
    hosted.close_seats([seat.token], wait=False)
    with pytest.raises(LookupError, match="gone"):
        hosted.serve(seat.token, b"")
    gate.open()
    assert results(first.result(30)[0]) == [0]
    with pytest.raises(LookupError, match="gone"):
        second.result(30)
    assert gate.arrived() == {"0"}


def test_a_frame_that_overtook_another_waits_for_it(seat: Seat, tmp_path: Path) -> None:
    """Only the first one has the handler."""
    gate, room = Gate(tmp_path), threading.Event()
    later = ChunkFrame(1, 2, dump([5]), range(1))
    second = seat.send(dump_frame(later), room.set, 1)
    assert room.wait(30)
    first = seat.send(chunk([1], do.block_until_told(gate, then=do.double)), None, 0)
    gate.open()
    assert (results(first.result(30)[0]), results(second.result(30)[0])) == ([2], [10])
    lost = seat.send(dump_frame(later), None, 3)
    wait_until(lambda: hosted._seats[seat.token].waiting == 1)
    hosted.close_seats([seat.token])
    with pytest.raises(LookupError, match="gone"):
        lost.result(30)


def test_what_is_big_is_carried_both_ways_until_each_can_open_the_segments_of_the_other(carrying_seat: Seat) -> None:
    store, array = SegmentStore(), np.arange(100_000)
    for number in (1, 2):
        packed = dump([array], store)
        assert packed.segment is not None
        frame = chunk_of(elsewhere(packed), 1, do.succeed, number=number)
        carried = {packed.segment.serial: store.contents(packed.segment)}
        answer = carrying_seat.send(frame, carried=carried).result(30)[0]
        (result,) = results(answer)
        assert np.array_equal(result, array)
        assert result.flags.writeable
        assert [*report_of(answer).returned] == [packed.segment.serial]
        assert len(answer.carried) == 1
        store.take_back([packed.segment.serial])
    anchor = CommonSegment([memoryview(b"anchor")])
    assert not hosted.shares_memory(carrying_seat.token)
    assert hosted.settle(carrying_seat.token, anchor.ref)
    hosted.name_results(carrying_seat.token, named=True)
    assert hosted.shares_memory(carrying_seat.token)
    answer = carrying_seat.send(chunk_of(dump([array], store), 1, do.succeed, number=3)).result(30)[0]
    assert not answer.carried
    assert np.array_equal(results(answer)[0], array)
    hosted.name_results(carrying_seat.token, named=False)
    assert carrying_seat.send(chunk([1], lambda _: array, number=4)).result(30)[0].carried


@pytest.mark.parametrize("careful", [False, True])
def test_items_that_a_worker_can_no_longer_open_come_back_to_be_carried(carrying_seat: Seat, careful: bool) -> None:
    anchor, store, array = CommonSegment([memoryview(b"anchor")]), SegmentStore(), np.arange(100_000)
    assert hosted.settle(carrying_seat.token, anchor.ref)
    assert not hosted.settle(carrying_seat.token, anchor.ref._replace(path="/proc/self/fd/99999"))
    lost = elsewhere(dump(array if careful else [1, array], store))
    items = [dump(1), lost] if careful else lost
    report = report_of(carrying_seat.send(chunk_of(items, 2, do.succeed)).result(30)[0])
    assert (report.done, report.ended, report.failures) == (
        (1, Ended.TIME, {}) if careful else (0, Ended.UNREADABLE, {})
    )
    assert not hosted.shares_memory(carrying_seat.token)


def test_what_is_left_early_is_carried_with_it(carrying_seat: Seat, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    handler = do.only(1, do.block_until_told(gate), lambda _: bytes(1_000_000))
    answer = carrying_seat.send(chunk([0, 1], handler))
    assert carrying_seat.bells.acquire(timeout=30)
    early = hosted.fetch(carrying_seat.token)
    assert early is not None
    assert len(early.carried) == 1
    assert results(early) == [bytes(1_000_000)]
    gate.open()
    assert results(answer.result(30)[0]) == [1]
    assert not answer.result(30)[0].carried


def test_who_is_not_here_is_no_worker() -> None:
    assert hosted.fetch("nobody") is None
    assert hosted.control("nobody", [hosted.SetLimit(1, 0)]) is None
    assert hosted.last_claims(["nobody"]) == {}
    assert not hosted.adopt("nobody", "/proc/self/fd/99999")
    with pytest.raises(LookupError, match="gone"):
        hosted.serve("nobody", b"")


@pytest.mark.slow
def test_a_guardian_sees_what_a_worker_runs_and_what_it_ran_when_it_died(tmp_path: Path) -> None:
    """The worker's process holds its global lock, so that nobody in it could answer; and then it is killed."""
    (tmp_path / "frame").write_bytes(chunk([0, 1, 2], do.only(1, do.hang_holding_gil)))
    program = start_program(
        tmp_path,
        """
        import pathlib
        from mpqueue._worker.elsewhere import hosted
        print(hosted.open_seat("worker", 7, 0, 1, lambda: None)["ledger"], flush=True)
        hosted.serve("worker", pathlib.Path("frame").read_bytes())
        """,
    )
    assert program.stdout is not None
    assert program.stderr is not None
    try:
        assert hosted.adopt("worker", program.stdout.readline().strip())
        wait_until(lambda: _seen("worker")[:3] == (1, Phase.RUNNING, 1), what="the item to be seen")
    finally:
        program.kill()
        program.wait(30)
        program.stdout.close()
        program.stderr.close()
    assert hosted.last_claims(["worker"])["worker"][:3] == (1, Phase.RUNNING, 1)
    assert hosted.last_claims(["worker"]) == {}


def _seen(token: str) -> hosted.Seen:
    seen = hosted.control(token, [])
    assert seen is not None
    return seen


def test_a_worker_s_introduction_leads_to_its_ledger(seat: Seat, tmp_path: Path) -> None:
    assert hello.find_difference(hello.introduce(), seat.told) is None
    assert hosted.adopt("adopted", seat.told["ledger"])
    gate = Gate(tmp_path)
    answer = seat.send(chunk([0, 1], do.only(1, do.block_until_told(gate))))
    gate.wait_for(1)
    assert _seen("adopted")[:3] == (1, Phase.RUNNING, 1)
    gate.open()
    assert results(answer.result(30)[0])[-1] == 1
    hosted.forget(["adopted"])
    assert hosted.control("adopted", []) is None
