"""The entry of a worker's process: it reads its start message and follows it.

It does the work of `loky.backend.popen_loky_posix` as a program, without parsing arguments.
"""

from __future__ import annotations

import pickle
from multiprocessing import process
from typing import Any, BinaryIO

from loky.backend import spawn

#: The code that its interpreter runs, with the message open as ``message``. It begins with the module search path.
#: Loaded objects are no garbage: looking for some takes 8 ms of a start's CPU time. `serving.serve` begins with it.
PROGRAM = """
import gc, pickle, sys
gc.disable()
surroundings = pickle.load(message)
sys.path = surroundings["sys_path"]
from mpqueue._engines.loky import worker_entry
sys.exit(worker_entry.live(surroundings, message))
"""


def live(surroundings: dict[str, Any], message: BinaryIO) -> int:
    """Run as a process that was started with these, and with the rest of the message; return its exit code."""
    own: Any = process.current_process()
    with message:
        own._inheriting = True
        try:
            spawn.prepare(surroundings)
            worker = pickle.load(message)
        finally:
            del own._inheriting
    return int(worker._bootstrap())
