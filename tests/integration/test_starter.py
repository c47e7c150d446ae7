"""The thread that starts workers outlives whatever a start meets."""

from __future__ import annotations

import subprocess
import sys

#: In a process of its own, where nobody has started Python's resource tracker before the starter does.
PROGRAM = """
import os, queue, resource, signal
from mpqueue._engines.loky.starter import Starter

def start():
    met.put((signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()), can_open()))

def can_open():
    try:
        os.close(os.dup(0))
    except OSError:
        return False
    return True

met = queue.SimpleQueue()
starter = Starter("starter", lambda: None, print)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
starter.submit(start)
without = met.get(timeout=30)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
starter.submit(start)
print(without, met.get(timeout=30))
starter.stop()
starter.thread.join(30)
"""


def test_a_start_without_descriptors_is_not_its_last() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False)
    assert done.stdout == "(True, False) (True, True)\n", done.stderr
