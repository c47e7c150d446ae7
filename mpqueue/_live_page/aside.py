"""Calls that may take long, or for ever, on their own threads beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
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
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if answer.done():  # the viewer has gone
            return
        if error is None:
            answer.set_result(value)  # type: ignore[arg-type]
        else:
            answer.set_exception(error)

    def work() -> None:
        value: T | None = None
        failure: BaseException | None = None
        try:
            value = call(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            failure = error if isinstance(error, Exception) else RuntimeError(repr_of(error))
        finally:
            _free.release()
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, value, failure)

    try:
        threading.Thread(target=work, name="mpqueue-page-call", daemon=True).start()
    except BaseException:
        _free.release()
        raise
    return await answer
