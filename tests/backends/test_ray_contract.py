"""The contract of all engines, held against Ray: a node of its own, each worker an actor."""

from __future__ import annotations

import pytest

from mpqueue.backends import RayBackend
from tests.contract.test_engines import *  # noqa: F403 - the tests themselves
from tests.support.engines import Engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long(
        but=[
            "test_results_come_in_item_order_and_events_are_right",
            "test_a_time_limit_ends_the_item_or_is_refused",
            "test_it_refuses_what_its_page_says",
        ]
    ),
]


@pytest.fixture
def engine(ray_node: None) -> Engine:
    """The node, with all its CPUs free."""
    return Engine("ray", RayBackend())
