"""Small blocks in a journal, so that few items make many of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

from mpqueue._queue.recorded import job_record


@contextlib.contextmanager
def small_blocks(size: int = 3) -> Iterator[None]:
    """Blocks of so many slots, meanwhile."""
    with (
        patch.object(job_record, "BLOCK", size),
        patch.object(job_record, "BATCH", 2 * size),
        patch.object(job_record, "OF_LIST", size),
    ):
        yield
