"""Calls that may take long, or for ever, on threads of their own beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from mpqueue._text import repr_of

P = ParamSpec("P")
T = TypeVar("T")

#: Calls at a time, in all: those that hang keep their threads.
MOST = 32
_free = threading.BoundedSemaphore(MOST)


class BusyError(Exception):
    """Raised when so many calls run, or hang, that no other is made."""


async def on_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it on a new thread, and wait for its value.

    Unlike asyncio's own threads nothing else waits for it: a user's ``repr`` that hangs neither keeps the page
    from closing nor the program from ending. Raises `BusyError` where too many run already.
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
