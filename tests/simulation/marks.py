"""Marks: what a history has really come to, so that it is known what was tried.

A history that was to try a full disk at a job's last item counts for that only where the disk was full when that item
ended. So for each thing that happens it is noted what else was so at that moment: pairs, of which `table` says how
often each was reached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

Pair = tuple[str, str]


class Marks:
    """Of one history or, added up, of many."""

    def __init__(self, states: dict[str, Callable[[], bool]] | None = None) -> None:
        self.pairs: Counter[Pair] = Counter()
        self.events: Counter[str] = Counter()
        self._states = states or {}

    def reach(self, event: str) -> None:
        """That happens now."""
        self.events[event] += 1
        for state, holds in self._states.items():
            if holds():
                self.pairs[event, state] += 1

    def add(self, other: Marks) -> None:
        """Those of one more history."""
        self.pairs.update(other.pairs)
        self.events.update(other.events)

    def missing(self, wanted: Iterable[Pair]) -> list[Pair]:
        """The pairs that were never reached."""
        return [pair for pair in wanted if not self.pairs[pair]]

    def table(self) -> str:
        """How often each pair was reached: a line for each thing that happened, a column for what was so then."""
        states = sorted({state for _, state in self.pairs})
        width = max((len(event) for event in self.events), default=0)
        head = " ".join(f"{state:>10}" for state in states)
        lines = [f"{'':{width}} {'in all':>8} {head}"]
        for event, count in sorted(self.events.items()):
            cells = " ".join(f"{self.pairs[event, state] or '-':>10}" for state in states)
            lines.append(f"{event:{width}} {count:>8} {cells}")
        return "\n".join(lines)
