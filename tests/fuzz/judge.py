"""What every call has to do, whatever it is given: return, or raise an error that says what was wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

from mpqueue import JobQueue, MPQueueError
from tests.fuzz.odd import UserError, UserExit
from tests.support.length import IS_LONG
from tests.support.waiting import wait_until

#: Seconds; nothing here works for longer than a moment.
PATIENCE = 60.0
#: What a call may raise. The user's own errors are his: his iterables and his objects raise them in the call.
ALLOWED = (MPQueueError, TypeError, ValueError)
OWN = (UserError, UserExit)

#: ``MPQUEUE_FUZZ=5000`` tries so many examples of each, other ones each time; without it few, and always the same.
LONG = os.environ.get("MPQUEUE_FUZZ", "")


def fuzzed(examples: int) -> settings:
    """How often a test is tried: so often in the long form, half as often otherwise, or as the environment says."""
    return settings(
        max_examples=int(LONG) if LONG else examples if IS_LONG else examples // 2,
        derandomize=not LONG,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


class Refused:
    """A call that raised what it may."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def ask(call: Callable[[], Any], **named: Any) -> Any:
    """What the call returns, or `Refused`. An error about one of the values ``named`` must show it."""
    try:
        return call()
    except (*OWN, *ALLOWED) as raised:
        error = raised
    message = str(error)
    if not isinstance(error, OWN):
        assert message, f"an error without a message: {error!r}"
        assert not named or any(shows(message, name, value) for name, value in named.items()), message
    return Refused(error)


def shows(message: str, name: str, value: Any) -> bool:
    """Whether a message names an argument, and what it was."""
    try:
        text = repr(value)
    except ValueError:  # there is an integer in it that Python does not show
        return name in message
    except BaseException:
        text = type(value).__name__
    return name in message and (text[:40] in message or type(value).__name__ in message)


def clear(queue: JobQueue) -> None:
    """What an example that failed has left."""
    for job in queue.jobs():
        queue.cancel(job.id, kill=True)
        wait_until(lambda: job.status.final)  # noqa: B023 - called at once
        queue.clear_job(job.id)


def check_still_works(queue: JobQueue) -> None:
    """A queue runs its next job as if nothing had happened, and has no other."""
    assert queue.jobs() == []
    assert queue.run([1, 2], abs, id="bystander").results == [1, 2]
    queue.clear_job("bystander")
