"""One warm queue for all examples of a test: where it broke, the next example would tell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mpqueue import Executor, JobQueue, Pool


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    """A queue whose workers are there."""
    with JobQueue(2, max_retries=0) as queue:
        queue.run(range(4), abs, id="first")
        queue.clear_job("first")
        yield queue


@pytest.fixture
def executor() -> Iterator[Executor]:
    """An executor whose workers are there."""
    with Executor(1, max_retries=0) as executor:
        executor.submit(abs, 1).result()
        yield executor


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool whose worker is there."""
    with Pool(1, max_retries=0) as pool:
        pool.apply(abs, (1,))
        yield pool
