"""The process in which one library meets one fault. Told what to do in one argument, as JSON; answers in a file."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from typing import Any

from benchmarks.matrix import dialects, faults, plays


def main(order: dict[str, Any]) -> None:
    """Play it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
    with open(order["answers"], "a", buffering=1) as answers:

        def tell(**what: Any) -> None:
            answers.write(json.dumps(what) + "\n")
            answers.flush()

        dialect = dialects.BY_NAME[order["contender"]](order["workers"])
        fault = dataclasses.replace(faults.BY_NAME[order["fault"]], patience=order["patience"])
        plays.fail_on_signal()
        getattr(plays, fault.play)(plays.Stage(dialect, fault, order["folder"], tell))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
