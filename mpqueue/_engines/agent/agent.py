"""The agent: the lanes that one node of a cluster has for a queue, in a process of the cluster's engine there.

Its lanes are loky's, as on the program's own machine: so are limits, blame, memory, stacks and recycling. An engine
calls the agent from whatever thread it has, and passes on its notices (`mpqueue._engines.agent.notices`)::

    start                         ->  the notice LaneReady or LaneStartFailed
    serve                         ->  when it is there, the answer, and what was left early and not fetched
    (early results were left)     ->  the notice BellRung; `fetch` hands them over, once
    control                       ->  what the worker's ledger says, after all that it was sent
    tell_stack                    ->  where the worker is
    kill                          ->  the notice LaneDied, as for any death; `last_words` has what is left of it
    let_go, close                 ->  nothing is said of that lane, or of any, any more

Nothing here waits but `serve` and `close`: the others may be called on an event loop. Handlers run in other processes,
so that loop goes on whatever they do.

Where no process can be started, the lanes are seats in this process (`seat_pool`), as the notice `Crowded` says.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple, cast

from mpqueue._core.messages import LaneBroken, LaneDied, LaneReady, LaneStartFailed, MemoryRead, Message
from mpqueue._engines.agent.notices import Crowded, Notice, Rest, dump_notice
from mpqueue._engines.agent.seat_pool import SeatLane, SeatPool
from mpqueue._engines.loky.loky_backend import LokyBackend
from mpqueue._parent.inbox import Inbox, Request
from mpqueue._parent.lane_protocol import Lane, LanePool, LaneSettings, TellingLane
from mpqueue._parent.own_faults import found
from mpqueue._parent.surroundings.clock import SystemClock
from mpqueue._parent.surroundings.memory_sampler import Sampler
from mpqueue._parent.transport.kept_errors import text_of
from mpqueue._wire.frames import NodeFrame, dump_frame
from mpqueue._wire.memory.ledger import Claim
from mpqueue._wire.memory.segments import CommonSegment
from mpqueue._wire.memory.shared import Lent, Token, lend
from mpqueue._wire.pickling.imports import ImportNews
from mpqueue._worker.elsewhere.hosted import Order, Seen, carry_out

#: Where this package is: frames of a stack name its files, and a program may have it in another place.
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))

Served = tuple[bytes | None, bytes | None]
Brought = tuple[Token, bytes]


class _Due(NamedTuple):
    """A frame that waits for its turn."""

    frame: bytes
    brought: Sequence[tuple[Lent, bytes]]
    answer: Future[bytes | None]


class _Berth:
    """A lane as the agent sees it. Used with the agent's lock held."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.path = tuple(sys.path)  #: as its worker has it
        self.is_over = False  #: its worker is gone
        self.waiting = 0  #: frames that are under way
        self.next_turn = 0
        self._overtook: dict[int, _Due] = {}

    def add(self, turn: int, due: _Due) -> None:
        """A frame came, perhaps before one whose turn it is."""
        if self.is_over:
            due.answer.set_result(None)
        else:
            self._overtook[turn] = due

    def take(self) -> _Due | None:
        """The frame whose turn it is, if it is here."""
        due = self._overtook.pop(self.next_turn, None)
        if due is not None:
            self.next_turn += 1
        return due

    def end(self) -> None:
        """What waits for its turn waits for nothing."""
        self.is_over = True
        overtook, self._overtook = self._overtook, {}
        for due in overtook.values():
            due.answer.set_result(None)


class Agent:
    """Made on any thread, in 5 ms and the time that an import of loky takes. Who makes it calls `close`.

    ``tell`` passes bytes on to the program, in the order of the calls, on any thread. ``end_process`` ends the process
    that this is in, where that is of use; it is called only if lanes are seats.
    """

    def __init__(
        self, settings: LaneSettings, tell: Callable[[bytes], object], end_process: Callable[[], object] | None = None
    ) -> None:
        self._settings = settings
        self._tell = tell
        self._end_process = end_process
        self._now = SystemClock().now
        self._inbox = Inbox()
        self._lock = threading.Lock()
        self._lending = threading.Lock()  #: a copy takes a while: no lane waits for that of another
        self._berths: dict[int, _Berth] = {}
        self._lent: dict[Token, tuple[Lent, CommonSegment | None]] = {}
        self._over: set[int] = set()  #: lanes whose workers had too much memory at the last look
        self._is_proven = False  #: a worker has started here
        self._is_crowded = False
        self._is_closed = False
        self._running = True
        try:
            self._pool: LanePool = LokyBackend().open(settings, self._inbox)
        except Exception as error:
            if self._needs_processes:
                self._inbox.close()
                raise
            self._pool = self._crowd(error)
        self._sampler = None if settings.max_memory is None else self._start_sampler()
        self._thread = threading.Thread(target=self._run, name="mpqueue-agent", daemon=True)
        self._thread.start()

    # -- what the program asks for ----------------------------------------------------------------------------

    def start(self, number: int, generation: int) -> None:
        """See `LanePool.start`."""
        with self._lock:
            if not self._is_closed:
                self._berths[number] = _Berth(generation)
                self._pool.start(number, generation)

    def serve(
        self,
        lane: tuple[int, int],
        turn: int,
        frame: bytes,
        brought: Sequence[Brought],
        dropped: Sequence[Token],
        make_room: Callable[[], object],
    ) -> Served:
        """Have that worker do what the frame says; None as its answer where it is gone: what it did is not known.

        ``turn`` counts from 0: a frame may come before one that was sent earlier. ``brought`` are the shared objects
        that the frame is the first to name; ``dropped`` are those that the program has no longer. ``make_room`` is
        called where another frame is before this one.
        """
        answer: Future[bytes | None] = Future()
        due = _Due(frame, [(self._lend(*one), one[1]) for one in brought], answer)
        with self._lock:
            for token in dropped:
                self._lent.pop(token, None)
            berth = self._berth(lane)
            if berth is None:
                return None, None
            has_to_wait = berth.waiting > 0 or turn != berth.next_turn
            berth.waiting += 1
            berth.add(turn, due)
            while (next_due := berth.take()) is not None:
                self._hand_in(lane[0], berth, next_due)
        if self._sampler is not None:
            self._sampler.wake()
        try:
            if has_to_wait:
                make_room()
            return answer.result(), self.fetch(lane)
        finally:
            with self._lock:
                berth.waiting -= 1

    def fetch(self, lane: tuple[int, int]) -> bytes | None:
        """What that worker left early; None where there is nothing."""
        with self._lock:
            return None if (there := self._lane(lane)) is None else self._take_early(there)

    def last_words(self, lane: tuple[int, int]) -> Rest:
        """What a dead worker has left."""
        early = list[bytes]()
        with self._lock:
            if (there := self._lane(lane)) is None:
                return Rest(early, b"")
            while (report := self._take_early(there)) is not None:
                early.append(report)
            return Rest(early, there.take_unsent())

    def control(self, lane: tuple[int, int], orders: Sequence[Order]) -> Seen | None:
        """Carry out the orders, and then say what the worker's ledger says; None where nothing is known of it."""
        there = self._lane(lane)
        if there is None:
            return None
        carry_out(orders, there)
        seen = list[Claim]()
        there.observe(seen.append)
        claim = seen[0]
        age = max(0.0, self._now() - claim.since)
        return claim.chunk, int(claim.phase), claim.lo, claim.hi, age, claim.fraction

    def kill(self, lane: tuple[int, int], *, dump_stack: bool) -> None:
        """See `Lane.kill`."""
        if (there := self._lane(lane)) is not None:
            there.kill(dump_stack=dump_stack)

    def tell_stack(self, lane: tuple[int, int], tell: Callable[[str | None], object]) -> None:
        """See `TellingLane.tell_stack`."""
        there = self._lane(lane)
        if there is None:
            tell(None)
        else:
            cast("TellingLane", there).tell_stack(tell)

    def let_go(self, lane: tuple[int, int]) -> None:
        """That lane is not needed any more: a worker that lives ends by itself. Nothing is said of it."""
        number, _ = lane
        with self._lock:
            berth = self._berth(lane)
            if berth is not None:
                berth.end()
                del self._berths[number]
            if self._lane(lane) is not None:
                self._pool.recycle(number)

    def close(self, *, kill: bool) -> None:
        """End everything, see `LanePool.close`. Idempotent; not on the agent's own thread."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            for berth in self._berths.values():
                berth.end()
        if self._sampler is not None:
            self._sampler.stop()
        self._pool.close(kill=kill)
        self._lent.clear()
        self._inbox.post(Request(self._end, None))
        self._thread.join()

    # -- inside ------------------------------------------------------------------------------------------------

    @property
    def _needs_processes(self) -> bool:
        """True if the queue asks for what only a process of its own has."""
        settings = self._settings
        return (settings.max_memory, settings.threads_per_worker, settings.preload) != (None, None, None)

    def _berth(self, lane: tuple[int, int]) -> _Berth | None:
        berth = self._berths.get(lane[0])
        return None if berth is None or berth.generation != lane[1] else berth

    def _lane(self, lane: tuple[int, int]) -> Lane | None:
        there = self._pool.lane(lane[0])
        return None if there is None or there.generation != lane[1] else there

    def _hand_in(self, number: int, berth: _Berth, due: _Due) -> None:
        """It is this frame's turn. With the lock held, so that no other comes between."""
        lane = self._lane((number, berth.generation))
        if lane is None:
            due.answer.set_result(None)
            return
        if isinstance(lane, SeatLane):
            lane.bring([data for _, data in due.brought])
        else:
            path, news = tuple(sys.path), None
            if path != berth.path:  # users' modules may have come with Dask's `upload_file`
                berth.path, news = path, ImportNews(path, ())
            if due.brought or news is not None:
                lane.send(dump_frame(NodeFrame(news, [lent for lent, _ in due.brought])))
        lane.send(due.frame).add_done_callback(partial(_settle, due.answer))

    def _lend(self, token: Token, data: bytes) -> Lent:
        with self._lending:
            held = self._lent.get(token)
            if held is None:
                held = self._lent[token] = lend(data)
            return held[0]

    def _take_early(self, lane: Lane) -> bytes | None:
        try:
            return lane.take_early()
        except Exception as error:
            self._inbox.post(LaneBroken(lane.number, lane.generation, f"what it sent is damaged: {text_of(error)}"))
            lane.kill()
            return None

    # -- on the agent's thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._running:
            message = self._inbox.take(None)
            try:
                if isinstance(message, Request):
                    message.call()
                elif message is not None and (notice := self._notice(message)) is not None:
                    self._say(notice)
            except Exception as error:
                lane, generation = getattr(message, "lane", None), getattr(message, "generation", None)
                self._say(found("in the agent of its workers", error, lane=lane, generation=generation))
        self._inbox.close()

    def _end(self) -> None:
        self._running = False

    def _notice(self, message: Message) -> Notice | None:
        """What the program is to know of a message."""
        match message:
            case LaneReady():
                self._is_proven = True
            case LaneStartFailed():
                if self._is_crowded or self._has_to_make_do(message):
                    return None
            case LaneDied(lane=number, generation=generation):
                with self._lock:
                    if (berth := self._berth((number, generation))) is not None:
                        berth.end()
            case MemoryRead():
                return self._too_large(message)
        return cast("Notice", message)

    def _too_large(self, read: MemoryRead) -> MemoryRead | None:
        """Of a look at all workers, what has to be judged; the memory of this machine is not the program's business."""
        most = self._settings.max_memory or 0
        over = {worker.lane for worker in read.workers if worker.used > most}
        due, self._over = over | self._over, over
        workers = [worker for worker in read.workers if worker.lane in due]
        return MemoryRead(workers) if workers else None

    def _has_to_make_do(self, failed: LaneStartFailed) -> bool:
        """True if no process can be started here, so that lanes are seats from now on."""
        if self._is_proven or self._needs_processes or not failed.lasting:
            return False
        with self._lock:
            if self._is_closed:
                return False
            self._pool.close(kill=True)  # it has no worker
            self._pool = self._crowd(failed.error)
            for number, berth in self._berths.items():
                self._pool.start(number, berth.generation)
        return True

    def _crowd(self, error: BaseException) -> SeatPool:
        self._is_crowded = True
        self._say(Crowded(text_of(error)))
        return SeatPool(self._inbox.post, self._end_process)

    def _say(self, notice: Notice) -> None:
        self._tell(dump_notice(notice, self._now()))

    def _start_sampler(self) -> Sampler:
        return Sampler(lambda: list(self._berths), self._pool, self._inbox.post, self._is_busy, "mpqueue-agent-sampler")

    def _is_busy(self) -> bool:
        return any(berth.waiting for berth in list(self._berths.values()))


def _settle(answer: Future[bytes | None], call: Future[bytes]) -> None:
    answer.set_result(None if call.exception() is not None else call.result())
