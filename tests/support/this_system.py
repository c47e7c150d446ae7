"""Which system this is. Imports nothing of weight: workers that run handlers of the tests import it too."""

from __future__ import annotations

import os
import signal
import sys

#: False too with the portable forms, where a bare system is played (`make test-portable`).
IS_LINUX = sys.platform == "linux" and os.environ.get("MPQUEUE_PORTABLE") != "1"

IS_WINDOWS = sys.platform == "win32"

#: What ends a process at once, for `os.kill`: on Windows any signal does.
KILL: int = getattr(signal, "SIGKILL", 9)
