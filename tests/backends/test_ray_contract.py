"""The contract of all engines, held against Ray: a node of its own, each worker an actor."""

from __future__ import annotations

import pytest

from mpqueue.backends import RayBackend
from tests.contract.test_engines import *  # noqa: F403 - the tests themselves
from tests.support.engines import Engine

pytestmark = pytest.mark.slow


@pytest.fixture
def engine(ray_node: None) -> Engine:
    """The node, with all its CPUs free."""
    return Engine("ray", RayBackend())
