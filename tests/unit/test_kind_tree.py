"""Kinds of needs are found by what they need, as if each had been looked at."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._core.state.pending_by_kind import KindTree, Standing
from mpqueue._core.state.resources import Needs, NeedsRange, needs_of

NAMES = ("cpus", "gpu", "license", "memory")

kinds = st.builds(
    needs_of,
    cpus=st.integers(1, 4),
    memory=st.sampled_from((0, 0, 10, 60)),
    uses=st.fixed_dictionaries({"gpu": st.integers(0, 3), "license": st.sampled_from((0, 0, 0, 1))}),
)


def amounts(low: int, high: float) -> st.SearchStrategy[dict[str, float]]:
    return st.fixed_dictionaries({name: st.sampled_from((low, 1, 2, 3, 60, high)) for name in NAMES})


ranges = st.lists(
    st.builds(
        NeedsRange, st.sampled_from((1, 2, math.inf)), amounts(0, math.inf), st.one_of(st.just({}), amounts(0, 3))
    ),
    max_size=3,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(kinds, min_size=1, max_size=40, unique=True),
    st.lists(st.tuples(st.integers(0, 39), st.one_of(st.none(), st.integers(0, 1000)), st.booleans()), max_size=60),
    st.lists(st.tuples(ranges, st.sampled_from((0, 300, math.inf))), min_size=1, max_size=8),
)
def test_what_a_search_finds_is_what_a_look_at_each_kind_would(
    given_kinds: list[Needs],
    moves: list[tuple[int, int | None, bool]],
    searches: list[tuple[list[NeedsRange], float]],
) -> None:
    tree, standing, marked = KindTree(given_kinds), dict[int, Standing](), set[int]()
    for number, at, is_marked in moves:
        kind = number % len(given_kinds)
        tree.put(kind, None if at is None else (at, kind), marked=is_marked)
        standing.pop(kind, None)
        marked.discard(kind)
        if at is not None:
            standing[kind] = (at, kind)
        if is_marked:
            marked.add(kind)
    order = sorted(standing, key=standing.__getitem__)
    for asked, before in searches:
        fitting = (k for k in order if standing[k] < (before,) and any(each.has(given_kinds[k]) for each in asked))
        assert tree.first(asked, (before,)) == next(fitting, None)
        found = [kind for kind in order if standing[kind] < (before,) and kind not in marked]
        assert tree.mark_before((before,)) == found
        marked.update(found)
