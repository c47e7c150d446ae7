"""The parent's end of `mpqueue._wire.memory.asking`: gives a worker descriptors."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading

from mpqueue._engines.loky import launch
from mpqueue._os.channels import NO_SIGNAL
from mpqueue._os.descriptors import close_all, message_pair
from mpqueue._os.memory.leases import leases_tell
from mpqueue._parent.inbox import Inbox
from mpqueue._wire.memory import asking
from mpqueue._wire.memory.segments import own_descriptor, reopen

#: Questions that are answered at a time, between two messages of the coordinator.
AT_A_TIME = 16


class Answering:
    """The parent's end for one worker's questions. Never blocks.

    Made with the worker's end, which its owner closes once the worker has it; closed by `close`.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._socket, worker_end = message_pair()
        self._socket.setblocking(False)
        self.worker_end = worker_end.detach()
        self._fd = self._socket.fileno()
        self._lock = threading.Lock()  # held while the descriptor is used: it must not be another's by then
        self._closed = False

    def open(self) -> None:
        """Look for questions from now on."""
        self._inbox.watch(self._fd, self.look)

    def close(self) -> None:
        """Look no more."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._inbox.forget(self._fd)
                self._socket.close()

    def look(self) -> None:
        """Read what the worker has sent. On the inbox's thread."""
        with self._lock:
            try:
                for _ in range(0 if self._closed else AT_A_TIME):
                    data, descriptors = asking.receive(self._socket)
                    close_all(*descriptors)
                    if not data:
                        self._inbox.forget(self._fd)
                        return
                    self._answer(data)
            except BlockingIOError:
                pass
            except OSError:  # reset, or no descriptor left: the worker asks no more, or goes without
                if self._socket.fileno() >= 0:
                    self._inbox.forget(self._fd)

    def _answer(self, data: bytes) -> None:
        anew = False
        if (key := asking.decode(data)) is not None:
            # A lease would not tell of a descriptor that is shared; where none tells, sharing takes no descriptor here.
            opened = reopen(*key) if (anew := leases_tell()) else own_descriptor(*key)
        elif data.decode("ascii", "replace") in asking.TRACKERS:
            opened = launch.tracker(data.decode("ascii"))
        else:
            return
        with contextlib.suppress(OSError):  # no room: it does not read what it has asked for
            if opened is None:
                self._socket.send(data, NO_SIGNAL)
            else:
                rights = array.array("i", [opened])
                self._socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], NO_SIGNAL)
        if opened is not None and anew:
            os.close(opened)
