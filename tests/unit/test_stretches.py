"""How many items run under one mark."""

from __future__ import annotations

import pytest

from mpqueue._wire.pace import STRETCH_SECONDS
from mpqueue._worker.chunk.stretches import ALONE, STRETCH_GROWTH, expected_seconds, first_size, next_size


@pytest.mark.parametrize(("pace", "size"), [(None, 1), (0.0, 1), (1.0, 1), (0.001, 15), (0.0001, 150)])
def test_the_first_one_holds_what_is_known_to_take_fifteen_milliseconds(pace: float | None, size: int) -> None:
    assert first_size(pace) == size


def test_items_of_four_milliseconds_have_a_mark_each() -> None:
    assert (first_size(ALONE), next_size(ALONE, 1_000)) == (1, 1)
    assert (first_size(0.99 * ALONE), next_size(0.99 * ALONE, 1_000)) == (3, 3)


def test_the_next_ones_grow_by_steps() -> None:
    assert next_size(1e-7, 1) == STRETCH_GROWTH
    assert next_size(1e-7, STRETCH_GROWTH) == STRETCH_GROWTH**2
    assert next_size(0.0, 1_000) == 1_000 * STRETCH_GROWTH
    assert next_size(0.001, 1_000) == 15
    assert next_size(1.0, 1_000) == 1


def test_no_stretch_is_expected_to_take_longer_than_it_aims_at() -> None:
    assert expected_seconds(2, 0.001) == 0.002
    assert expected_seconds(1, 1.0) == STRETCH_SECONDS
    assert expected_seconds(8, None) == 0.0
