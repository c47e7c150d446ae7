"""What an agent says, as bytes: the messages of its lanes, which are for the inbox of the program.

Clocks of two machines have nothing in common: a claim is sent with its age.
"""

from __future__ import annotations

import pickle
from typing import NamedTuple, TypeAlias

from mpqueue._core.messages import (
    BellRung,
    FaultFound,
    LaneBroken,
    LaneDied,
    LaneReady,
    LaneStartFailed,
    MemoryRead,
)
from mpqueue._parent.transport.kept_errors import text_of
from mpqueue.errors import InternalError, WorkerStartError


class Crowded(NamedTuple):
    """No process can be started there, for that reason: handlers run in the process that the agent is in."""

    reason: str


class AnswersWait(NamedTuple):
    """There are answers, which the program is to collect: it has no connection to the agent."""


Notice: TypeAlias = (
    LaneReady | LaneStartFailed | LaneDied | LaneBroken | BellRung | MemoryRead | FaultFound | Crowded | AnswersWait
)


class Rest(NamedTuple):
    """What a dead worker has left: early reports, in order, and the log records that no report has sent."""

    early: list[bytes]
    unsent: bytes


def dump_notice(notice: Notice, now: float) -> bytes:
    """On the node, whose clock says ``now``. An error that can't be sent is replaced by its text."""
    match notice:
        case LaneDied() if notice.claim is not None:
            notice = notice._replace(claim=notice.claim._replace(since=now - notice.claim.since))
        case LaneStartFailed() if not _can_be_sent(notice.error):
            notice = notice._replace(error=WorkerStartError(text_of(notice.error)))
        case FaultFound() if not _can_be_sent(notice.error):
            notice = notice._replace(error=InternalError(text_of(notice.error)))
    return pickle.dumps(notice, pickle.HIGHEST_PROTOCOL)


def load_notice(data: bytes, now: float) -> Notice:
    """In the program, whose clock says ``now``."""
    notice: Notice = pickle.loads(data)
    if isinstance(notice, LaneDied) and notice.claim is not None:
        notice = notice._replace(claim=notice.claim._replace(since=now - notice.claim.since))
    return notice


def _can_be_sent(error: BaseException) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True
