"""From nothing to the first result: import, workers, one item. Measured in `benchmarks.child`."""

from __future__ import annotations

from benchmarks.case import Case, Sizes

QUESTION = "How long does it take from the import to the first result?"


def cases(sizes: Sizes) -> list[Case]:  # noqa: ARG001
    return [Case("cold start", "import to first result", cold=True, repeats=1)]
