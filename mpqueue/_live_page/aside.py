"""Calls that may take long, or for ever, on their own threads beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from mpqueue._text import repr_of

P = ParamSpec("P")
T = TypeVar("T")

#: The most calls at a time: those that hang keep their threads.
MOST = 32
_free = threading.BoundedSemaphore(MOST)


class BusyError(Exception):
    """Too many calls run, or hang, to start another one."""


async def on_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function on a new thread, and wait for its value.

    Unlike asyncio's own threads, nothing else waits for it: if a user's ``repr`` hangs, the page can still close and
    the program can end. Raises `BusyError` if too many run already.
    """
    if not _free.acquire(blocking=False):
        raise BusyError
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()  # the viewer may go; the call goes on

    def work() -> None:
        try:
            value = call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            answer.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - likewise
            answer.set_exception(RuntimeError(repr_of(error)))
        else:
            answer.set_result(value)
        finally:
            _free.release()

    try:
        threading.Thread(target=work, name="mpqueue-page-call", daemon=True).start()
    except BaseException:
        _free.release()
        raise
    return await asyncio.wrap_future(answer)
