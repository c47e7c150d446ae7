"""A worker's life: it takes frames from its line and answers them, until the line ends.

The one call that a worker gets through loky. Nothing of loky runs between two frames, its memory guard and its garbage
collections included.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable

from mpqueue._os.process.process_signals import kill_self
from mpqueue._wire.line import Incoming, encode, write_whole
from mpqueue._worker import first_steps as guard
from mpqueue._worker import station

#: What is called before this worker says that it stands, if anything.
before_all: Callable[[], object] | None = None


def serve(module: str, function: str) -> int:
    """Load the function that takes the frames, say that this worker stands, and serve; returns the process id.

    Raises:
        DamagedError: What arrived is no frame of the parent's: a handler has read from the line, or written into it.
        BaseException: What `guard.initialize` met, `before_all` or the import raised, or the function did, which the
            real one never does; the parent kills this worker.
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
            if not here.is_whole():
                kill_self()
            write_whole(here.line, encode(answer.data, plain=answer.plain))
        if incoming.damage is not None:
            raise incoming.damage
    return os.getpid()
