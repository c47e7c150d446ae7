"""A batch with a journal is run night after night on a list that changes, is killed, and its files are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.night_program import LISTS, STREAMS
from tests.chaos.nights import Nights

pytestmark = pytest.mark.slow


@pytest.mark.timeout(0)
@pytest.mark.parametrize("ways", [tuple(LISTS), tuple(STREAMS)], ids=["lists", "streams"])
def test_what_comes_of_an_item_is_its_own_whatever_happens_to_the_list(
    seed: int, seconds: float, tmp_path: Path, ways: tuple[str, ...]
) -> None:
    nights = Nights(seed, tmp_path, ways)
    nights.run_for(seconds)
    print(*[f"{count} {what}" for what, count in sorted(nights.counts.items())], sep=", ")
    assert not nights.complaints, "\n".join(nights.complaints[:20])
