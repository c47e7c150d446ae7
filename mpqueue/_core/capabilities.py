"""What an engine can do: data by which the scheduler and the coordinator are steered, whichever engine it is."""

from __future__ import annotations

from typing import NamedTuple


class Capabilities(NamedTuple):
    """What holds for every worker of an engine. As they stand here, those of loky's: everything."""

    can_kill: bool = True  #: one worker can be ended while it runs: time limits, ``cancel(kill=True)``
    can_signal: bool = True  #: a worker can be looked at, and told something, in the middle of a chunk
    can_replace: bool = True  #: a worker can be exchanged for a fresh one: ``max_items_per_worker``
    exact_blame: bool = True  #: when a worker dies, it is known which item it ran
    shares_memory: bool = True  #: big data goes through shared segments
    own_processes: bool = True  #: a worker is a process in which nobody else's code runs
    is_sticky: bool = True  #: all frames of a lane reach the same worker, so that handlers go over once
    same_files: bool = True  #: what is imported here is imported from the same files there
    patience: float = 30.0  #: seconds without any worker after which the jobs that wait for one fail
