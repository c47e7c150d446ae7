"""The capabilities of an engine: data that steer the scheduler and the coordinator, whichever engine it is."""

from __future__ import annotations

from typing import NamedTuple

from mpqueue._wire.pace import CHUNK_SECONDS
from mpqueue._wire.pickling.packed_handler import Travels


class Capabilities(NamedTuple):
    """The facts that hold for every worker of an engine. The defaults are loky's: everything."""

    can_kill: bool = True  #: one worker can be ended while it runs: time limits, ``cancel(kill=True)``
    shares_memory: bool = True  #: big data goes through shared segments
    brings_shared: bool = False  #: its lanes bring what is shared to workers that have no memory in common with us
    carries_segments: bool = False  #: its lanes carry segments to and from workers that share no memory with us
    own_processes: bool = True  #: a worker is a process in which no other program's code runs
    can_fork: bool = False  #: workers can be forked from a process that has imported what they need: loky's on Linux
    same_files: bool = True  #: what is imported here is imported from the same files there
    follows_demand: bool = False  #: it gets how much work waits, since its workers come and go with that
    chunk_seconds: float = CHUNK_SECONDS  #: the target length of a chunk: long compared with the cost of sending it
    chunk_bytes: int = 4 << 20  #: what a chunk aims at, at most, of items; of results twice as many
    chunk_cost: float = 114e-6  #: CPU seconds that a chunk takes of the process through which all chunks go
    #: Seconds without any worker, nor a start of one under way, after which the jobs that wait for one are interrupted.
    patience: float = 30.0
    is_here: bool = True  #: its workers are on this machine, whose CPUs, memory and GPUs are counted
    measures_memory: bool = False  #: where no memory is shared: it looks at its workers' memory for the queue

    @property
    def handlers_travel(self) -> Travels:
        """The way in which its workers get a job's handler."""
        if self.shares_memory:
            return Travels.IN_MEMORY
        return Travels.SHARED_APART if self.brings_shared else Travels.WHOLE
