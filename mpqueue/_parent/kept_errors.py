"""Errors that were raised here: internal ones, and those that users keep, with all they say but without our objects.

A traceback holds the frames of all calls at that time, and so the lane, the segments and the whole queue, for as long
as the error is referenced.
"""

from __future__ import annotations

import logging
import traceback

from mpqueue._core.messages import FaultFound
from mpqueue._core.state.job_book import JobBook
from mpqueue.errors import InternalError, shown


def text_of(error: BaseException) -> str:
    """Return the error's type and text; the text of some errors can't be read."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return f"{type(error).__name__} (its str() fails)"


def take_traceback(error: BaseException) -> str:
    """Return the error's traceback as text; afterwards neither it nor any error that led to it holds a frame."""
    text = "".join(traceback.format_exception(error))
    seen: set[int] = set()
    linked: list[BaseException | None] = [error]
    while linked:
        each = linked.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            linked += [each.__cause__, each.__context__]
            linked += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return text


# -- Internal errors of mpqueue: they are logged, and turned into the message that ends the affected jobs. -------------
#
# Any thread may find one. Our own code must have raised it, not users' listeners, handlers and values.

_log = logging.getLogger("mpqueue")

REPORT = 'please report it, with this traceback and what you did: see "Report a bug" in the documentation'


def found(
    at: str, error: BaseException, job: JobBook | None = None, lane: int | None = None, generation: int | None = None
) -> FaultFound:
    """Return the fault for ``error``, which came up ``at`` this place; its scope is as in `FaultFound`."""
    text = "".join(traceback.format_exception(error))
    _log.critical("mpqueue made a mistake %s; please report it\n%s", at, text)
    made = InternalError(f"mpqueue made a mistake {at}: {shown(error)}; {REPORT}", text)
    return FaultFound(made, job, lane, generation)
