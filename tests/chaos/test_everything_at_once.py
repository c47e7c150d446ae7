"""Everything at once, at random, while workers are killed: afterwards the books balance and nothing is left behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpqueue._core.messages import LaneDied, Message
from mpqueue._engines.loky.process.warden import Warden
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
    """Chaos of that seed, which hears what the engine logs and which workers died."""
    made = Chaos(seed, tmp_path)
    tell = Warden._tell

    def note(warden: Any, message: Message) -> None:
        if isinstance(message, LaneDied):
            made.struck.died.add(message.pid)
        tell(warden, message)

    monkeypatch.setattr(Warden, "_tell", note)
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
