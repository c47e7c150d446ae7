"""Everything at once, at random, while workers are killed: afterwards the books balance and nothing is left behind."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.harness import Chaos

pytestmark = pytest.mark.slow

#: What may be logged as an error here, since it is provoked.
PROVOKED = ("a listener raised",)


class _Complaints(logging.Filter):
    """Reads what mpqueue logs: mistakes of its own, and what it leaves behind, are complaints.

    Lets nothing through, since a record of an error that somebody keeps, keeps a whole queue.
    """

    def __init__(self, chaos: Chaos) -> None:
        super().__init__()
        self._chaos = chaos

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.levelno >= logging.ERROR and not text.startswith(PROVOKED):
            self._chaos.complain(f"logged: {logging.Formatter().format(record)}")
        elif text.startswith("closing "):
            self._chaos.complain(f"logged: {text}")
        return False


@pytest.fixture
def chaos(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chaos]:
    """Chaos of that seed, which hears what the engine logs, and whose wall clock jumps by up to a week."""
    made = Chaos(seed, tmp_path)
    dice, real = random.Random(seed), time.time
    monkeypatch.setattr(time, "time", lambda: real() + dice.uniform(-1, 1) * 10 ** dice.uniform(-2, 5.8))
    complaints, log = _Complaints(made), logging.getLogger("mpqueue")
    log.addFilter(complaints)
    yield made
    log.removeFilter(complaints)


@pytest.mark.timeout(0)
def test_the_books_balance_after_chaos(chaos: Chaos, seconds: float) -> None:
    chaos.run_for(seconds)
    chaos.finish()
    print(*[f"{count} {what}" for what, count in sorted(chaos.counts.items())], sep=", ")
    assert not chaos.complaints, "\n".join(chaos.complaints[:20])
