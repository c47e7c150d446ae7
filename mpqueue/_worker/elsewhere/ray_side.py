"""The actors that Ray runs for a queue: a worker in a process of its own, and the guardian of all of a node's.

Nothing here knows Ray, but for the name of the node. A call that takes a while is in a concurrency group of its own,
so that no other has to wait for it.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence

from mpqueue._os.process.process_handle import ProcessHandle, open_process
from mpqueue._os.process.process_signals import KILL, kill_group
from mpqueue._worker.elsewhere import hello, hosted

#: Seconds that a process has to end by Ray's doing, and that one which is killed has to be gone.
GRACE, DEATH_LIMIT = 1.0, 2.0


#: How many calls of a `RayWorker` run at a time, by group: two frames may be under way; `rung` waits for the bell.
GROUPS = {"frames": 2, "control": 1, "bell": 1}


class RayWorker:
    """One worker. Ends with its process, which is this actor's alone."""

    def __init__(self, token: str, lane: int, generation: int, parent: int) -> None:
        self._token = token
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._told = hosted.open_seat(token, lane, generation, parent, self._ring)

    def _ring(self) -> None:
        self._bell.put(None)

    def introduce(self) -> hello.Introduction:
        """Who this process is, and where it is."""
        import ray  # here it is there

        return {**self._told, "node": ray.get_runtime_context().get_node_id()}

    def serve(self, number: int, frame: bytes, *brought: bytes) -> tuple[bytes, bytes | None]:
        """See `hosted.serve`. Frames are numbered from 0, since Ray begins two that come together in any order."""
        return hosted.serve(self._token, frame, number=number, brought=brought)

    def rung(self) -> None:
        """Returns when the worker has left something early; fails when the process ends."""
        self._bell.get()

    def fetch(self) -> bytes | None:
        """See `hosted.fetch`."""
        return hosted.fetch(self._token)

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

    def adopt(self, token: str, path: str, pid: int) -> bool:
        """Look after that worker; False where that can't be: another user, another container."""
        if not hosted.adopt(token, path):
            return False
        self._processes[token] = pid, open_process(pid)
        return True

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
