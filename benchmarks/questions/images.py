"""Real work: thumbnails of pictures, whose sizes differ."""

from __future__ import annotations

from benchmarks import pictures
from benchmarks.case import UNEVEN, Case, Sizes
from benchmarks.handlers import thumbnail

QUESTION = "How long does a batch of thumbnails take?"


def cases(sizes: Sizes) -> list[Case]:
    count = sizes.pick(120, 30, 4)

    def items(seed: int) -> list[str]:  # noqa: ARG001
        return [str(path) for path in pictures.paths(count)]

    return [
        Case(
            "images",
            f"{count} thumbnails",
            handler=thumbnail,
            items=items,
            expected=pictures.thumbnails,
            chunks_per_worker=UNEVEN,
            repeats=2,
        )
    ]
