"""Durations in seconds: of chunks, which the parent plans and a worker ends, and of stretches within them."""

from __future__ import annotations

#: Seconds that a chunk aims at: long against the 0.6 ms that it costs, short enough for smooth progress. More with many
#: workers: see `mpqueue._core.rules.chunking.aim`.
CHUNK_SECONDS = 0.045
#: After so many times that a worker ends its chunk, between two items, or sends what has finished.
LIMIT = 10 / 9
#: Seconds after which a stretch of several items that still runs is cut off behind the item at hand.
STRETCH_LIMIT = LIMIT * CHUNK_SECONDS
#: Seconds that a stretch aims at, so many items run under one mark: a third of a chunk, since each costs up to 60 us
#: where the handler has used the caches. Flags and limits are looked at between them.
STRETCH_SECONDS = 0.015
