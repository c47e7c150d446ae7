"""The entry of a worker's process: it reads its start message and lives by it.

Does what `loky.backend.popen_loky_posix` does when it is run, but for what that needs to parse its arguments.
"""

from __future__ import annotations

import pickle
from multiprocessing import process
from typing import Any, BinaryIO

from loky.backend import spawn

#: What its interpreter runs with the message open as ``message``. The first thing in it is where modules are found.
#: What it loads is no garbage: looking for some takes 8 ms of the CPU time of a start. `serving.serve` begins with it.
PROGRAM = """
import gc, pickle, sys
gc.disable()
surroundings = pickle.load(message)
sys.path = surroundings["sys_path"]
from mpqueue._engines.loky import worker_entry
sys.exit(worker_entry.live(surroundings, message))
"""


def live(surroundings: dict[str, Any], message: BinaryIO) -> int:
    """Be a process that was started with these, and with what comes after them in the message; return its exit code."""
    own: Any = process.current_process()
    with message:
        own._inheriting = True
        try:
            spawn.prepare(surroundings)
            worker = pickle.load(message)
        finally:
            del own._inheriting
    return int(worker._bootstrap())
