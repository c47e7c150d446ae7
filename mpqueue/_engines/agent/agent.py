"""The agent: the lanes that one node of a cluster has for a queue, in a process of the cluster's engine there.

Its lanes are loky's, as on the program's own machine: so are limits, blame, memory, stacks and recycling. An engine
calls the agent from whatever thread it has, and passes on its notices (`mpqueue._engines.agent.notices`)::

    start                         ->  the notice LaneReady or LaneStartFailed
    take_in                       ->  `Answered`: the answer, and what was left early and not fetched; with the
                                      contents of segments, where the program can't open those of workers here
    hold                          ->  frames that are there, and that come, are handed to the worker meanwhile
    (early results were left)     ->  the notice BellRung; `fetch` hands them over, once
    control                       ->  what the worker's ledger says, after all that it was sent
    tell_stack                    ->  where the worker is
    kill                          ->  the notice LaneDied, as for any death; `last_words` has what is left of it
    let_go, close                 ->  nothing is said of that lane, or of any, any more

Nothing here waits but `hold`, `bring` and `close`: the others may be called on an event loop. Handlers run in other
processes, so that loop goes on whatever they do.

Where no process can be started, the lanes are seats in this process (`seat_pool`), as the notice `Crowded` says.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

from mpqueue._core.messages import LaneBroken, LaneDied, LaneReady, LaneStartFailed, MemoryRead, Message
from mpqueue._core.rules import overdue
from mpqueue._engines.agent.notices import Crowded, Notice, Rest, dump_notice
from mpqueue._engines.agent.seat_pool import SeatLane, SeatPool
from mpqueue._engines.loky.loky_backend import LokyBackend
from mpqueue._engines.loky.loky_lane import LokyLane
from mpqueue._parent.inbox import Inbox, Request
from mpqueue._parent.lane_protocol import Lane, LanePool, LaneSettings, TellingLane
from mpqueue._parent.own_faults import found
from mpqueue._parent.surroundings.clock import SystemClock
from mpqueue._parent.surroundings.memory_sampler import Sampler
from mpqueue._parent.transport.kept_errors import text_of
from mpqueue._wire.frames import NOT_OPENED, ApartFrame, LadenFrame, NodeFrame, dump_frame, load_leaving
from mpqueue._wire.memory.ledger import Claim, Phase
from mpqueue._wire.memory.segments import BIG, NOTHING_CARRIED, Carried, CommonSegment, SegmentStore, view
from mpqueue._wire.memory.shared import Brought, Lent, Parts, Token, lend
from mpqueue._wire.pickling.payload import Packed, put_apart, view_parts
from mpqueue._worker.elsewhere.hosted import Order, Seen, carry_out
from mpqueue._worker.elsewhere.private import Leaving

#: Where this package is: frames of a stack name its files, and a program may have it in another place.
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))

#: Seconds that a lane is held on without a frame: so long the next one may take to come after an answer.
GRACE = 0.05
#: Seconds after which a lane is held no more, even if no other wants its place: others may not be seen from here.
HOLD_LIMIT = 5.0


class Answered(NamedTuple):
    """What came of a frame."""

    number: int  #: of the lane
    generation: int
    turn: int
    answer: bytes | None  #: None: the worker is gone, and what it did is not known
    early: bytes | None  #: what it left early, and was not fetched
    carried: Carried = NOTHING_CARRIED  #: what is in segments of the worker that these name, if it is to be carried
    is_blind: bool = False  #: it could not open a segment, so they are to be carried to it


class _SharedCopy(NamedTuple):
    """A shared object that is here."""

    lent: Lent
    segment: CommonSegment | None  #: lives as long as this
    brought: Brought | None  #: as it came, for seats


class _Due(NamedTuple):
    """A frame that waits for its turn, or until its lane is held."""

    frame: bytes
    carried: Carried
    brought: Sequence[_SharedCopy]


class _Apart(NamedTuple):
    """A frame in a segment."""

    packed: Packed
    serials: Sequence[int]  #: see `ApartFrame`


def _whole(frame: bytes | memoryview, beside: Sequence[memoryview], serials: Sequence[int]) -> bytes:
    """A frame with what is carried with it, without any segment."""
    if not serials:
        return bytes(frame)
    return dump_frame(LadenFrame(bytes(frame), dict(zip(serials, map(bytes, beside), strict=True))))


def _opened(answer: bytes) -> Leaving:
    """A worker's answer and what is carried with it. A dead worker's segments can't be opened, and are left out."""
    frame, segments = load_leaving(answer)
    carried = {}
    for ref in segments:
        with contextlib.suppress(OSError):
            carried[ref.serial] = view(ref)
    return Leaving(frame, carried)


def _is_blind(lane: Lane | None) -> bool:
    return isinstance(lane, LokyLane) and lane.is_blind


class _Hold:
    """A lane may work, until its place is wanted by others."""

    def __init__(self, until: float, is_wanted: Callable[[], bool]) -> None:
        self.is_ending = False  #: it gets no frame more
        self._until = until
        self._is_wanted = is_wanted
        self._has_begun = False

    def takes_a_frame(self, now: float) -> bool:
        """Whether it takes one more. It takes one at least, so that the lane gets on."""
        if self._has_begun and (now >= self._until or self._is_wanted()):
            self.is_ending = True
        self._has_begun = True
        return not self.is_ending


class _Berth:
    """A lane as the agent sees it. Used with the agent's lock held."""

    def __init__(self, generation: int, lock: threading.RLock) -> None:
        self.generation = generation
        self.path = tuple(sys.path)  #: as its worker has it
        self.is_over = False  #: its worker is gone
        self.at_work = 0  #: frames that the worker has
        self.asked_at = 0.0  #: when it was given one while it had none, or answered last
        self.suspected_at: float | None = None  #: since when it has done nothing of them, at the last look
        self.hold: _Hold | None = None
        self.changed = threading.Condition(lock)  #: the worker has no frame any more, or is gone
        self.next_turn = 0
        self._due: dict[int, _Due] = {}
        self.apart: dict[int, _Apart] = {}  #: what frames that the worker has are in
        self.is_blind = False  #: the worker could not open such a segment

    def add(self, turn: int, due: _Due) -> None:
        """A frame came, perhaps before one whose turn it is, or once more."""
        if turn >= self.next_turn:
            self._due.setdefault(turn, due)

    def take(self, now: float) -> _Due | None:
        """The frame whose turn it is, if it is here, and may begin."""
        hold = self.hold
        if hold is None or hold.is_ending or self.next_turn not in self._due or not hold.takes_a_frame(now):
            return None
        self.next_turn += 1
        return self._due.pop(self.next_turn - 1)

    def end(self) -> list[int]:
        """What waits for its turn waits for nothing: the turns of these frames."""
        self.is_over = True
        self.changed.notify_all()
        due, self._due = self._due, {}
        return sorted(due)


class Agent:
    """Made on any thread, in 5 ms and the time that an import of loky takes. Who makes it calls `close`.

    ``tell`` passes bytes on to the program, and ``answer`` what came of a frame; both in the order of the calls, on any
    thread, and neither may wait. ``end_process`` ends the process that this is in, where that is of use; it is called
    only if lanes are seats.
    """

    def __init__(
        self,
        settings: LaneSettings,
        tell: Callable[[bytes], object],
        answer: Callable[[Answered], object],
        end_process: Callable[[], object] | None = None,
    ) -> None:
        self._settings = settings
        self._tell = tell
        self._answer = answer
        self._end_process = end_process
        self._now = SystemClock().now
        self._inbox = Inbox()
        self._lock = threading.RLock()
        self._lending = threading.Lock()  #: a copy takes a while: no lane waits for that of another
        self._berths: dict[int, _Berth] = {}
        self._lent: dict[Token, _SharedCopy] = {}
        self._store = SegmentStore()  #: for big frames
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
                self._berths[number] = _Berth(generation, self._lock)
                self._pool.start(number, generation)

    def bring(self, brought: Brought) -> None:
        """This shared object is here from now on. Costs a copy of its parts, if these came; not on an event loop."""
        with self._lending:
            if brought.token not in self._lent:
                lent, segment = lend(brought) if isinstance(brought, Parts) else (brought, None)
                self._lent[brought.token] = _SharedCopy(lent, segment, brought if self._is_crowded else None)

    def take_in(
        self,
        lane: tuple[int, int],
        turn: int,
        frame: bytes,
        tokens: Sequence[Token] = (),
        dropped: Sequence[Token] = (),
        carried: Carried = NOTHING_CARRIED,
    ) -> None:
        """Have that worker do what the frame says, once at most, however often it comes; what comes of it is answered.

        ``turn`` counts from 0: a frame may come before one that was sent earlier. ``tokens`` are the shared objects,
        which are here, that the frame is the first to name; ``dropped`` those that the program has no longer.
        ``carried`` is what is in segments of the program that the frame names.
        """
        with self._lock:
            brought = [held for token in tokens if (held := self._lent.get(token)) is not None]
            for token in dropped:
                self._lent.pop(token, None)
            berth = self._berth(lane)
            if berth is None or berth.is_over:
                self._answer(Answered(*lane, turn, None, None))
            else:
                berth.add(turn, _Due(frame, carried, brought))
                self._hand_in_due(lane[0], berth)

    def hold(self, lane: tuple[int, int], is_wanted: Callable[[], bool]) -> bool:
        """Let that worker do its frames, until none has been there for a moment; False where it is gone.

        Where ``is_wanted`` says that others want this place, or after `HOLD_LIMIT`, it is handed none any more, and
        this returns when it has done those that it has. Called with a lock held; it must not wait.
        """
        with self._lock:
            berth = self._berth(lane)
            if berth is None:
                return False
            hold = berth.hold = _Hold(self._now() + HOLD_LIMIT, is_wanted)
            self._hand_in_due(lane[0], berth)
            while not berth.is_over:
                if berth.at_work:
                    berth.changed.wait()
                elif hold.is_ending or not (berth.changed.wait(GRACE) or berth.at_work):
                    break
            if berth.hold is hold:
                berth.hold = None
            return not berth.is_over

    def fetch(self, lane: tuple[int, int]) -> Leaving | None:
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
                early.append(report.frame)  # its segments are gone
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

    def take_results_by_pipe(self, lane: tuple[int, int]) -> None:
        """The program could not open a segment of this worker: their contents come with its answers from now on."""
        if isinstance(there := self._lane(lane), LokyLane):
            there.take_results_by_pipe()

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
                self._end_berth(number, berth)
                del self._berths[number]
            if self._lane(lane) is not None:
                self._pool.recycle(number)

    def close(self, *, kill: bool) -> None:
        """End everything, see `LanePool.close`. Idempotent; not on the agent's own thread."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            for number, berth in self._berths.items():
                self._end_berth(number, berth)
        if self._sampler is not None:
            self._sampler.stop()
        self._pool.close(kill=kill)
        self._lent.clear()
        self._store = SegmentStore()  # what is left of it is kept for no one
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

    def _end_berth(self, number: int, berth: _Berth) -> None:
        for turn in berth.end():
            self._answer(Answered(number, berth.generation, turn, None, None))

    def _hand_in_due(self, number: int, berth: _Berth) -> None:
        """With the lock held, so that no other frame comes between."""
        while not berth.is_over and (due := berth.take(self._now())) is not None:
            berth.at_work += 1
            if berth.at_work == 1:
                berth.asked_at = self._now()
            self._hand_in(number, berth, berth.next_turn - 1, due)
            if self._sampler is not None:
                self._sampler.wake()

    def _hand_in(self, number: int, berth: _Berth, turn: int, due: _Due) -> None:
        lane = self._lane((number, berth.generation))
        if lane is None:
            self._settle(number, berth, turn, None)
            return
        if isinstance(lane, SeatLane):
            lane.bring([held.brought for held in due.brought if held.brought is not None])
        else:
            path: tuple[str, ...] = tuple(sys.path)
            is_new = path != berth.path  # users' modules may have come with Dask's `upload_file`
            berth.path = path
            if due.brought or is_new:
                lane.send(
                    dump_frame(NodeFrame(path if is_new else None, [held.lent for held in due.brought])), lambda _: None
                )
        lane.send(self._sent_as(berth, turn, due), partial(self._settle, number, berth, turn))

    def _sent_as(self, berth: _Berth, turn: int, due: _Due) -> bytes:
        """The frame itself, or where it is big what names the segment that it is in, with what is carried."""
        serials, beside = [*due.carried], [*due.carried.values()]
        is_small = len(due.frame) + sum(part.nbytes for part in beside) < BIG
        if is_small or berth.is_blind or self._is_crowded:
            return _whole(due.frame, beside, serials)
        packed = put_apart(self._store, due.frame, beside)
        if packed is None:
            return _whole(due.frame, beside, serials)
        berth.apart[turn] = _Apart(packed, serials)
        return dump_frame(ApartFrame(packed, serials))

    def _settle(self, number: int, berth: _Berth, turn: int, answered: bytes | BaseException | None) -> None:
        """A frame has been done, or never will be. On any thread."""
        answer = answered if isinstance(answered, bytes) else None
        is_refused = answer == NOT_OPENED
        # May have to wait for a descriptor.
        left = None if answer is None or is_refused else _opened(answer)
        with self._lock:
            apart = berth.apart.pop(turn, None)
            lane = self._lane((number, berth.generation))
            if apart is not None:
                again = _whole(*view_parts(apart.packed), apart.serials) if is_refused else b""
                if apart.packed.segment is not None:
                    self._store.take_back([apart.packed.segment.serial])
                if is_refused and lane is not None:
                    berth.is_blind = True
                    lane.send(again, partial(self._settle, number, berth, turn))
                    return
            berth.at_work -= 1
            berth.asked_at = self._now()
            if not berth.at_work:
                berth.changed.notify_all()
            early = self.fetch((number, berth.generation))
            carried = {**(left.carried if left else {}), **(early.carried if early else {})}
            served = left and left.frame, early and early.frame, carried, _is_blind(lane)
            self._answer(Answered(number, berth.generation, turn, *served))

    def _take_early(self, lane: Lane) -> Leaving | None:
        try:
            return None if (early := lane.take_early()) is None else _opened(early)
        except Exception as error:
            self._inbox.post(LaneBroken(lane.number, lane.generation, f"what it sent is damaged: {text_of(error)}"))
            lane.kill()
            return None

    # -- on the agent's thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        look_at = self._now() + overdue.ANSWER_LIMIT
        while self._running:
            message = self._inbox.take(max(0.0, look_at - self._now()))
            if self._now() >= look_at:
                look_at = self._now() + (overdue.SECOND_LOOK if self._look() else overdue.ANSWER_LIMIT)
            try:
                if isinstance(message, Request):
                    message.call()
                elif message is not None and (notice := self._notice(message)) is not None:
                    self._say(notice)
            except Exception as error:
                lane, generation = getattr(message, "lane", None), getattr(message, "generation", None)
                self._say(found("in the agent of its workers", error, lane=lane, generation=generation))
        self._inbox.close()

    def _look(self) -> bool:
        """End workers that do nothing of what they have, as at two looks in a row; True if any may be one.

        Here, since the program does not know which frames wait for their lanes to be held.
        """
        suspects = False
        with self._lock:
            for number, berth in self._berths.items():
                lane, before, berth.suspected_at = self._lane((number, berth.generation)), berth.suspected_at, None
                if not isinstance(lane, LokyLane) or not berth.at_work or (claim := lane.peek()) is None:
                    continue
                since = max(berth.asked_at, claim.since)
                if claim.phase is Phase.IDLE and self._now() >= since + overdue.ANSWER_LIMIT:
                    berth.suspected_at, suspects = since, True
                    if before == since:
                        lane.break_off(f"{overdue.UNTAKEN} within {overdue.ANSWER_LIMIT:g} s")
        return suspects

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
                        self._end_berth(number, berth)
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
        return any(berth.at_work for berth in list(self._berths.values()))
