"""Internal errors of mpqueue: they are logged, and turned into the message that ends the affected jobs.

Any thread may find one. Our own code must have raised it, not users' listeners, handlers and values.
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
    """Return the fault for ``error``, which came up ``at`` this place; its scope is as in `FaultFound`."""
    text = "".join(traceback.format_exception(error))
    _log.critical("mpqueue made a mistake %s; please report it\n%s", at, text)
    made = InternalError(f"mpqueue made a mistake {at}: {shown(error)}; {REPORT}", text)
    return FaultFound(made, job, lane, generation)
