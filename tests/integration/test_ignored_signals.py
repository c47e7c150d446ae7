"""The tests run the same when they are started with signals ignored or blocked, as a background command is."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SENT_BY_TESTS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

#: Prints which signals a program ignores and blocks that is started once the tests are set up.
PROGRAM = """
import signal, subprocess
from tests import conftest

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGQUIT})
conftest.receive_signals()
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
subprocess.run(["grep", "^Sig[IB]", "/proc/self/status"])
"""


def test_programs_that_tests_start_receive_what_the_tests_were_started_to_ignore() -> None:
    command = ["sh", "-c", "trap '' HUP INT QUIT TERM; exec \"$@\"", "sh", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    sets = dict(line.split(":") for line in done.stdout.splitlines())
    assert set(sets) == {"SigIgn", "SigBlk"}
    for name, bits in sets.items():
        assert [number for number in SENT_BY_TESTS if int(bits, 16) >> (number - 1) & 1] == [], name
