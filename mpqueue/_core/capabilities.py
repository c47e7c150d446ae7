"""The capabilities of an engine: data that control the scheduler and the coordinator for any engine."""

from __future__ import annotations

from typing import NamedTuple

from mpqueue._wire.frames import CHUNK_SECONDS
from mpqueue._wire.pickling.packed_handler import HandlerTransport


class Capabilities(NamedTuple):
    """The facts about all workers of an engine. The defaults are loky's: everything."""

    #: Each worker is a process of its own, without other programs' code. It can be killed while it runs: time limits,
    #: ``cancel(kill=True)``.
    own_processes: bool = True
    #: Its workers are on this machine, whose CPUs, memory and GPUs are counted. Workers elsewhere come and go with the
    #: amount of waiting work, which the engine gets; it measures their memory.
    is_here: bool = True
    #: Big data goes through shared segments. To workers elsewhere without that, lanes carry segments, and bring shared
    #: objects.
    shares_memory: bool = True
    can_fork: bool = False  #: workers can be forked from a process with their imports done: loky's on Linux
    chunk_seconds: float = CHUNK_SECONDS  #: the target length of a chunk: long compared with the cost of sending it
    chunk_bytes: int = 4 << 20  #: the most bytes of items that a chunk aims at; of results twice as many
    chunk_cost: float = 114e-6  #: CPU seconds of a chunk in the process through which all chunks go
    #: Seconds without any worker, and without a start under way, after which waiting jobs are interrupted.
    patience: float = 30.0

    @property
    def carries(self) -> bool:
        """True if its lanes carry big data, beside frames and answers."""
        return not (self.is_here or self.shares_memory)

    @property
    def handler_transport(self) -> HandlerTransport:
        """The way in which its workers get a job's handler."""
        if self.shares_memory:
            return HandlerTransport.IN_MEMORY
        return HandlerTransport.SHARED_APART if self.carries else HandlerTransport.WHOLE
