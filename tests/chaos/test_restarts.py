"""A program with a journal is killed and interrupted at random, and run again until it is through."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.restarts import Restarts, objections_to_events

pytestmark = pytest.mark.slow


@pytest.mark.long
@pytest.mark.timeout(0)
def test_the_books_balance_whatever_ends_the_program(seed: int, seconds: float, tmp_path: Path) -> None:
    restarts = Restarts(seed, tmp_path)
    restarts.run_for(seconds)
    print(*[f"{count} {what}" for what, count in sorted(restarts.counts.items())], sep=", ")
    assert not restarts.complaints, "\n".join(restarts.complaints[:20])


def test_the_books_object_to_what_runs_or_ends_once_more(tmp_path: Path) -> None:
    """Else a run that complains of nothing would say nothing."""
    for name, text in {
        "calls-0": "job-0 1 1 100\njob-0 2 1 100\n",
        "events-0": "job-0 1 completed 0.5\njob-0 2 completed 0.001\n",
        "calls-1": "job-0 1 1 200\njob-0 2 1 200\n",
        "events-1": "job-0 2 completed 0.001\njob-0 2 completed 0.001\njob-0 1 completed 0.5\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert list(objections_to_events(tmp_path)) == [
        "('job-0', '1') ran in run 1, its end was told in run 0",
        "job-0 2 ended in run 1 and before",
        "job-0 1 ended in run 1 and before",
    ]
