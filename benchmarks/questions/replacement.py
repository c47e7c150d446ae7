"""A worker dies, or many are there, and their imports are heavy: with modules imported beforehand, and without."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from benchmarks.case import Case, Measures, Sizes
from benchmarks.contenders import BY_NAME, Contender
from benchmarks.handlers import die_once, weigh_imports, weight_of
from benchmarks.memory import most_of_each, of_all, parent_of

QUESTION = "How long is a worker missing that needs 3 s to import, and what do four workers weigh?"

#: Workers that are weighed.
MANY = 4
#: Those that replace it, or of which a new one can be made by hand. With one worker, joblib has none.
REPLACING = tuple(name for name in BY_NAME if name != "joblib")
#: Those that say something of their own about memory.
WEIGHED = ("mpqueue", "mpqueue, preload", "multiprocessing", "multiprocessing, preload", "concurrent.futures", "loky")
#: Those of them whose workers are forked from a process that is no worker, and is weighed too.
FORKED_FROM_ANOTHER = ("mpqueue, preload", "multiprocessing, preload")


def cases(sizes: Sizes) -> list[Case]:
    def measure(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        with tempfile.TemporaryDirectory() as folder:
            marks = [Path(folder) / name for name in ("died", "at work")]
            order = "|".join(map(str, marks))
            contender.map_past_death(die_once, order)
            died, at_work = (float(mark.read_text()) for mark in marks)
        return {"seconds": at_work - died}

    def weight(contender: Contender, case: Case, seed: int) -> Measures:  # noqa: ARG001
        rounds = list(range(4 * contender.workers))
        weights = of_all(contender, lambda: contender.map(weigh_imports, rounds, 1))
        if contender.name in FORKED_FROM_ANOTHER:
            weights += [(fork_server, weight_of(fork_server)) for fork_server in {parent_of(pid) for pid, _ in weights}]
        return {"megabytes": most_of_each(weights) / 1e6}

    found = [
        Case(
            "replacement",
            "from a worker's death to the next item at work",
            measure=measure,
            warm=False,
            repeats=sizes.pick(3, 2, 1),
            workers=1,
            contenders=REPLACING,
        )
    ]
    if importlib.util.find_spec("sklearn") is not None and importlib.util.find_spec("pandas") is not None:
        title = f"MB of {MANY} workers with pandas and scikit-learn"
        found.append(Case("weight", title, measure=weight, warm=False, repeats=1, workers=MANY, contenders=WEIGHED))
    return found
