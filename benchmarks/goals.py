"""`python -m benchmarks.goals RESULTS`: which of the figures that mpqueue is meant to reach it reaches.

A goal is a ratio of two times of the same run, or a bound on something that hardly depends on the machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders import BY_NAME, BareLoop
from benchmarks.handlers import KINDS
from benchmarks.tables import an_item, best

#: Ahead means by so much, no slower means within so much.
AHEAD, NO_SLOWER = 0.95, 1.05
OTHERS = tuple(name for name in BY_NAME if not name.startswith("mpqueue") and name != BareLoop.name)
#: Times of what an array of as many bytes takes: of other objects, and of those that must be copied in the worker.
AS_ARRAYS, COPIED = 1.5, 2.5
#: Works of equal items that stay within `NEAR` of the ideal.
EQUAL_WORKS = ("10 us", "1 ms", "20 ms")
NEAR = 1.02


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted, and what was found; None where the results do not tell."""

    text: str
    found: float | None
    bound: float

    def __str__(self) -> str:
        if self.found is None:
            return f"  ?   {self.text}: not measured"
        return (
            f"{' ok ' if self.found <= self.bound else ' NO '}  {self.text}: {self.found:.3g} (at most {self.bound:g})"
        )


class Results:
    """A results file, asked for ratios."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    def time(self, question: str, case: str, *names: str, metric: str = "seconds") -> float | None:
        """The lowest figure of these contenders."""
        if question not in self.found:
            return None
        times = [best(self.found[question], case, name, metric) for name in names]
        return min((time for time in times if time is not None), default=None)

    def over(self, question: str, case: str, own: str, *others: str, metric: str = "seconds") -> float | None:
        """The time of mpqueue as a multiple of the best of the others."""
        ours, theirs = (self.time(question, case, *names, metric=metric) for names in ((own,), others))
        return None if ours is None or theirs is None else ours / theirs

    def item(self, question: str, case: str, metric: str) -> float | None:
        """The figure of mpqueue an item."""
        return an_item(self.found[question], case, "mpqueue", metric) if question in self.found else None


def goals(results: Results) -> Iterator[Goal]:
    """All of them."""
    drop_ins = ("mpqueue.Pool", "mpqueue.map", "mpqueue")
    own = next((name for name in drop_ins if results.time("noop", "noop", name) is not None), "mpqueue")
    yield Goal(f"no-ops, {own} / multiprocessing", results.over("noop", "noop", own, "multiprocessing"), NO_SLOWER)
    for name in ("joblib", "mpire", "pebble", "ray"):
        yield Goal(f"no-ops, {own} / {name}", results.over("noop", "noop", own, name), 1 / 15)
    for case in EQUAL_WORKS:
        yield Goal(f"{case} an item, mpqueue / the longer of ideal and best", _near(results, case), NEAR)
    yield Goal("skewed / ideal", results.over("skewed", "skewed", "mpqueue", BareLoop.name), NEAR)
    yield from _longest_first(results)
    yield Goal("drifting / ideal", results.over("drifting", "drifting", "mpqueue", BareLoop.name), 1.03)
    yield Goal("drifting / best of the others", results.over("drifting", "drifting", "mpqueue", *OTHERS), AHEAD)
    for way, bound in (("in", 1 / 10), ("out", 1 / 6), ("both", 1 / 6)):
        case = f"{way} 8 MB"
        yield Goal(f"8 MB {way} / best of the others", results.over("arrays", case, "mpqueue", *OTHERS), AHEAD)
        yield Goal(f"8 MB {way} / multiprocessing", results.over("arrays", case, "mpqueue", "multiprocessing"), bound)
    ours, one = (results.time("stages", case, "mpqueue") for case in ("three stages", "one stage"))
    yield Goal("8 MB through three stages / one stage", None if ours is None or one is None else ours / one, 1.5)
    best_of_others = results.over("stages", "three stages", "mpqueue", *OTHERS)
    yield Goal("8 MB through three stages / best of the others", best_of_others, AHEAD)
    for case in ("bound", "closure"):
        for name in ("joblib", "ray"):
            yield Goal(f"100 MB {case} / {name}", results.over("closure", case, "mpqueue", name), AHEAD)
    yield Goal("100 MB, MB in the workers", results.time("closure", "weight", "mpqueue", metric="megabytes"), 115)
    yield from _models(results)
    for name in ("mpqueue.Executor", "mpqueue"):
        yield Goal(f"one warm item, {name} / loky", results.over("one_item", "one item", name, "loky"), 1.5)
    for text, metric in (("first result of a cold queue", "after_import"), ("the same with its import", "seconds")):
        yield Goal(f"{text} / loky", results.over("cold_start", "cold start", "mpqueue", "loky", metric=metric), 1.3)
    yield Goal("import mpqueue, seconds", results.time("import_time", "import", "mpqueue"), 0.08)
    for case, bound in (("without", 0.2), ("with", 4.0)):
        cost = results.item("listeners", case, "parent_cpu")
        yield Goal(f"parent CPU an item {case} a listener, us", None if cost is None else cost * 1e6, bound)
    for metric, bound in (("create", 0.3), ("running_bytes", 150), ("done_bytes", 150)):
        yield Goal(f"a million items, {metric}", results.time("million", "1000000", "mpqueue", metric=metric), bound)


def _longest_first(results: Results) -> Iterator[Goal]:
    """Items whose costs are known, on two workers and on many."""
    for workers in (2, 64):
        ratio = results.time("longest_first", f"costs, {workers} workers", "mpqueue", metric="ratio")
        yield Goal(f"log-normal items, {workers} workers / list scheduling", ratio, NEAR)


def _models(results: Results) -> Iterator[Goal]:
    """What batches of images and models carry, and their workers."""
    for kind in KINDS:
        for way in ("in", "out", "both"):
            yield from _kind(results, kind, way)
    for case in ("bound", "closure"):
        yield Goal(f"a model {case} / best of the others", results.over("models", case, "mpqueue", *OTHERS), 1 / 3)
    missing = results.time("replacement", "replacement", "mpqueue, preload")
    yield Goal("from a worker's death to the next item with preload, seconds", missing, 0.06)


def _kind(results: Results, kind: str, way: str) -> Iterator[Goal]:
    """Of what is no array: as arrays, and no slower than anybody."""
    case = f"{kind} {way}"
    ours, numpy = (results.time("payload_kinds", name, "mpqueue") for name in (case, f"numpy {way}"))
    ratio = None if ours is None or numpy is None else ours / numpy
    yield Goal(f"{case} / numpy {way}", ratio, COPIED if kind == "bytes" else AS_ARRAYS)
    yield Goal(f"{case} / best of the others", results.over("payload_kinds", case, "mpqueue", *OTHERS), NO_SLOWER)


def _near(results: Results, case: str) -> float | None:
    ours = results.time("durations", case, "mpqueue")
    bounds = (results.time("durations", case, BareLoop.name), results.time("durations", case, *OTHERS))
    known = [bound for bound in bounds if bound is not None]
    return None if ours is None or not known else ours / max(known)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.goals", description=__doc__)
    parser.add_argument("results", type=Path)
    found = Results(json.loads(parser.parse_args().results.read_text())["questions"])
    for goal in goals(found):
        print(goal)


if __name__ == "__main__":
    main()
