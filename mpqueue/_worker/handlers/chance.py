"""Random numbers that depend on nothing but the job's seed and the item's place in the job.

So they are the same for any number of workers, any order and any try, and no two items share any.
"""

from __future__ import annotations

import random
from typing import Any


def random_numbers(seed: int, index: int | None) -> Any:
    """The generator of the item at that index, at its beginning; None: of the job's setup.

    With NumPy that is ``default_rng(SeedSequence(seed, spawn_key=(index,)))``: what NumPy's own way to seed parallel
    streams, ``SeedSequence(seed).spawn(n)``, gives the child of that number.
    """
    try:
        import numpy as np  # 100 ms, once, that only workers pay whose handlers ask for it
    except ImportError:
        return random.Random(f"{seed} {index}")  # hashes all of the text
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=() if index is None else (index,)))
