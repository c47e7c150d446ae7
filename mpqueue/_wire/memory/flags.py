"""Pause and cancel: two `multiprocessing` Events for each lane.

====== ============ ============= ===========================================
event  set by       read by       counts
====== ============ ============= ===========================================
pause  the parent   the worker    only for the job in the ledger's FLAG_JOB
cancel the parent   the worker    only for the job in the ledger's FLAG_JOB
====== ============ ============= ===========================================

An Event has a lock inside. A worker that is killed while it holds that lock leaves it taken for ever, so: a worker
never waits on one and reads them at most once in 5 ms; the parent sets and clears them on a thread that may be
abandoned; and they are thrown away with their lane (docs/adr/0004).
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple

#: Seconds: a worker looks at its flags at most this often.
READ_INTERVAL = 0.005


class Flags(NamedTuple):
    """The two Events of one generation of a lane. Picklable only while a process is being spawned."""

    pause: Event
    cancel: Event


def make_flags(context: Any = None) -> Flags:
    """New Events of that context, or of "spawn": those of the default one can't be handed to a loky worker."""
    if context is None:
        context = multiprocessing.get_context("spawn")
    return Flags(pause=context.Event(), cancel=context.Event())
