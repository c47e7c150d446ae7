"""Mistakes of mpqueue's own: where one is found it is logged, and made the message by which what it touched ends.

Any thread may find one. What raised it must be code of ours: what users' listeners, handlers and values raise is not.
"""

from __future__ import annotations

import logging
import traceback

from mpqueue._core.messages import FaultFound
from mpqueue._core.state.job_book import JobBook
from mpqueue.errors import InternalError, shown

_log = logging.getLogger("mpqueue")

REPORT = 'please report it, with this traceback and what you did: see "Report a bug" in the documentation'


def found(
    at: str, error: BaseException, job: JobBook | None = None, lane: int | None = None, generation: int | None = None
) -> FaultFound:
    """The fault that ``error`` is, which came up ``at`` this; what it touched is as `FaultFound` says."""
    text = "".join(traceback.format_exception(error))
    _log.critical("mpqueue made a mistake %s; please report it\n%s", at, text)
    made = InternalError(f"mpqueue made a mistake {at}: {shown(error)}; {REPORT}", text)
    return FaultFound(made, job, lane, generation)
