"""A worker's life: it takes frames from its line and answers them, until the line ends.

It is the only call that a worker gets through loky. No code of loky runs between two frames, not even its memory guard
and its garbage collections.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable

from mpqueue._wire.line import Incoming, encode, write_whole
from mpqueue._worker import first_steps as guard
from mpqueue._worker import station

#: Called before this worker reports that it is ready, if set.
before_all: Callable[[], object] | None = None


def serve(module: str, function: str) -> int:
    """Load the function that takes the frames, report that this worker is ready, and serve; returns the process id.

    Raises:
        DamagedError: The data are no frame of the parent's: a handler has read from the line, or written into it.
        OSError: A handler has closed the line, or shut it down.
        BaseException: An error of `guard.initialize`, of `before_all`, of the import, or of the function, which the
        real one never raises; the parent kills this worker.
    """
    gc.enable()
    guard.check()
    if before_all is not None:
        before_all()
    receive = getattr(importlib.import_module(module), function)
    here = station.here()
    assert here is not None, "a worker is initialized before it serves"
    incoming = Incoming(here.line)
    write_whole(here.line, encode(b"", plain=True))
    while (frames := incoming.read()) is not None:
        for frame in frames:
            answer = receive(frame.data)
            write_whole(here.line, encode(answer.data, plain=answer.plain))
        if incoming.damage is not None:
            raise incoming.damage
    return os.getpid()
