"""Workers in processes of a cluster's engine: each has a thread of its own, and is found again by its token.

What the engine calls, on whatever thread: `open_seat`, `serve`, `control`, `fetch`, `close_seats`. The ledger of such a
worker is a file in memory, so that a guardian, another process on the same machine that is never busy (Ray: an actor),
can `adopt` it: look into it, and set limits, also while the worker holds its global lock or is dead.

====================  =============================  =====================================
what                  where                          also while the worker hangs, or is dead
====================  =============================  =====================================
open, serve, fetch    in the worker's process        no
control, last_claim   in the guardian, if there is   yes
                      one, else in the worker's
====================  =============================  =====================================

What is big of items and results is in segments. A worker that ``carries`` has what is in them with its frames, and
hands over what is in its own with its answers. Where its guardian is the parent itself, and the two can open each
other's files (`settle`), segments are only named, as on one machine.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from mpqueue._os import monotonic as clock
from mpqueue._os.files import open_file
from mpqueue._os.memory.memory_files import SharedFile
from mpqueue._wire.memory.ledger import BLIND, PIPED, SIZE, Ledger
from mpqueue._wire.memory.segments import NOTHING_CARRIED, Carried, SegmentRef, can_be_opened
from mpqueue._wire.memory.shared import Brought, take_in, token_of
from mpqueue._worker import station
from mpqueue._worker.elsewhere import hello
from mpqueue._worker.elsewhere.private import Leaving, PrivateOutbox, private_worker
from mpqueue._worker.main import Worker

#: Seconds that a chunk aims at: a cluster's engine takes some milliseconds of the parent's CPU for each, and brings the
#: answer 10 ms later.
CHUNK_SECONDS = 0.225
#: Bytes of items that a chunk aims at, at most: to send it costs as much as some MB of them.
CHUNK_BYTES = 16 << 20
#: Seconds that closing waits for the end of setups.
CLOSE_LIMIT = 5.0


class TellFlags(NamedTuple):
    """That job is paused, or cancelled, or neither."""

    job: int
    pause: bool
    cancel: bool


class SetLimit(NamedTuple):
    """Nothing from that position on may be claimed in that chunk."""

    chunk: int
    position: int


Order = TellFlags | SetLimit


class Ordered(Protocol):
    """What takes orders: a ledger, or a lane."""

    def set_flags(self, job: int, *, pause: bool, cancel: bool) -> None:
        """See `lane_protocol.Lane.set_flags`."""
        ...

    def set_limit(self, chunk: int, position: int) -> None:
        """See `lane_protocol.Lane.set_limit`."""
        ...


#: A claim as it is sent: chunk, phase, lo, hi, seconds since, fraction. Clocks of two machines have nothing in common.
Seen = tuple[int, int, int, int, float, float]


class _Received(NamedTuple):
    """A frame, and what has come with it."""

    frame: bytes
    carried: Carried
    answer: Future[Leaving]


class HostedSeat:
    """One worker: its ledger, its outbox and its thread."""

    def __init__(
        self, lane: int, generation: int, parent: int, ring: Callable[[], object], *, carries: bool = False
    ) -> None:
        self.page = SharedFile(f"ledger-{lane}", SIZE)
        self.ledger = Ledger(self.page.fd)
        self.outbox = PrivateOutbox(self.ledger, ring)
        if carries:  # until it is known that one can open the other's
            self.ledger.words[PIPED] = self.ledger.words[BLIND] = 1
        self._lane, self._generation, self._parent = lane, generation, parent
        self._carries = carries
        self._frames: queue.SimpleQueue[_Received | None] = queue.SimpleQueue()
        self._brought: list[Brought] = []  #: shared objects that came, for the worker's own thread
        self._is_closed = False
        self.next_number = 0  #: the number of the frame that comes next
        self._overtook: dict[int, _Received] = {}
        self.waiting = 0  #: frames that are under way
        self.thread = threading.Thread(target=self._run, name=f"mpqueue-seat-{lane}", daemon=True)
        self.thread.start()

    def receive(self, frame: bytes, number: int | None, carried: Carried = NOTHING_CARRIED) -> Future[Leaving]:
        """Hand a frame to the worker, after those of lower number. With the lock held: nothing comes after the end."""
        answer: Future[Leaving] = Future()
        self._overtook[self.next_number if number is None else number] = _Received(frame, carried, answer)
        while (due := self._overtook.pop(self.next_number, None)) is not None:
            self.next_number += 1
            self._frames.put(due)
        return answer

    def bring(self, brought: Sequence[Brought]) -> None:
        """Have the worker know these shared objects before the frames that are handed to it from now on."""
        self._brought.extend(brought)

    def _run(self) -> None:
        worker = private_worker(
            self._lane,
            self._generation,
            self._parent,
            self.ledger,
            self.outbox,
            carries=self._carries,
        )
        self.outbox.take_carried = worker.seat.exchange.take_carried
        with station.seated(worker.seat.station):
            while (due := self._frames.get()) is not None:
                if self._is_closed:
                    due.answer.set_exception(_gone())
                    continue
                try:
                    self._take_in(worker)
                    due.answer.set_result(_serve(worker, due))
                except BaseException as error:
                    due.answer.set_exception(error)
                del due  # and with it what it has brought
            worker.close()

    def _take_in(self, worker: Worker) -> None:
        while self._brought:
            shared = take_in(self._brought.pop())
            worker.seat.brought[token_of(shared)] = shared

    def close(self) -> None:
        """Start nothing more; end what setups have begun once nothing runs. Does not wait."""
        self._is_closed = True
        for due in self._overtook.values():
            self._frames.put(due)
        self._frames.put(None)
        self.page.close()


def _serve(worker: Worker, due: _Received) -> Leaving:
    exchange = worker.seat.exchange
    with exchange.having(due.carried):
        return Leaving(worker.receive(due.frame).data, exchange.take_carried())


def _gone() -> LookupError:
    return LookupError("this worker is gone")


_seats: dict[str, HostedSeat] = {}
_adopted: dict[str, Ledger] = {}
_lock = threading.Lock()


def open_seat(
    token: str, lane: int, generation: int, parent: int, ring: Callable[[], object], *, carries: bool = False
) -> hello.Introduction:
    """Make a worker here, known by that token; says who this process is, and where the worker's ledger is."""
    seat = HostedSeat(lane, generation, parent, ring, carries=carries)
    with _lock:
        _seats[token] = seat
    return {**hello.introduce(), "ledger": seat.page.path}


def serve(
    token: str,
    frame: bytes,
    make_room: Callable[[], object] | None = None,
    number: int | None = None,
    brought: Sequence[Brought] = (),
    carried: Carried = NOTHING_CARRIED,
) -> tuple[Leaving, Leaving | None]:
    """Have that worker do what the frame says; its answer, and what it left early that has not been fetched.

    ``make_room`` is called where another frame is before this one. ``number``, from 0, is for engines on which a frame
    may overtake another: it waits for those before it. ``brought`` are the shared objects that the frame is the first
    to name; ``carried`` is what is in the segments that it names.

    Raises LookupError where it is not here (any more), and so has not done it: its process was replaced, or closed it.
    """
    with _lock:
        seat = _seats.get(token)
        if seat is None:
            raise _gone()
        has_to_wait = seat.waiting > 0 or number not in (None, seat.next_number)
        seat.waiting += 1
        seat.bring(brought)
        answer = seat.receive(frame, number, carried)
    try:
        if has_to_wait and make_room is not None:
            make_room()
        return answer.result(), seat.outbox.fetch_whole()
    finally:
        with _lock:
            seat.waiting -= 1


def fetch(token: str) -> Leaving | None:
    """What that worker left early; None where there is nothing."""
    seat = _seats.get(token)
    return None if seat is None else seat.outbox.fetch_whole()


def settle(token: str, anchor: SegmentRef | None) -> bool:
    """Before any frame: try out whether that worker can open its guardian's segments, of which this is one."""
    seat = _seats.get(token)
    if seat is None or anchor is None or not can_be_opened(anchor):
        return False
    seat.ledger.words[BLIND] = 0
    return True


def adopt(token: str, path: str) -> bool:
    """In a guardian: have that worker's ledger at hand; False where it can't be."""
    try:
        fd = open_file(path, os.O_RDWR)
    except OSError:
        return False
    try:
        _adopted[token] = Ledger(fd)
    finally:
        os.close(fd)
    return True


def shares_memory(token: str) -> bool:
    """In a guardian that is the parent: whether that worker can (still) open its segments. On any thread."""
    ledger = _adopted.get(token)
    try:
        return ledger is not None and not ledger.words[BLIND]
    except ValueError:  # it was closed just now
        return False


def name_results(token: str, *, named: bool) -> None:
    """In a guardian that is the parent: whether it can open that worker's segments, or they have to be carried."""
    ledger = _adopted.get(token)
    if ledger is not None:
        with contextlib.suppress(ValueError):  # it was closed just now
            ledger.words[PIPED] = not named


def control(token: str, orders: Sequence[Order]) -> Seen | None:
    """Carry out the orders, and then say what the worker's ledger says; None where nothing is known of it."""
    ledger = _ledger(token)
    if ledger is None:
        return None
    carry_out(orders, ledger)
    return _seen(ledger)


def carry_out(orders: Sequence[Order], there: Ordered) -> None:
    """Hand these orders on, one after the other."""
    for order in orders:
        if isinstance(order, TellFlags):
            there.set_flags(order.job, pause=order.pause, cancel=order.cancel)
        else:
            there.set_limit(order.chunk, order.position)


def _ledger(token: str) -> Ledger | None:
    seat = _seats.get(token)
    return seat.ledger if seat is not None else _adopted.get(token)


def _seen(ledger: Ledger) -> Seen:
    claim = ledger.read()
    return claim.chunk, int(claim.phase), claim.lo, claim.hi, max(0.0, clock.monotonic() - claim.since), claim.fraction


def last_claims(tokens: Sequence[str]) -> dict[str, Seen]:
    """In a guardian: what the ledgers of dead workers say; they are forgotten then."""
    found = {}
    for token in tokens:
        ledger = _adopted.pop(token, None)
        if ledger is not None:
            found[token] = _seen(ledger)
            ledger.close()
    return found


def close_seats(tokens: Sequence[str], *, wait: bool = True) -> None:
    """These workers are not needed any more; what of their setups is left to end is ended, within reason."""
    with _lock:
        closing = [_seats.pop(token) for token in tokens if token in _seats]
        for seat in closing:
            seat.close()
    if wait:
        await_ends(closing)


def await_ends(closing: Sequence[HostedSeat]) -> None:
    """Wait until these seats, which are closed, have ended what setups began, within reason."""
    end = clock.monotonic() + CLOSE_LIMIT
    for seat in closing:
        seat.thread.join(max(0.0, end - clock.monotonic()))


def forget(tokens: Sequence[str]) -> None:
    """In a guardian: these ledgers are not needed any more."""
    for token in tokens:
        ledger = _adopted.pop(token, None)
        if ledger is not None:
            ledger.close()
