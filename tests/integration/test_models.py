"""A model that is large: it goes over once, and all workers read its weights in one copy."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpqueue import JobQueue, share
from tests.support.needed import needs
from tests.support.waiting import Gate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="who shares what is told by Linux"),
]

#: Bytes of weights, and workers that have the model at the same time.
SIZE, WORKERS = 64_000_000, 3


class NumpyModel:
    """Layers of weights, all of which each call reads."""

    def __init__(self) -> None:
        self.layers = [np.full(SIZE // 8 // 8, 0.5) for _ in range(8)]

    def __call__(self, item: float) -> float:
        return float(sum(layer.mean() for layer in self.layers)) * item


def numpy_model() -> Callable[[float], float]:
    return NumpyModel()


def torch_model() -> Callable[[float], float]:
    import torch

    layers = torch.nn.ModuleList(torch.nn.Linear(1000, 1000, bias=False) for _ in range(SIZE // 4_000_000))
    for weight in layers.parameters():
        torch.nn.init.constant_(weight, 4 / len(layers))
        weight.requires_grad_(False)
    return partial(run_torch, layers)


def run_torch(layers: Any, item: float) -> float:
    return float(sum(layer.weight.mean() for layer in layers)) * item


def resident() -> int:
    """Bytes of this process, what it shares counted in equal parts."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return int(lines["Pss"].split()[0]) * 1024


def measure(gate: Gate, work: Callable[[float], float], item: int) -> tuple[int, float, int]:
    """Do the work in each worker, and tell what they have while all of them have it."""
    result = work(float(item))
    gate.pass_through(item)
    return os.getpid(), result, resident()


def plain(item: float) -> float:
    return 4.0 * item


def total(queue: JobQueue, folder: Path, handler: Callable[[Gate], Callable[[int], tuple[int, float, int]]]) -> int:
    """Bytes that all workers have together while they run this."""
    gate = Gate(folder)
    queue.create_job(folder.name, range(WORKERS), handler(gate), chunksize=1)
    run = queue.start(folder.name)
    gate.wait_for(*range(WORKERS))
    gate.open()
    found = [result for result in run.result(300).results if result is not None]
    assert len({pid for pid, _, _ in found}) == WORKERS
    assert [result for _, result, _ in found] == [4.0 * item for item in range(WORKERS)]
    return sum(size for _, _, size in found)


def in_a_closure(model: Callable[[float], float], gate: Gate) -> Callable[[int], tuple[int, float, int]]:
    return lambda item: measure(gate, model, item)


def in_a_partial(model: Callable[[float], float], gate: Gate) -> Callable[[int], tuple[int, float, int]]:
    return partial(measure, gate, model)


def shared(model: Callable[[float], float], gate: Gate) -> Callable[[int], tuple[int, float, int]]:
    return partial(measure, gate, share(model))


@pytest.mark.long(but=["numpy_model-numpy-in_a_closure", "torch_model-torch-shared"])
@pytest.mark.parametrize("way", [in_a_closure, in_a_partial, shared])
@pytest.mark.parametrize(("make", "module"), [(numpy_model, "numpy"), (torch_model, "torch")])
def test_workers_have_one_copy_of_a_models_weights(
    way: Callable[..., Any], make: Callable[[], Callable[[float], float]], module: str, tmp_path: Path
) -> None:
    needs(module)
    with JobQueue(WORKERS) as queue:
        model = make()
        # Its library, but not the model: what each worker has of its own anyway.
        empty = partial(in_a_partial, partial(after_import, module))
        before = total(queue, tmp_path / "before", empty)
        with_model = total(queue, tmp_path / "with", partial(way, model))
        grown = with_model - before
    # This process maps the weights too, where it has written them.
    assert grown < 1.3 * SIZE, f"{WORKERS} workers have {grown / SIZE:.2f} models"
    assert grown > 0.4 * SIZE, "the weights were not looked at"


def after_import(module: str, item: float) -> float:
    __import__(module)
    return plain(item)
