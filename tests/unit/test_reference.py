"""The reference in docs/ names all that is public."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import mpqueue

PAGES = Path(__file__).parent.parent.parent / "docs" / "reference"
#: What is called with options.
CALLED = (
    mpqueue.JobQueue, mpqueue.JobQueue.create_job, mpqueue.JobQueue.start, mpqueue.JobQueue.run,
    mpqueue.JobQueue.retry_failed, mpqueue.JobQueue.cancel, mpqueue.JobQueue.close, mpqueue.JobQueue.serve,
    mpqueue.map, mpqueue.starmap, mpqueue.imap, mpqueue.imap_unordered, mpqueue.amap,
    mpqueue.Pool, mpqueue.Executor, mpqueue.RetryPolicy, mpqueue.Retry, mpqueue.share,
)  # fmt: skip


@pytest.fixture(scope="module")
def words() -> set[str]:
    return {word for page in PAGES.glob("*.md") for word in re.findall(r"\w+", page.read_text())}


def test_the_reference_has_every_public_name(words: set[str]) -> None:
    assert set(mpqueue.__all__) - words == set(), "docs/reference/*.md lack them"


@pytest.mark.parametrize("called", CALLED, ids=lambda called: called.__qualname__)
def test_the_reference_has_every_option(words: set[str], called: object) -> None:
    assert callable(called)
    options = set(inspect.signature(called).parameters) - {"self", "args", "kwargs", "options"}
    assert options - words == set(), "docs/reference/*.md lack them"
