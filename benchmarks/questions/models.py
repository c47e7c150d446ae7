"""A torch model of 105 MB, another one each time, as what the handler needs: sent once, or with every chunk?"""

from __future__ import annotations

import importlib.util
from typing import Any

from benchmarks.case import Case, Measures, Sizes, Stopwatch
from benchmarks.contenders import Contender
from benchmarks.handlers import LAYERS, closed_over_model, look_at_layer, make_model, weigh_model
from benchmarks.memory import most_of_each, of_all
from benchmarks.questions.closure import SEND_CLOSURES

QUESTION = "What does a torch model of 105 MB as the handler cost, and what do the workers hold of it?"

#: Seconds: importing torch, which is not what is asked, takes all of them long on a busy machine.
LIMIT = 90.0


def cases(sizes: Sizes) -> list[Case]:
    if importlib.util.find_spec("torch") is None:
        return []
    megabytes = sizes.pick(105, 105, 1)
    items = list(range(sizes.pick(200, 200, 10)))

    def expected(seed: int) -> list[float]:
        return [float(seed + item % LAYERS) for item in items]

    def bound(contender: Contender, case: Case, seed: int) -> Measures:
        _import_torch(contender)
        model = make_model(megabytes, seed)
        with Stopwatch() as watch:
            results = contender.map_with(look_at_layer, model, items, case.chunk(len(items), contender.workers))
        assert results == expected(seed), "not the expected results"
        return watch.measures(count=len(items))

    def closed(contender: Contender, case: Case, seed: int) -> Measures:
        _import_torch(contender)
        handler = closed_over_model(make_model(megabytes, seed))
        with Stopwatch() as watch:
            results = contender.map(handler, items, case.chunk(len(items), contender.workers))
        assert results == expected(seed), "not the expected results"
        return watch.measures(count=len(items))

    def weight(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        rounds = list(range(4 * contender.workers))
        grouped = 4 if contender.name == "ray" else 1

        def weigh(model: Any) -> int:
            return most_of_each(of_all(contender, lambda: contender.map_with(weigh_model, model, rounds, grouped)))

        before = weigh(make_model(0, seed))
        return {"megabytes": (weigh(make_model(megabytes, seed)) - before) / 1e6}

    works = f"{len(items)} items, {megabytes} MB"
    # One chunk a worker, since some send the model with every chunk.
    return [
        Case("bound", f"{works} bound by partial", measure=bound, warm=False, chunks_per_worker=1, limit=LIMIT),
        Case(
            "closure",
            f"{works} in a closure",
            measure=closed,
            warm=False,
            chunks_per_worker=1,
            contenders=SEND_CLOSURES,
            limit=LIMIT,
        ),
        Case(
            "weight",
            f"MB that {sizes.workers} workers hold of it",
            measure=weight,
            warm=False,
            repeats=1,
            limit=LIMIT,
        ),
    ]


def _import_torch(contender: Contender) -> None:
    """In every worker that stays: what is asked is what the model costs."""
    contender.map_with(look_at_layer, make_model(0, 0), list(range(8 * contender.workers)), 1)
