"""A file of results: answers found later are put beside those that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def load(path: Path, empty: dict[str, Any]) -> dict[str, Any]:
    """What the file has; ``empty`` where there is none."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else empty
    return found


def save(path: Path, found: dict[str, Any]) -> None:
    """Write the file whole: whoever is interrupted in it leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(found, indent=1) + "\n")
    unfinished.rename(path)
