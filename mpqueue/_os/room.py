"""Room for more descriptors, threads and processes: checked before something is half made; how to get more."""

from __future__ import annotations

import _thread
import contextlib
import errno
import math
import os
from collections.abc import Iterator

from mpqueue._os.descriptors import descriptor_limits, process_limit

#: Python's message if the system starts no more threads; it has no error type of its own.
NO_THREAD = "can't start new thread"


def no_descriptors(what: str) -> OSError:
    """The error of a process with too few descriptors left: ``what`` needs them; it says how to allow more."""
    limit, most = descriptor_limits()
    more = min(max(1024, 2 * limit), most)
    cure = f"raise the limit with `ulimit -n {more}`"
    if more <= limit:
        cure = "raise the hard limit (`ulimit -Hn`), which only root can"
    return OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}: {what}, of the {limit} that are allowed; {cure}, or "
                                 "close files")  # fmt: skip


def check_descriptors(count: int, what: str) -> None:
    """Raise `no_descriptors` unless that many more are available now. 0.1 ms for 32."""
    with contextlib.ExitStack() as stack:
        for free in range(count):
            try:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                raise no_descriptors(f"{what} takes {count} descriptors, {free} are free") from None


def no_threads(what: str) -> OSError:
    """The error of a process that can start no more threads or processes: ``what`` needs them; it says what to do."""
    limit = process_limit()
    cure = "raise the limit of the container (`docker run --pids-limit`, pids.max of its control group)"
    if limit < math.inf:
        cure = f"this user may have {limit} in all: raise the limit with `ulimit -u`, or {cure[6:]}"
    return OSError(errno.EAGAIN, f"{NO_THREAD}: {what}; {cure}")


def check_threads(count: int, what: str) -> None:
    """Raise `no_threads` unless that many more threads or processes can be started now. 0.3 ms for 12."""
    gate, started = _thread.allocate_lock(), 0

    def wait() -> None:
        with gate:
            pass

    with gate:
        try:
            while started < count:
                _thread.start_new_thread(wait, ())
                started += 1
        except RuntimeError:
            raise no_threads(f"{what} takes {count} threads and processes, {started} can be had") from None


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Turn an error in the block for lack of a descriptor or a thread into an OSError that names the limit."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise no_descriptors(f"{what} takes more descriptors than are free") from None
    except RuntimeError as error:
        if NO_THREAD not in str(error):  # the interpreter exits
            raise
        raise no_threads(f"{what} takes more threads than can be had") from None
