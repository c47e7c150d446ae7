"""Messages about a lane between a program and an agent.

Clocks of two machines have nothing in common, so ages are sent.
"""

from __future__ import annotations

import pickle
from typing import NamedTuple

from mpqueue._core.messages import FaultFound, LaneDied, LaneStartFailed, Message
from mpqueue._parent.transport.kept_errors import text_of
from mpqueue._wire.memory.ledger import Claim, Phase
from mpqueue.errors import InternalError, WorkerStartError


class TellFlags(NamedTuple):
    """An order that a job is paused, or cancelled, or neither."""

    job: int
    pause: bool
    cancel: bool


class SetLimit(NamedTuple):
    """An order to claim nothing from that position on in that chunk."""

    chunk: int
    position: int


Order = TellFlags | SetLimit

#: A claim as it is sent: chunk, phase, lo, hi, seconds since, fraction.
Seen = tuple[int, int, int, int, float, float]


def seen_of(claim: Claim, now: float) -> Seen:
    """Convert a claim to be sent, on the node, whose clock says ``now``."""
    return claim.chunk, int(claim.phase), claim.lo, claim.hi, max(0.0, now - claim.since), claim.fraction


def claim_of(seen: Seen, now: float) -> Claim:
    """Convert it back to a claim, in the program, whose clock says ``now``."""
    chunk, phase, lo, hi, age, fraction = seen
    return Claim(chunk, Phase(phase), lo, hi, now - age, fraction)


def dump_notice(message: Message, now: float) -> bytes:
    """Pickle a message on the node, whose clock says ``now``. An error that can't be sent is replaced by its text."""
    match message:
        case LaneDied() if message.claim is not None:
            message = message._replace(claim=message.claim._replace(since=now - message.claim.since))
        case LaneStartFailed() if not _can_be_sent(message.error):
            message = message._replace(error=WorkerStartError(text_of(message.error)))
        case FaultFound() if not _can_be_sent(message.error):
            message = message._replace(error=InternalError(text_of(message.error)))
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def load_notice(data: bytes, now: float) -> Message:
    """Unpickle a message in the program, whose clock says ``now``."""
    message: Message = pickle.loads(data)
    if isinstance(message, LaneDied) and message.claim is not None:
        message = message._replace(claim=message.claim._replace(since=now - message.claim.since))
    return message


def _can_be_sent(error: BaseException) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True
