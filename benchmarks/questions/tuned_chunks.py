"""What others reach on the drifting items where somebody tries all sizes of chunk and keeps the best.

That is more than a user can do, who does not run the same work twice; it shows how much of the difference is the
choice of a chunk size, and how much is the pool.
"""

from __future__ import annotations

from benchmarks.case import Case, Sizes
from benchmarks.handlers import burn
from benchmarks.questions.drifting import drifting

QUESTION = "What does a chunk size gain that was tuned by hand for this very input?"

TAKE_A_CHUNKSIZE = ("multiprocessing", "concurrent.futures", "loky", "pebble", "ray", "ray, batched by hand")
ROUNDS = 2


def cases(sizes: Sizes) -> list[Case]:
    found = [
        Case(
            f"chunks of {chunksize}",
            f"chunks of {chunksize}",
            handler=burn,
            items=lambda seed: drifting(sizes),  # noqa: ARG005
            chunksize=chunksize,
            repeats=2,
            contenders=TAKE_A_CHUNKSIZE,
            limit=20.0,
        )
        for chunksize in sizes.pick((2, 5, 10, 20, 50, 100, 250), (10, 50, 250), (2,))
    ]
    own = Case(
        "its own",
        "chunks of its own choice",
        handler=burn,
        items=lambda seed: drifting(sizes),  # noqa: ARG005
        repeats=2,
        contenders=("mpqueue", "mpqueue.map", "mpqueue.Pool"),
    )
    return [*found, own]
