"""The agent: a queue's lanes on one node of a cluster, in a process of its own there.

Its lanes are loky's, with the same limits, blame, memory, stacks and recycling as on the program's own machine. The
program calls it by a `Link`, and it calls the program back (`mpqueue._engines.agent.node`)::

    start                         ->  the message LaneReady or LaneStartFailed
    frame                         ->  answered: after earlier early results; and with the contents of segments, if the
                                      program can't open those of workers here
    (early results were left)     ->  left_early
    set_flags, set_limit, observe ->  seen: the contents of the worker's ledger, after all messages to it
    tell_stack                    ->  told_stack
    kill                          ->  the message LaneDied, as for any death; before it, the worker's last data
    release_lane                  ->  no more messages about that lane

If the engine counts slots, its host's calls tell how long a lane holds one (`hold`, `want`): only then is a frame
handed to a worker. All methods are called on one event loop, and only copies of big data take time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from mpqueue._core.messages import LaneDied, LaneReady, MemoryRead, Message
from mpqueue._core.rules import limits
from mpqueue._engines.agent.agent_host import Opened, Setup
from mpqueue._engines.agent.link import Call, Link, aged, dump_notice
from mpqueue._engines.loky.loky_lane import LokyLane
from mpqueue._engines.loky.loky_pool import LokyBackend
from mpqueue._os.process_handle import end_at_once
from mpqueue._os.process_signals import ignore_interrupts
from mpqueue._parent.inbox import Inbox, Request, SystemClock, found, text_of
from mpqueue._parent.lane_protocol import LaneSettings
from mpqueue._parent.running import Sampler
from mpqueue._wire.frames import NodeFrame, RelayedFrame, dump_frame, load_with_segments
from mpqueue._wire.line import Answer
from mpqueue._wire.memory.ledger import Phase
from mpqueue._wire.memory.segments import (
    BIG,
    NOTHING_CARRIED,
    Carried,
    CommonSegment,
    SegmentRef,
    SegmentStore,
    can_be_opened,
    view,
)
from mpqueue._wire.memory.shared import Lent, Parts, Token, lend
from mpqueue._wire.pickling.payload import Packed, put_apart
from mpqueue.errors import WorkerStartError

#: The place of this package: frames of a stack name its files, and a program may have it in another place.
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))

#: Seconds that a lane is still held without a frame: the next one may take that long to come after an answer.
GRACE = 0.05

LaneKey = tuple[int, int]  #: a lane's number and generation


class _Due(NamedTuple):
    """A frame that waits until its lane holds a slot."""

    frame: bytes | memoryview
    carried: Carried
    lent: Sequence[Lent]


class _Hold:
    """A lane's hold on a slot, which ends soon after others want it."""

    def __init__(self) -> None:
        self.is_wanted = False  #: others want the slot
        self.has_begun = False  #: the worker has got a frame

    @property
    def is_ending(self) -> bool:
        """True if the lane gets no more frames. It gets at least one, so that it progresses."""
        return self.has_begun and self.is_wanted


class _LaneEntry:
    """A lane in the agent's books."""

    def __init__(self, key: LaneKey) -> None:
        self.key = key
        self.path = tuple(sys.path)  #: the worker's path
        self.is_over = False  #: its worker has ended
        self.at_work = 0  #: the number of frames that the worker has
        self.asked_at = 0.0  #: the time of its last frame without others before, or of its last answer
        self.suspected_at: float | None = None  #: since when it has done nothing about them, at the last look
        self.hold: _Hold | None = None
        self.due: deque[_Due] = deque()


class Agent:
    """The agent, made on its event loop in 5 ms and the time of importing loky. Its maker awaits `close`.

    ``tell`` calls the program. ``free`` is called when a lane no longer needs its slot; None: lanes need none. Raises
    the error that keeps loky from having workers here.
    """

    def __init__(
        self,
        settings: LaneSettings,
        tell: Callable[..., object],
        free: Callable[[LaneKey], object] | None,
    ) -> None:
        self._settings = settings
        self._tell = tell
        self._free = free
        self._loop = asyncio.get_running_loop()
        self._now = SystemClock().now
        self._inbox = Inbox()
        self._stop = Request(int, None)  #: the last that is taken from there
        self._entries: dict[int, _LaneEntry] = {}
        self._lent: dict[Token, tuple[Lent, CommonSegment | None]] = {}  #: shared objects that are here
        self._store = SegmentStore()  #: for big frames
        self._over: set[int] = set()  #: lanes whose workers had too much memory at the last look
        self._is_closed = False
        try:
            self._pool = LokyBackend().open(settings, self._inbox)
        except BaseException:
            self._inbox.close()
            raise
        self._sampler = (
            None
            if settings.max_memory is None
            else Sampler(
                lambda: list(self._entries),
                self._pool,
                self._inbox.post,
                lambda: any(entry.at_work for entry in list(self._entries.values())),
                "mpqueue-agent-sampler",
            )
        )
        self._thread = threading.Thread(target=self._run, name="mpqueue-agent", daemon=True)
        self._thread.start()
        self._looking = self._loop.call_later(limits.ANSWER_LIMIT, self._look)

    # -- what the program calls --------------------------------------------------------------------------------------

    def start(self, key: LaneKey) -> None:
        self._entries[key[0]] = _LaneEntry(key)
        self._pool.start(*key)

    def bring(self, *parts: Any) -> None:
        """Keep a copy of this shared object, a `Parts`, for the workers here."""
        brought = Parts(*parts)
        self._lent[brought.token] = lend(brought)

    def borrow(self, lent: Lent) -> None:
        """Keep a shared object that is in a segment of the program. Costs no copy."""
        self._lent[lent.token] = lent, None

    def frame(
        self,
        key: LaneKey,
        frame: bytes | memoryview,
        tokens: Sequence[Token],
        dropped: Sequence[Token],
        carried: Carried,
    ) -> None:
        """Send the frame to that worker; its answer is sent back.

        ``tokens`` are shared objects here that the frame is the first to name; ``dropped`` those that the program has
        no longer. ``carried`` are the contents of the program's segments that the frame names.
        """
        lent = [self._lent[token][0] for token in tokens if token in self._lent]
        for token in dropped:
            self._lent.pop(token, None)
        if (entry := self._entry(key)) is not None and not entry.is_over:
            entry.due.append(_Due(frame, carried, lent))
            self._hand_in_due(entry)

    def set_flags(self, key: LaneKey, job: int, pause: bool, cancel: bool) -> None:
        if (there := self._lane(key)) is not None:
            there.set_flags(job, pause=pause, cancel=cancel)

    def set_limit(self, key: LaneKey, chunk: int, position: int) -> None:
        if (there := self._lane(key)) is not None:
            there.set_limit(chunk, position)

    def observe(self, key: LaneKey) -> None:
        """Report the contents of the worker's ledger."""
        claim = None if (there := self._lane(key)) is None else there.peek()
        if claim is not None:
            self._tell("seen", key, aged(claim, self._now()))

    def take_results_by_pipe(self, key: LaneKey) -> None:
        """Send the contents of this worker's segments with its answers: the program can't open them."""
        if (there := self._lane(key)) is not None:
            there.take_results_by_pipe()

    def kill(self, key: LaneKey, dump_stack: bool) -> None:
        if (there := self._lane(key)) is not None:
            there.kill(dump_stack=dump_stack)

    def tell_stack(self, key: LaneKey) -> None:
        """Send the worker's stacks to the program, in the form of `faulthandler`; None if there are none."""

        def told(text: str | None) -> None:
            self._soon(self._tell, "told_stack", key, text, PACKAGE)

        if (there := self._lane(key)) is None:
            told(None)
        else:
            there.tell_stack(told)

    def release_lane(self, key: LaneKey) -> None:
        """Free a lane that is not needed any more: a live worker ends by itself. Nothing is reported about it."""
        entry = self._entry(key)
        if entry is not None:
            self._end_entry(entry)
            del self._entries[key[0]]
        if self._lane(key) is not None:
            self._pool.recycle(key[0])

    async def close(self, *, kill: bool) -> None:
        """End everything, see `LanePool.close`."""
        self._is_closed = True
        self._looking.cancel()
        for entry in self._entries.values():
            self._end_entry(entry)
        if self._sampler is not None:
            self._sampler.stop()
        await asyncio.to_thread(self._pool.close, kill=kill)
        self._inbox.post(self._stop)
        await asyncio.to_thread(self._thread.join)

    # -- what the host calls -----------------------------------------------------------------------------------------

    def hold(self, key: LaneKey, path: Sequence[str]) -> None:
        """Note that the lane has a slot, until `free` is called; its modules are imported from ``path``."""
        sys.path[:] = path
        entry = self._entry(key)
        if entry is None or entry.is_over:
            self._let_free(key)
            return
        entry.hold = _Hold()
        self._hand_in_due(entry)
        self._free_if_idle(entry)

    def want(self, key: LaneKey) -> None:
        """Note that others want the slot of that lane: it gets at most one more frame."""
        if (entry := self._entry(key)) is not None and entry.hold is not None:
            entry.hold.is_wanted = True

    def _let_free(self, key: LaneKey) -> None:
        if self._free is not None:
            self._free(key)

    def _free_if_idle(self, entry: _LaneEntry) -> None:
        hold = entry.hold
        if hold is None or entry.at_work:
            return
        if hold.is_ending:
            self._give_slot_back(entry)
        else:
            self._loop.call_later(GRACE, self._free_if_still_idle, entry, hold, entry.asked_at)

    def _free_if_still_idle(self, entry: _LaneEntry, hold: _Hold, asked_at: float) -> None:
        if entry.hold is hold and not entry.at_work and entry.asked_at == asked_at:
            self._give_slot_back(entry)

    def _give_slot_back(self, entry: _LaneEntry) -> None:
        entry.hold = None
        self._let_free(entry.key)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _entry(self, key: LaneKey) -> _LaneEntry | None:
        entry = self._entries.get(key[0])
        return None if entry is None or entry.key != key else entry

    def _lane(self, key: LaneKey) -> LokyLane | None:
        there = self._pool.lane(key[0])
        return there if isinstance(there, LokyLane) and there.generation == key[1] else None

    def _end_entry(self, entry: _LaneEntry) -> None:
        entry.is_over = True
        entry.due.clear()
        if entry.hold is not None:
            self._give_slot_back(entry)

    def _hand_in_due(self, entry: _LaneEntry) -> None:
        lane = self._lane(entry.key)
        while entry.due and lane is not None and not entry.is_over:
            if self._free is not None:
                if entry.hold is None or entry.hold.is_ending:
                    return
                entry.hold.has_begun = True
            entry.at_work += 1
            if entry.at_work == 1:
                entry.asked_at = self._now()
            due, path = entry.due.popleft(), tuple(sys.path)
            lane.answers.tell_early = partial(self._soon, self._pass_early, entry.key)
            is_new = path != entry.path  # users' modules may have come with Dask's `upload_file`
            entry.path = path
            if due.lent or is_new:
                lane.send(dump_frame(NodeFrame(path if is_new else None, due.lent)), lambda _: None)
            sent, lent = self._sent_as(due)
            lane.send(sent, partial(self._soon, self._settle, entry, lent))
            if self._sampler is not None:
                self._sampler.wake()

    def _sent_as(self, due: _Due) -> tuple[bytes, SegmentRef | None]:
        """Return the frame with the data carried with it; if that is big, with the name of the segment for it."""
        serials, beside = [*due.carried], [*due.carried.values()]
        is_small = len(due.frame) + sum(part.nbytes for part in beside) < BIG
        packed = None if is_small else put_apart(self._store, due.frame, beside)
        if packed is not None:
            return dump_frame(RelayedFrame(packed, serials)), packed.segment
        frame = bytes(due.frame)
        if serials:
            frame = dump_frame(RelayedFrame(Packed(frame), serials, [*map(bytes, beside)]))
        return frame, None

    def _settle(self, entry: _LaneEntry, lent: SegmentRef | None, answer: Answer | BaseException) -> None:
        """Answer a frame that was done, or never will be."""
        if lent is not None:
            self._store.take_back([lent.serial])
        entry.at_work -= 1
        entry.asked_at = self._now()
        if isinstance(answer, Answer) and not entry.is_over:
            frame, carried = _opened(answer.data)
            self._tell("answered", entry.key, frame, carried, answer.plain)
        self._hand_in_due(entry)
        self._free_if_idle(entry)

    def _pass_early(self, key: LaneKey, early: Answer) -> None:
        """Pass on what the worker has left early."""
        self._tell("left_early", key, *_opened(early.data))

    # -- what happens to the lanes -----------------------------------------------------------------------------------

    def _soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the event loop, in the order of the calls. On any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.guarded, call, *arguments)

    def guarded(self, call: Callable[..., object], *arguments: Any) -> None:
        """Make a call on the event loop, and report its errors: they are internal errors."""
        try:
            call(*arguments)
        except Exception as error:
            self._say(found("in the agent of its workers", error))

    def _run(self) -> None:
        """Pass messages of the lanes to the event loop, and do what they ask for here, on the agent's thread."""
        self._inbox.owner = threading.get_ident()
        while (message := self._inbox.take(None)) is not self._stop:
            if isinstance(message, Request):
                try:
                    message.call()
                except Exception as error:
                    self._soon(self._say, found("in the agent of its workers", error))
            elif message is not None:
                self._soon(self._heed, message)
        self._inbox.close()

    def _heed(self, message: Message) -> None:
        if self._is_closed:
            return
        match message:
            case MemoryRead(workers=workers):
                # The program judges only workers that have too much, and the machine's memory not at all.
                most = self._settings.max_memory or 0
                over = {worker.lane for worker in workers if worker.used > most}
                due, self._over = over | self._over, over
                if not due.isdisjoint(worker.lane for worker in workers):
                    self._say(MemoryRead([worker for worker in workers if worker.lane in due]))
                return
            case LaneDied(lane=number, generation=generation):
                key = number, generation
                if (entry := self._entry(key)) is not None:
                    self._end_entry(entry)
                if (lane := self._lane(key)) is not None and (unsent := lane.take_unsent()):
                    self._tell("left_unsent", key, unsent)
            case LaneReady(lane=number, generation=generation):
                if (entry := self._entry((number, generation))) is not None:
                    self._hand_in_due(entry)
        self._say(message)

    def _say(self, message: Message) -> None:
        self._tell("happened", dump_notice(message, self._now()))

    def _look(self) -> None:
        """End workers that have made no progress at two looks in a row.

        It is done here, since the program does not know which frames wait for a slot.
        """
        suspects = False
        for entry in self._entries.values():
            lane, before, entry.suspected_at = self._lane(entry.key), entry.suspected_at, None
            if lane is None or not entry.at_work or (claim := lane.peek()) is None:
                continue
            since = max(entry.asked_at, claim.since)
            if claim.phase is Phase.IDLE and self._now() >= since + limits.ANSWER_LIMIT:
                entry.suspected_at, suspects = since, True
                if before == since:
                    lane.break_off(f"{limits.UNTAKEN} within {limits.ANSWER_LIMIT:g} s")
        self._looking = self._loop.call_later(limits.SECOND_LOOK if suspects else limits.ANSWER_LIMIT, self._look)


def _opened(answer: bytes) -> tuple[bytes, Carried]:
    """Return a worker's answer and the data carried with it. A dead worker's segments are unreadable, and left out."""
    frame, segments = load_with_segments(answer)
    if not segments:
        return frame, NOTHING_CARRIED
    carried = {}
    for ref in segments:
        with contextlib.suppress(OSError):
            carried[ref.serial] = view(ref)
    return frame, carried


# -- The agent's process, which a host in the engine's own process starts. -------------------------------------------
#
# So other work in the engine's process, which other programs use too, does not delay the agent. It ends with its host,
# when the program asks for it, and if the program has lost its connection and made no other for `LEFT_LIMIT` seconds.

#: Seconds that the first connection may take, the next one after a loss, and the end of everything here.
START_LIMIT, LEFT_LIMIT, CLOSE_LIMIT = 60.0, 5.0, 10.0


def main() -> None:
    """Run the process. Its first argument is the descriptor of the connection to the host."""
    host = Connection(int(sys.argv[1]))
    sys.argv[:] = [""]
    ignore_interrupts()  # the host ends by one, or ignores it
    with contextlib.suppress(EOFError, OSError):  # the host has ended
        asyncio.run(_Service(host).run(host.recv()))
    end_at_once()  # even if a thread hangs


class _Service:
    """An agent, from its host's first message to the end of both. On its event loop, except for `_heed_host`."""

    def __init__(self, host: Connection) -> None:
        self._host = host
        self._following: set[asyncio.Task[bool]] = set()

    async def run(self, setup: Setup) -> None:
        """Start the agent, and serve it until its end; or send the host the error why there is none."""
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Future[bool] = self._loop.create_future()  #: True: kill running items
        self._link = Link(setup.secret, self._take, beats=True)
        self._leaving = self._loop.call_later(START_LIMIT, self._end, True)
        shares_memory = setup.probe is not None and can_be_opened(setup.probe)
        settings = setup.settings._replace(can_open_results=shares_memory)
        try:
            server = _listen(setup.host)
            self._agent = Agent(
                settings, lambda *call: self._link.send(call), self._free if setup.counts_slots else None
            )
        except Exception as error:
            why = f"expected to start workers on {socket.gethostname()}, got {text_of(error)}"
            self._host.send(WorkerStartError(why))
            return
        with server:
            host, port, *_ = server.getsockname()
            self._host.send(Opened(host, port, shares_memory))
            threading.Thread(target=self._heed_host, name="mpqueue-host", daemon=True).start()
            answering = asyncio.create_task(self._answer(server))
            kill = await self._ending
            answering.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._agent.close(kill=kill), CLOSE_LIMIT)

    def _end(self, kill: bool) -> None:
        if not self._ending.done():
            self._ending.set_result(kill)

    # -- the program -------------------------------------------------------------------------------------------------

    def _take(self, call: Call) -> None:
        name, *arguments = call
        if name == "close":
            self._end(*arguments)
        else:
            self._agent.guarded(getattr(self._agent, name), *arguments)

    async def _answer(self, server: socket.socket) -> None:
        """Accept the program's connections."""
        while True:
            connection, _ = await self._loop.sock_accept(server)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            following = asyncio.create_task(self._link.follow(connection))
            self._following.add(following)
            following.add_done_callback(self._lost)
            self._leaving.cancel()

    def _lost(self, following: asyncio.Task[bool]) -> None:
        self._following.discard(following)
        if not following.cancelled():
            following.exception()  # it may not have been the program
        if not self._following:
            self._leaving = self._loop.call_later(LEFT_LIMIT, self._end, True)

    # -- the host ----------------------------------------------------------------------------------------------------

    def _free(self, lane: LaneKey) -> None:
        with contextlib.suppress(OSError):
            self._host.send(lane)

    def _heed_host(self) -> None:
        """Follow the host's orders, until it has ended. On a thread of its own."""
        with contextlib.suppress(EOFError, OSError, RuntimeError):
            while True:
                name, *arguments = self._host.recv()
                call = self._agent.hold if name == "hold" else self._agent.want
                self._loop.call_soon_threadsafe(call, *arguments)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end, True)


def _listen(host: str) -> socket.socket:
    """Listen at an address that the program can reach; if there is none, only for the host."""
    for address in filter(None, (host, "127.0.0.1")):
        try:
            family, *_, where = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
            server = socket.create_server((where[0], 0), family=family)
        except OSError:  # its name is not its own, as in a container
            continue
        server.setblocking(False)
        return server
    raise OSError("expected to be allowed to listen on 127.0.0.1")
