"""Where chaos takes its dice from: a seed that is printed, and can be given back with ``make chaos SEED=``."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def seed() -> int:
    """The seed of this test: ``MPQUEUE_CHAOS_SEED``, else a new one. Shown when the test fails."""
    value = int(os.environ.get("MPQUEUE_CHAOS_SEED") or random.randrange(2**32))
    print(f"\nchaos seed {value}: make chaos SEED={value}")
    return value


@pytest.fixture
def seconds() -> float:
    """How long to keep it up: ``MPQUEUE_CHAOS_MINUTES``, else a few seconds."""
    return 60 * float(os.environ.get("MPQUEUE_CHAOS_MINUTES") or 0.1)
