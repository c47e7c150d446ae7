"""What batches are made of besides arrays, to workers and back: items, results, closures, shared objects, journals."""

from __future__ import annotations

import array
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mpqueue import JobQueue, share
from tests.support.engines import Engine
from tests.support.results import results_of

pytestmark = pytest.mark.usefixtures("forked_workers")

SIZE = 60_000


def picture() -> Any:
    return Image.effect_noise((700, 500), 50).convert("RGB")


def tensor() -> Any:
    import torch

    return torch.arange(SIZE).reshape(4, -1).T


def frame() -> Any:
    import polars as pl
    import pyarrow as pa  # noqa: F401 - with it, polars travels as Arrow arrays

    return pl.DataFrame({"numbers": range(SIZE), "texts": ["a text of some length"] * SIZE})


KINDS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: bytes(range(250)) * 1000,
    "bytearray": lambda: bytearray(range(250)) * 1000,
    "in a list": lambda: [{"content": bytes(SIZE)}, (bytearray(SIZE),)],
    "an image": picture,
    "an array with gaps": lambda: np.arange(SIZE).reshape(4, -1)[:, ::2],
    "a fortran array": lambda: np.asfortranarray(np.arange(SIZE).reshape(4, -1)),
    "a file": lambda: io.BytesIO(bytes(SIZE)),
    "numbers": lambda: array.array("d", range(SIZE)),
    "a view": lambda: memoryview(bytearray(SIZE)),
    "a tensor": tensor,
    "a frame": frame,
}
#: What some of these need.
NEEDED = {"a tensor": "torch", "a frame": "pyarrow"}


def values() -> dict[str, Any]:
    """One of each kind that there is here."""
    return {kind: make() for kind, make in KINDS.items() if importlib.util.find_spec(NEEDED.get(kind, "numpy"))}


def content(value: Any) -> Any:
    """What tells whether two of these are equal, apart from gaps."""
    if type(value).__name__ == "Tensor":
        return type(value), value.stride(), value.tolist()
    if type(value).__name__ == "DataFrame":
        return type(value), value.schema, value.rows()
    if isinstance(value, np.ndarray):
        return value.shape, value.flags.f_contiguous, value.tobytes()
    return type(value), value.getvalue() if isinstance(value, io.BytesIO) else value


def same(item: Any) -> Any:
    """What came in goes out."""
    return item


@pytest.mark.long(but=["loky"])
@pytest.mark.slow
def test_they_go_in_and_out_with_every_engine(engine: Engine) -> None:
    sent = values()
    with engine.queue() as queue:
        for _ in range(2):
            found = results_of(queue.run(list(sent.values()), same))
            for kind, value, result in zip(sent, sent.values(), found, strict=True):
                assert content(result) == content(value), kind


def share_it(n: int) -> Any:
    """A handler that shares what it has made, one thing in another."""
    return [share({"n": n, "inner": share(np.full(SIZE, n)), "big": np.full(SIZE, -n)})]


def look_into(made: list[Any]) -> tuple[int, int, int]:
    """What is in there."""
    shared = made[0].value
    return shared["n"], int(shared["inner"][SIZE - 1]), int(shared["big"][0])


@pytest.mark.long(but=["loky", "threads"])
@pytest.mark.slow
def test_what_a_handler_has_shared_arrives_and_is_sent_on_with_every_engine(engine: Engine) -> None:
    with engine.queue() as queue:
        made = results_of(queue.run([1, 2, 3], share_it))
        assert [*map(look_into, made)] == [(n, n, -n) for n in (1, 2, 3)]
        assert results_of(queue.run([*made, *made], look_into)) == [*map(look_into, made)] * 2


@pytest.mark.slow
def test_what_a_handler_has_shared_is_in_the_journal(tmp_path: Path) -> None:
    for _ in range(2):
        with JobQueue(1, journal=tmp_path / "journal") as queue:
            made = results_of(queue.run([1, 2, 3], share_it))
            assert [*map(look_into, made)] == [(n, n, -n) for n in (1, 2, 3)]


def test_an_item_that_can_not_be_sent_is_refused_by_itself() -> None:
    records = memoryview(np.zeros(3, "i4,f8"))  # type: ignore[arg-type]
    with JobQueue(1) as queue:
        job = queue.run([memoryview(b"abc"), records], len, max_retries=0)
    assert job.results[0] == 3
    assert "memoryview of format" in str(job.failures[0])
