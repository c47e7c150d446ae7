"""The ledger: a page of shared memory per lane, which shows the parent the work of the lane's worker.

Each word is eight aligned bytes, written by one side only; a store of eight bytes is seen completely or not at all.

=========  ===========  ===========  ==================================================================
word       writer       reader       meaning
=========  ===========  ===========  ==================================================================
CLAIM      worker       parent       the chunk, the phase, and positions ``lo`` to ``hi`` that it may be running
SINCE      worker       parent       the start of that, in nanoseconds of CLOCK_MONOTONIC
FRACTION   worker       parent       the last ``current_item().report``, 0 to 1
LIMIT      parent       worker       the chunk, and the first position that must not be claimed; two words,
                                     for chunks of even and of odd number: two may be on a lane
FLAG_JOB   parent       worker       the number of the job for which the lane's flags count, or `NOBODY`; above its
                                     32 bits, how often they have changed
UNSENT     worker       parent       bytes of log records that no report has sent, in the outbox; read when the worker
                                     has died
MEMORY_LIMIT       parent       worker       bytes of private memory that the worker may have; 0: any number
MEMORY_USED    worker       parent       with MEMORY_LIMIT, its bytes at the start of the work in CLAIM
PIPED      parent       worker       1 if the parent can't open the worker's segments: results go through the pipe,
                                     or are carried by the engine
LATE       parent       worker       `IS_LATE` if the worker is about to be killed since an item takes too long: the
                                     signal for its stack may end a wait of C code, so nothing counts any more
=========  ===========  ===========  ==================================================================

The worker stores SINCE before CLAIM, and the parent reads CLAIM on both sides of SINCE, so a claim is never seen with
an older time than its own. To take positions back (stealing), the parent stores LIMIT, waits `SETTLE` seconds, and
reads CLAIM: the worker stores its claim before it reads LIMIT, so either it has seen the limit or the parent sees its
claim.

A handler can write anything into the page, on purpose or by a wild pointer. The parent checks what it reads: an
impossible claim is read as one of the chunk `NOWHERE`, and no word is trusted as a size.
"""

from __future__ import annotations

import enum
import mmap
from collections.abc import Callable
from typing import NamedTuple

CLAIM, SINCE, FRACTION, LIMIT, _LIMIT_ODD, FLAG_JOB, UNSENT, MEMORY_LIMIT, MEMORY_USED = range(9)
PIPED, LATE = range(9, 11)
SIZE = mmap.PAGESIZE
#: The value of LATE. The worker ends by it, so it is a number that a handler would not write there by chance.
IS_LATE = 0x6C6174655F6E6F77

#: The chunk of an impossible claim. Chunks are numbered from 1; before the first one a claim is of chunk 0.
NOWHERE = -1

#: In FLAG_JOB: the flags count for no job. Jobs are numbered from 1.
NOBODY = 0
_JOB_MASK = (1 << 32) - 1

#: Seconds between storing a limit and reading the claim: far longer than a store takes to become visible.
SETTLE = 0.001

#: Positions in a chunk fit in 20 bits, so a chunk holds at most this many items.
MAX_CHUNK_ITEMS = (1 << 20) - 1
_CHUNK_BITS = 21
_CHUNK_MASK = (1 << _CHUNK_BITS) - 1
_POSITION_MASK = (1 << 20) - 1


class Phase(enum.IntEnum):
    """A worker's phase of a chunk."""

    IDLE = 0  #: nothing of the chunk is running
    LOADING = 1  #: unpickling the handler, in ``setup`` or at its end, in the initializer, or reloading modules
    UNPACKING = 3  #: unpickling the claimed items; without any, it has received the chunk and is about to begin it
    RUNNING = 2  #: in the handler, for one of the positions claimed
    PACKING = 4  #: pickling the result of position ``lo``; those up to ``hi`` have run


#: By the three bits of a claim; bits without a meaning can only come from a wild write.
_PHASES = (Phase.IDLE, Phase.LOADING, Phase.RUNNING, Phase.UNPACKING, Phase.PACKING, None, None, None)

#: The most times that CLAIM and SINCE are read until they belong together. Only a malicious worker needs more.
_READS = 1000


class Claim(NamedTuple):
    """A worker's last claim: ``chunk`` is the number modulo 2**21, ``since`` seconds of the monotonic clock."""

    chunk: int
    phase: Phase
    lo: int
    hi: int
    since: float
    fraction: float = 0.0

    def is_of(self, chunk_number: int) -> bool:
        """True if this claim is of the chunk of that number."""
        return self.chunk == chunk_number & _CHUNK_MASK


def pack_claim(chunk_number: int, phase: int, lo: int, hi: int) -> int:
    """Pack a claim into the CLAIM word."""
    return (chunk_number & _CHUNK_MASK) << 43 | phase << 40 | lo << 20 | hi


class Ledger:
    """One lane's page, mapped. The parent and the worker map the same page; without a descriptor it is private."""

    def __init__(self, file_descriptor: int = -1) -> None:
        self._map = mmap.mmap(file_descriptor, SIZE)
        self.words = memoryview(self._map).cast("Q")
        self.reals = memoryview(self._map).cast("d")

    def begin(self, now: float) -> None:
        """Clear the claim, as of ``now``; in the parent before the worker starts."""
        self.words[SINCE] = int(now * 1e9)

    def read(self) -> Claim:
        """Return the worker's last claim; an impossible one is read as a claim of `NOWHERE`."""
        words = self.words
        claim = since = 0
        for _ in range(_READS):
            claim, since = words[CLAIM], words[SINCE]
            if words[CLAIM] == claim:
                break
        phase, lo, hi, fraction = _PHASES[claim >> 40 & 7], claim >> 20 & _POSITION_MASK, claim & _POSITION_MASK, 0.0
        if phase is None or lo > hi or not since:
            return Claim(NOWHERE, Phase.IDLE, 0, 0, 0.0)
        if 0.0 <= self.reals[FRACTION] <= 1.0:  # nan is not
            fraction = self.reals[FRACTION]
        return Claim(claim >> 43, phase, lo, hi, since / 1e9, fraction)

    def set_limit(self, chunk_number: int, position: int) -> None:
        """Forbid the worker to claim positions from ``position`` on in that chunk."""
        self.words[LIMIT + (chunk_number & 1)] = (chunk_number & _CHUNK_MASK) << 20 | position

    def withdraw_flags(self) -> None:
        """Make the flags count for no job until `give_flags`: they are about to change."""
        changes = (self.words[FLAG_JOB] >> 32) + 1 & _JOB_MASK
        self.words[FLAG_JOB] = changes << 32 | NOBODY

    def give_flags(self, job: int) -> None:
        """Make the changed flags count for the job of that number."""
        self.words[FLAG_JOB] = self.words[FLAG_JOB] & ~_JOB_MASK | job

    def flags_of(self, job: int, read: Callable[[], tuple[bool, bool]]) -> tuple[bool, bool]:
        """Tell the worker whether that job is paused, and cancelled; ``read`` reads the Events.

        Flags that changed meanwhile may be another job's, and count as unset: the caller will ask again.
        """
        words = self.words
        before = words[FLAG_JOB]
        if before & _JOB_MASK != job:
            return False, False
        said = read()
        return said if words[FLAG_JOB] == before else (False, False)

    def limit(self, chunk_number: int) -> int:
        """Return the first position in that chunk that the worker must not claim."""
        word = self.words[LIMIT + (chunk_number & 1)]
        return word & _POSITION_MASK if word >> 20 == chunk_number & _CHUNK_MASK else MAX_CHUNK_ITEMS

    def close(self) -> None:
        """Unmap the page. Reading it afterwards raises ValueError."""
        self.words.release()
        self.reals.release()
        self._map.close()
