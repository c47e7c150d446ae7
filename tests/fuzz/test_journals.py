"""Paths of journals that are none: refused, or opened."""

from __future__ import annotations

import pytest
from hypothesis import given

from mpqueue import JobQueue
from tests.fuzz.judge import Refused, ask, fuzzed
from tests.fuzz.odd import Odd, values

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


@fuzzed(60)
@given(values)
def test_odd_path(tmp_path_factory: pytest.TempPathFactory, odd: Odd) -> None:
    journal = odd.make()
    if isinstance(journal, str) and journal:
        journal = f"{tmp_path_factory.mktemp('journal')}/{journal.replace('/', '-')}"
    queue = ask(lambda: JobQueue(1, journal=journal))
    if not isinstance(queue, Refused):
        queue.close()
