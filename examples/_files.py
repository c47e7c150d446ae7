"""Owns how the examples write a file: whole, or not at all.

A worker may be killed at any moment. A reader must never find half a thumbnail because of that.
"""

import os
from pathlib import Path

#: Ends the name of a file that is still being written; one that stays behind belongs to a killed worker.
UNFINISHED = ".unfinished"


def write_whole(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, in one step as others see it; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed workers left in ``folder``. Only to be called when no worker runs any more."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)
