"""How long chunks take: what the parent aims at, and when a worker puts an end to one that takes longer."""

from __future__ import annotations

#: Seconds that a chunk aims at: long against the 0.3 ms that it costs, short enough for smooth progress.
CHUNK_SECONDS = 0.04
#: After so many times that a worker ends its chunk, between two items, or sends home what has finished.
LIMIT = 1.25
