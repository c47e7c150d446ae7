"""The program of the nights' game: the same job each night, on a list that has changed meanwhile.

``python -m tests.chaos.night_program FOLDER``. The items are in FOLDER/list.json, and what came of each item goes to
FOLDER/results.json, whole, once all have ended. Each call of the handler is a line of FOLDER/calls.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from mpqueue import JobQueue, JournalError
from tests.support.waiting import spend

#: The exit code where the journal was refused.
REFUSED = 70


class Work:
    """The handler: writes down that it was called."""

    def __init__(self, folder: str) -> None:
        self._calls = os.path.join(folder, "calls")

    def __call__(self, item: Any) -> dict[str, Any]:
        """What has to come of an item, after as long as that takes."""
        fd = os.open(self._calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        os.write(fd, f"{name_of(item)}\n".encode())
        os.close(fd)
        spend(random.Random(name_of(item)).choice((0.0, 0.0, 0.001, 0.02, 0.3)))
        if fails(item):
            raise ValueError(worth(item))
        return outcome(item)


def name_of(item: Any) -> str:
    """An item, told apart from all others and from what it was before, on one line."""
    return json.dumps(item, sort_keys=True)


def worth(item: Any) -> str:
    """A word that is the item's own."""
    return hashlib.sha256(name_of(item).encode()).hexdigest()


def fails(item: Any) -> bool:
    """True of one item in twenty."""
    return random.Random(worth(item)).random() < 0.05


def outcome(item: Any) -> dict[str, Any]:
    """What the handler returns; one in five is big enough for a file of its own."""
    dice = random.Random(name_of(item))
    return {"worth": worth(item), "ballast": dice.randbytes(dice.choice((0, 0, 0, 1000, 400_000)))}


def digest(result: Any) -> str | None:
    """What tells one result from another."""
    return None if result is None else hashlib.sha256(repr(result).encode()).hexdigest()


def main(folder: Path) -> int:
    """Bring the batch up to date."""
    items = json.loads((folder / "list.json").read_text())
    try:
        with JobQueue(2, journal=folder / "run.db", max_retries=0) as queue:
            job = queue.create_job("batch", items, Work(str(folder)), update=True)
            queue.start("batch").result()
            rows = [(name_of(item), told(view)) for item, view in zip(items, job.items, strict=True)]
            whole = [(name_of(item), digest(result)) for item, result in zip(items, job.results, strict=True)]
    except JournalError as error:
        print(error, file=sys.stderr)
        return REFUSED
    written = folder / "results.new"
    written.write_text(json.dumps({"items": rows, "results": whole}))
    os.replace(written, folder / "results.json")
    return 0


def told(view: Any) -> str:
    """What is known of an item."""
    if view.exception is not None:
        return f"failed {view.exception.args[0]}"
    return f"{view.status} {digest(view.result)}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
