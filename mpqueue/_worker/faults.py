"""The stacks that `faulthandler` writes when a worker crashes in C code: the worker ends even if they are not read."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import stat

from mpqueue._os.descriptors import reopen_to_write

_STANDARD_ERROR = 2


def never_wait_for_readers() -> None:
    """If standard error is a pipe, write the stacks of a crash there only as far as there is room.

    Written as usual, they keep a worker that crashes from ending while a full pipe is not read. The pipe is
    opened once more for it: that it doesn't block is a property of this opening, which no other process has.
    """
    if not faulthandler.is_enabled() and "PYTHONFAULTHANDLER" in os.environ:
        return  # switched off; else loky switches it on
    with contextlib.suppress(OSError):  # closed, or it can't be opened anew: as usual
        if stat.S_ISFIFO(os.fstat(_STANDARD_ERROR).st_mode):
            faulthandler.enable(reopen_to_write(_STANDARD_ERROR))
