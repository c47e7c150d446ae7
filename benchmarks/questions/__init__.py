"""The questions, a file each: ``QUESTION`` in words, and `cases`, what is measured to answer it."""

from __future__ import annotations

import importlib
from types import ModuleType

#: In the order in which they are asked.
NAMES = (
    "noop",
    "item_count",
    "durations",
    "skewed",
    "drifting",
    "longest_first",
    "tuned_chunks",
    "images",
    "arrays",
    "stages",
    "payload_kinds",
    "closure",
    "models",
    "one_item",
    "cold_start",
    "import_time",
    "million",
    "listeners",
    "crash",
    "replacement",
    "fault_times",
    "scaling",
    "backends",
    "backend_arrays",
    "coordinator",
    "many_workers",
    "journal",
    "nightly",
    "advice",
)
#: What a quick run leaves out: what is asked for the documentation alone.
NOT_QUICK = ("tuned_chunks", "backends", "backend_arrays", "advice")


def of_size(size: str) -> list[str]:
    """The questions of a full, a quick or a smoke run."""
    return [name for name in NAMES if size != "quick" or name not in NOT_QUICK]


def load(name: str) -> ModuleType:
    """The question of that name."""
    return importlib.import_module(f"benchmarks.questions.{name}")
