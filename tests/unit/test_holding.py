"""Which results wait to be pickled together: only those that nothing can change before."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mpqueue._worker.results import ChunkResults, NotReadyError


class Thing:
    """No list, tuple or dict."""


class TestReports:
    """Of several threads: the chunk timer reports early what has ended, while results are pickled."""

    @staticmethod
    def results(out: list[Any], marked: Callable[[int], None] = lambda _: None) -> ChunkResults:
        """Of items that have returned these."""
        job: Any = SimpleNamespace(plain=True, discards=False, passes_on=False, capture=None)
        links = SimpleNamespace(is_own_process=False)
        running: Any = SimpleNamespace(out=out, added={}, indices=range(len(out)), links=links)
        return ChunkResults(job, running, False, marked, None)

    def test_what_is_pickled_and_what_is_plain_are_reported_together(self) -> None:
        made = self.results([1])
        made.add_at_once(Thing())
        _, packed, failures = made.take(2, final=False)
        assert len(packed) == 2
        assert not failures

    def test_no_report_is_made_of_results_that_are_just_being_pickled(self) -> None:
        """They leave the list one by one."""

        def report(_: int) -> None:
            with pytest.raises(NotReadyError):
                made.take(3, final=False)

        made = self.results(out := [1], report)
        made.add_at_once(Thing())
        out.append(3)
        made.stretch_ended(0, 3)
        assert len(made.take(3, final=False)[1]) == 3
