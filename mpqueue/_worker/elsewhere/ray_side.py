"""The actors that Ray runs for a queue: a worker in a process of its own, and the guardian of all of a node's.

Nothing here knows Ray, but for the name of the node. A call that takes a while is in a concurrency group of its own,
so that no other has to wait for it.
"""

from __future__ import annotations

import pickle
import queue
from collections.abc import Mapping, Sequence
from typing import Any

from mpqueue._os.process.process_handle import ProcessHandle, open_process
from mpqueue._os.process.process_signals import KILL, kill_group
from mpqueue._wire.memory.segments import Carried, CommonSegment, SegmentRef, make_anchor
from mpqueue._wire.memory.shared import Brought, Lent, Parts, Token, lend
from mpqueue._worker.elsewhere import hello, hosted
from mpqueue._worker.elsewhere.private import Leaving

#: Seconds that a process has to end by Ray's doing, and that one which is killed has to be gone.
GRACE, DEATH_LIMIT = 1.0, 2.0


#: How many calls of a `RayWorker` run at a time, by group: two frames may be under way; `rung` waits for the bell.
GROUPS = {"frames": 2, "control": 1, "bell": 1}


#: How many calls of a `Guardian` that take a while, as a copy does, run at a time.
GUARDIAN_GROUPS = {"copies": 1}

#: A frame or an answer on its way: what is carried with it are buffers, which Ray puts into its object store.
Parcel = tuple[bytes, dict[int, pickle.PickleBuffer]]


def pack(carried: Carried) -> dict[int, pickle.PickleBuffer]:
    """What is carried, for Ray to send. Copies nothing."""
    return {serial: pickle.PickleBuffer(memory) for serial, memory in carried.items()}


def unpack(carried: Mapping[int, Any]) -> dict[int, memoryview]:
    """The same where it has come: a view of the object store, in which it stays as long as that view."""
    return {serial: memoryview(memory) for serial, memory in carried.items()}


def _parcel(leaving: Leaving) -> Parcel:
    return leaving.frame, pack(leaving.carried)


class RayWorker:
    """One worker. Ends with its process, which is this actor's alone."""

    def __init__(self, token: str, lane: int, generation: int, parent: int) -> None:
        self._token = token
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._told = hosted.open_seat(token, lane, generation, parent, self._ring, carries=True)

    def _ring(self) -> None:
        self._bell.put(None)

    def introduce(self) -> hello.Introduction:
        """Who this process is, and where it is."""
        import ray  # here it is there

        return {**self._told, "node": ray.get_runtime_context().get_node_id()}

    def settle(self, anchor: SegmentRef | None) -> bool:
        """See `hosted.settle`."""
        return hosted.settle(self._token, anchor)

    def serve(
        self, number: int, frame: bytes, carried: Mapping[int, Any], *brought: Brought
    ) -> tuple[Parcel, Parcel | None]:
        """See `hosted.serve`. Frames are numbered from 0, since Ray begins two that come together in any order."""
        answer, early = hosted.serve(self._token, frame, number=number, brought=brought, carried=unpack(carried))
        return _parcel(answer), None if early is None else _parcel(early)

    def rung(self) -> None:
        """Returns when the worker has left something early; fails when the process ends."""
        self._bell.get()

    def fetch(self) -> Parcel | None:
        """See `hosted.fetch`."""
        early = hosted.fetch(self._token)
        return None if early is None else _parcel(early)

    def control(self, orders: Sequence[hosted.Order]) -> hosted.Seen | None:
        """See `hosted.control`."""
        return hosted.control(self._token, orders)

    def close(self) -> None:
        """End what setups have begun, within reason."""
        hosted.close_seats([self._token])


class Guardian:
    """Never busy, and on the same node as the workers that it looks after: it lives on when they die."""

    def __init__(self) -> None:
        self._processes: dict[str, tuple[int, ProcessHandle]] = {}  #: by token, with the process's number
        self._lent: dict[Token, tuple[Lent, CommonSegment | None]] = {}
        self._anchor: CommonSegment | None = None

    def adopt(self, token: str, path: str, pid: int) -> bool:
        """Look after that worker; False where that can't be: another user, another container."""
        if not hosted.adopt(token, path):
            return False
        self._processes[token] = pid, open_process(pid)
        return True

    def anchor(self) -> SegmentRef | None:
        """A segment of this process, for workers to try out whether they can open such; None where there are none."""
        if self._anchor is None:
            self._anchor = make_anchor()
        return None if self._anchor is None else self._anchor.ref

    def lend(self, parts: Parts) -> Lent:
        """What is shared, as the workers here can map it: one copy for them all, until it is dropped."""
        if parts.token not in self._lent:
            self._lent[parts.token] = lend(parts)
        return self._lent[parts.token][0]

    def drop(self, tokens: Sequence[Token]) -> None:
        """These shared objects are gone."""
        for token in tokens:
            self._lent.pop(token, None)

    def control(self, token: str, orders: Sequence[hosted.Order]) -> hosted.Seen | None:
        """See `hosted.control`."""
        return hosted.control(token, orders)

    def bury(self, token: str) -> hosted.Seen | None:
        """Kill that worker where it still lives, and all that it has started; what its ledger says then."""
        if token not in self._processes:
            return None
        pid, process = self._processes.pop(token)
        # Ray is about to end it; if other code does, Ray tells the user of a worker that died.
        process.wait(GRACE)
        kill_group(pid)  # Ray gives each worker a session of its own
        process.send(KILL)
        process.wait(DEATH_LIMIT)
        process.close()
        return hosted.last_claims([token]).get(token)
