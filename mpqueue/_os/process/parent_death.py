"""The leash: a pipe by which the kernel kills a worker and its whole group, whoever may send signals to whom.

The worker asks the kernel for SIGKILL to its group as soon as there is something to read from the pipe, or nobody can
write into it any more (`mpqueue._worker.first_steps`). So a byte from the parent ends it, and so does the parent's
death: also while it holds the global lock, where a filter refuses `pidfd_send_signal` or `prctl`, and where the parent
is another user by now. It names a group, not a number, so it never hits a stranger.

The parent holds both ends. With the write end alone, a byte for a worker that is dead would raise SIGPIPE; and what the
worker has left in its group could not be reached, nor a worker that has closed all its descriptors.
"""

from __future__ import annotations

import contextlib
import os
import weakref


class Leash:
    """The parent's side of one worker's leash. `pull` and `close` are called by one thread at a time."""

    def __init__(self) -> None:
        self.worker_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        _leashes.add(self)

    def pull(self) -> None:
        """End the worker and its group. One that has not got hold of its leash yet ends as soon as it does."""
        if self._write_end >= 0:
            with contextlib.suppress(BlockingIOError):  # it was pulled a thousand times
                os.write(self._write_end, b"\0")

    def close(self) -> None:
        """Let go, which ends whatever is left of the group."""
        write_end, self._write_end = self._write_end, -1
        if write_end >= 0:
            os.close(write_end)
            os.close(self.worker_end)


_leashes: weakref.WeakSet[Leash] = weakref.WeakSet()


def _let_go_in_fork() -> None:
    """A fork must not hold the workers of its parent: they are to end with that."""
    for leash in list(_leashes):
        with contextlib.suppress(OSError):
            leash.close()


os.register_at_fork(after_in_child=_let_go_in_fork)
