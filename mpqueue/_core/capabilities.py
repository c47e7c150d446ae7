"""The capabilities of an engine: data that control the scheduler and the coordinator for any engine."""

from __future__ import annotations

from typing import NamedTuple

from mpqueue._wire.pace import CHUNK_SECONDS
from mpqueue._wire.pickling.packed_handler import HandlerTransport


class Capabilities(NamedTuple):
    """The facts about all workers of an engine. The defaults are loky's: everything."""

    can_kill: bool = True  #: a single worker can be killed while it runs: time limits, ``cancel(kill=True)``
    shares_memory: bool = True  #: big data goes through shared segments
    brings_shared: bool = False  #: its lanes bring shared objects to workers that share no memory with us
    carries_segments: bool = False  #: its lanes carry segments to and from workers that share no memory with us
    own_processes: bool = True  #: each worker is a process of its own, without other programs' code
    can_fork: bool = False  #: workers can be forked from a process with their imports done: loky's on Linux
    same_files: bool = True  #: modules here are imported from the same files there
    follows_demand: bool = False  #: it gets the amount of waiting work, since its workers come and go with that
    chunk_seconds: float = CHUNK_SECONDS  #: the target length of a chunk: long compared with the cost of sending it
    chunk_bytes: int = 4 << 20  #: the most bytes of items that a chunk aims at; of results twice as many
    chunk_cost: float = 114e-6  #: CPU seconds of a chunk in the process through which all chunks go
    #: Seconds without any worker, and without a start under way, after which waiting jobs are interrupted.
    patience: float = 30.0
    is_here: bool = True  #: its workers are on this machine, whose CPUs, memory and GPUs are counted
    measures_memory: bool = False  #: if no memory is shared: it measures its workers' memory for the queue

    @property
    def handler_transport(self) -> HandlerTransport:
        """The way in which its workers get a job's handler."""
        if self.shares_memory:
            return HandlerTransport.IN_MEMORY
        return HandlerTransport.SHARED_APART if self.brings_shared else HandlerTransport.WHOLE
