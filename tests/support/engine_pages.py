"""What the documentation's tables say that an engine refuses, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import handlers as do
from tests.support.engines import Engine

_FOLDER = Path(__file__).parents[2] / "docs" / "how-to"
#: Where each engine's table is: the page, and the heading of its column.
_TABLES = {
    "loky": ("other-engines.md", "[loky]"),
    "inline": ("other-engines.md", "`InlinePool`"),
    "dask": ("cluster-dask.md", "on Dask"),
    "ray": ("cluster-ray.md", "on Ray"),
}


def _queue(**options: Any) -> Callable[[Engine], None]:
    return lambda engine: engine.queue(**options).close()


def _job(**options: Any) -> Callable[[Engine], None]:
    def ask(engine: Engine) -> None:
        with engine.queue() as queue:
            queue.create_job("job", [1], do.succeed, **options)

    return ask


def _resize(engine: Engine) -> None:
    with engine.queue() as queue:
        queue.resize(1)


#: What an engine may refuse: how a program asks for it.
_OPTIONS: dict[str, Callable[[Engine], None]] = {
    "timeout": _queue(timeout=60.0),
    "initializer": _queue(initializer=int),
    "preload": _queue(preload=["colorsys"]),
    'per_worker["threads"]': _queue(per_worker={"threads": 1}),
    'per_worker["items"]': _queue(per_worker={"items": 5}),
    'per_worker["memory"]': _queue(per_worker={"memory": "1GB"}),
    "gpu_env": _queue(gpu_env=True, resources={"gpu": 1}),
    "cpu": _job(uses={"cpu": 1}),
    "memory": _job(uses={"memory": "1MB"}),
    "capture_output": _job(capture_output=True),
    "resize": _resize,
}


def refused_by(engine: Engine) -> set[str]:
    """The options that it refuses."""
    refused = set()
    for name, ask in _OPTIONS.items():
        try:
            ask(engine)
        except ValueError:
            refused.add(name)
    return refused


def refused_on_page(engine: Engine) -> set[str]:
    """Those that its page says it refuses. Raises KeyError for an option that the page does not have."""
    page, heading = _TABLES[engine.name]
    cells: dict[str, str] = {}
    column = None
    for line in (_FOLDER / page).read_text(encoding="utf-8").splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        headings = [at for at, cell in enumerate(row) if cell == heading or cell.startswith(f"{heading}(")]
        column = headings[0] if headings else column if row else None
        if column is not None:
            cells |= dict.fromkeys(re.findall(r'`(per_worker\["\w+"\]|\w+)', row[0]), row[column])
    return {name for name in _OPTIONS if "refused" in cells[name]}
