"""Figures of a job as JSON, and back: what rules look at, without the rows that only pictures need."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from mpqueue._core.state.timings import Sums
from mpqueue._report.figures import (
    Figures,
    FirstItems,
    ItemTimes,
    MemoryFigures,
    PaceFigures,
    Part,
    SlowItem,
    Tries,
)

FOLDER = Path(__file__).parent / "recorded"
#: What is drawn only.
_PICTURES: dict[str, Any] = {"spans": [], "events": [], "failures": []}
#: The types of what is made of parts.
_OF_ONE: dict[str, Any] = {
    "items": ItemTimes, "memory": MemoryFigures, "first": FirstItems,
    "tries": Tries,
}  # fmt: skip
_OF_MANY: dict[str, Any] = {"work": Part, "parent": Part, "slowest": SlowItem}


class Recording(NamedTuple):
    """Figures of a bad program, and of the same handler on one worker where it has that."""

    figures: Figures
    alone: Figures | None


def to_plain(figures: Figures) -> dict[str, Any]:
    """As JSON has it."""
    plain = {field.name: getattr(figures, field.name) for field in dataclasses.fields(figures)} | _PICTURES
    if figures.items is not None:
        plain["items"] = figures.items._replace(bars=())
    plain["slowest"] = figures.slowest[:1]
    return {name: _plain(value) for name, value in plain.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Sums):
        return {name: _plain(number) for name, number in dataclasses.asdict(value).items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def from_plain(plain: dict[str, Any]) -> Figures:
    """What `to_plain` made."""
    made: dict[str, Any] = {**plain, "failures": (), "stages": ()}
    for name, kind in _OF_ONE.items():
        if plain[name] is not None:
            made[name] = kind(**plain[name])
    for name, kind in _OF_MANY.items():
        made[name] = [kind(**part) for part in plain[name]]
    made["paces"] = plain["paces"] and tuple(PaceFigures(**pace) for pace in plain["paces"])
    made["sums"] = Sums(**plain["sums"])
    return Figures(**made)


def save(name: str, figures: Figures, alone: Figures | None) -> None:
    """Keep the figures of a program."""
    plain = {"figures": to_plain(figures), "alone": None if alone is None else to_plain(alone)}
    (FOLDER / f"{name}.json").write_text(json.dumps(plain, indent=1) + "\n")


def load(name: str) -> Recording:
    """The figures of a program."""
    plain = json.loads((FOLDER / f"{name}.json").read_text())
    alone = plain["alone"]
    return Recording(from_plain(plain["figures"]), None if alone is None else from_plain(alone))
