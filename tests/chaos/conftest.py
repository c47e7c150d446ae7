"""Where chaos takes its dice from: a seed that is printed, and can be given back with ``make chaos SEED=``."""

from __future__ import annotations

import os
import random

import pytest

from tests.support.length import IS_LONG

#: Seeds that have failed, each once mended: ``make chaos`` plays them again. When what happens, no seed says, so the
#: suite does without.
FAILED = (3881028706, 2467053045) if "MPQUEUE_CHAOS_SEED" in os.environ else ()


@pytest.fixture(params=["new", *FAILED])
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test: ``MPQUEUE_CHAOS_SEED``, else a new one, and those that have failed. Shown in a failure."""
    value = os.environ.get("MPQUEUE_CHAOS_SEED") or request.param
    if os.environ.get("MPQUEUE_CHAOS_MINUTES") and request.param != "new":
        pytest.skip("a long run plays one seed")
    value = random.randrange(2**32) if value == "new" else int(value)
    print(f"\nchaos seed {value}: make chaos SEED={value}")
    return value


@pytest.fixture
def seconds() -> float:
    """How long to keep it up: ``MPQUEUE_CHAOS_MINUTES``, else a few seconds in the long form, and one otherwise."""
    return 60 * float(os.environ.get("MPQUEUE_CHAOS_MINUTES") or (0.1 if IS_LONG else 0.02))
