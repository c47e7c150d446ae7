"""Durations in seconds: of chunks, which the parent plans and a worker ends, and of stretches within them."""

from __future__ import annotations

#: The target time of a chunk in seconds: long against its cost of 0.6 ms, short enough for smooth progress. It is
#: longer with many workers: see `mpqueue._core.rules.chunking.aim`.
CHUNK_SECONDS = 0.045
#: As a multiple of the target time: when a worker ends its chunk between two items, or sends finished results.
LIMIT = 10 / 9
#: Seconds after which a stretch of several items that still runs is cut off behind the current item.
STRETCH_LIMIT = LIMIT * CHUNK_SECONDS
#: The target time of a stretch of items under one mark, in seconds: a third of a chunk, since each costs up to 60 us if
#: the handler has used the caches. Flags and limits are checked between stretches.
STRETCH_SECONDS = 0.015
