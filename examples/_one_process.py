"""Owns the measurement that the speed-up is held against: the same work as a plain loop in one process.

It runs in a process of its own, since the number of threads inside NumPy can only be limited before NumPy is loaded.
Run as a script, it reads items as JSON from its input and writes the measurement as JSON to its output.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

#: As in the queue's workers: one thread inside NumPy, so that a process is a core and both sides get the same.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
#: Pictures to measure; the time for more is worked out from these.
SAMPLE = 60


@dataclass(frozen=True, slots=True)
class OneProcess:
    """What one process needs, in seconds."""

    loading: float
    working: float
    pictures: int

    def seconds_for(self, pictures: int) -> float:
        """The time for so many pictures: loading the network once, then one picture after the other."""
        return self.loading + self.working * pictures / self.pictures


def measure(items: Sequence[dict[str, Any]]) -> OneProcess:
    """Time the loop over at most ``SAMPLE`` of the items, evenly spread; nothing of what they write is kept."""
    count = min(SAMPLE, len(items))
    sample = [items[i * len(items) // count] for i in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        own = [item | {"thumbnail": f"{folder}/{item['id']}.jpg", "kills_worker": False} for item in sample]
        done = subprocess.run(
            [sys.executable, __file__],
            input=json.dumps(own),
            env=os.environ | ONE_THREAD,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return OneProcess(**json.loads(done.stdout))


def _loop(items: Sequence[dict[str, Any]]) -> OneProcess:
    started = time.perf_counter()
    from alt_text import describe_picture, load_network

    network = load_network()
    loaded = time.perf_counter()
    for item in items:
        describe_picture(item, network)
    return OneProcess(loaded - started, time.perf_counter() - loaded, len(items))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word; the main program has its say
    print(json.dumps(asdict(_loop(json.load(sys.stdin)))))
