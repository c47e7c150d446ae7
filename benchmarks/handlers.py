"""What the workers do. Importable, so that every pool can send it by name; imports nothing of weight by itself."""

from __future__ import annotations

import os
import time
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def echo(item: Any) -> Any:
    """The no-op."""
    return item


def nothing(item: Any) -> None:
    """A no-op whose results need no memory."""


#: Less than the 5 KiB for which zlib would let go of the interpreter, and all in the first-level cache.
BLOCK = bytes(range(256)) * 16


def burn(turns: int) -> int:
    """Keep a CPU busy with the checksum of so many bytes; see `benchmarks.busy`."""
    blocks, rest = divmod(turns, len(BLOCK))
    for _ in range(blocks):
        crc32(BLOCK)
    crc32(BLOCK[:rest])
    return turns


def settle(item: Any) -> Any:
    """Take long enough for every worker to get one, so that all have started afterwards."""
    time.sleep(0.02)
    return item


def doze(milliseconds: int) -> int:
    """Wait without using a CPU."""
    time.sleep(milliseconds / 1000)
    return milliseconds


def nap(seconds: float) -> float:
    """The same, in seconds."""
    time.sleep(seconds)
    return seconds


# -- arrays --------------------------------------------------------------------------------------------------------

#: Numbers of eight bytes in a page: who reads every 512th has touched the whole array.
PAGE = 512


def touch(array: Any) -> float:
    """Read something of each page of an array."""
    return float(array[::PAGE].sum())


def fill(order: int) -> Any:
    """A new array: so many millions say its length, the rest what is in it."""
    import numpy as np

    length, value = divmod(order, 1_000_000)
    return np.full(length, float(value))


def double(array: Any) -> Any:
    """An array in, another one out."""
    return array * 2.0


def all_three(order: int) -> float:
    """A new array, another one of it, and something of each page of that."""
    return touch(double(fill(order)))


# -- other big objects ------------------------------------------------------------------------------------------------

#: Kinds of objects, and the library that each needs.
KINDS = {
    "numpy": "numpy",
    "torch": "torch",
    "bytes": "numpy",
    "bytearray": "numpy",
    "image": "PIL",
    "array with gaps": "numpy",
    "1,000 arrays": "numpy",
    "BytesIO": "numpy",
    "array.array": "numpy",
    "polars": "polars",
}
#: Bytes of each.
KIND_BYTES = 8_000_000


def make_kind(order: tuple[str, int]) -> Any:
    """An object of that kind, full of that number."""
    import array
    import io

    import numpy as np

    kind, value = order
    numbers = np.full(KIND_BYTES // 8, float(value))
    match kind:
        case "torch":
            import torch

            return torch.from_numpy(numbers)
        case "bytes":
            return bytes([value]) * KIND_BYTES
        case "bytearray":
            return bytearray([value]) * KIND_BYTES
        case "image":
            from PIL import Image

            return Image.new("RGB", (1600, KIND_BYTES // 4800), (value, 0, 0))
        case "array with gaps":
            return np.full((1000, KIND_BYTES // 4000), float(value))[:, ::2]
        case "1,000 arrays":
            return list(numbers.reshape(1000, -1))
        case "BytesIO":
            return io.BytesIO(bytes([value]) * KIND_BYTES)
        case "array.array":
            return array.array("d", numbers.tobytes())
        case "polars":
            import polars as pl
            import pyarrow as pa  # noqa: F401 - as programs do whose frames meet other libraries

            texts = [f"text {at % 1000}" for at in range(len(numbers) // 3)]
            return pl.DataFrame({"text": texts, "x": numbers[: len(texts)], "y": numbers[: len(texts)]})
    return numbers


def touch_kind(found: Any) -> float:
    """Read something of each page of it, where that can be done at once."""
    match type(found).__name__:
        case "Image":
            return sum(float(found.getpixel((0, row))[0]) for row in range(found.height))
        case "list":
            return sum(float(array[0]) for array in found)
        case "BytesIO":
            return float(sum(found.getbuffer()[::4096]))
        case "DataFrame":
            return float(found["x"].sum() + found["text"].len())
        case "bytes" | "bytearray":
            return float(sum(found[::4096]))
        case "array":
            return float(sum(found[::PAGE]))
    return float(found[:, ::256].sum() if found.ndim == 2 else found[::PAGE].sum())


def give_back(item: Any) -> Any:
    """The same, after a look at it."""
    touch_kind(item)
    return item


# -- a big object that all items share -------------------------------------------------------------------------------


def look_up(table: Any, item: int) -> float:
    """One number out of a table."""
    return float(table[item])


def closed_over(table: Any) -> Callable[[int], float]:
    """The same with the table in a closure."""

    def look_up_closed(item: int) -> float:
        return float(table[item])

    return look_up_closed


def weigh_with(table: Any, item: Any) -> tuple[int, int]:
    """Read the whole table, then say what this process weighs."""
    table.sum()
    return weigh(item)


def weigh(item: Any) -> tuple[int, int]:  # noqa: ARG001
    """Who this process is, and its share of memory in bytes (what n processes map counts one n-th in each)."""
    time.sleep(0.05)
    return os.getpid(), weight_of(os.getpid())


def weight_of(process: int) -> int:
    """Its share of memory, in bytes."""
    with open(f"/proc/{process}/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


# -- a model ---------------------------------------------------------------------------------------------------------

#: Of which a model consists.
LAYERS = 5


def make_model(megabytes: int, value: int) -> Any:
    """A torch model of that size, whose layers have these numbers; with 0 one that has nearly nothing."""
    import torch

    width = int((megabytes * 1e6 / 4 / LAYERS) ** 0.5) or 1
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(LAYERS)))
    for at, layer in enumerate(model):
        torch.nn.init.constant_(layer.weight, float(value + at))
    return model.requires_grad_(requires_grad=False).eval()


def look_at_layer(model: Any, item: int) -> float:
    """One weight of it."""
    return float(model[item % LAYERS].weight[-1, -1])


def closed_over_model(model: Any) -> Callable[[int], float]:
    """The same with the model in a closure."""

    def look(item: int) -> float:
        return float(model[item % LAYERS].weight[-1, -1])

    return look


def weigh_model(model: Any, item: Any) -> tuple[int, int]:
    """Read the whole model, then say what this process weighs."""
    for layer in model:
        layer.weight.sum()
    return weigh(item)


# -- a crash ---------------------------------------------------------------------------------------------------------


def kill_once(order: str) -> int:
    """Busy for so many turns; where the order says so, kill the worker, unless that has been done before."""
    number, turns, marker = order.split("|")
    burn(int(turns))
    if marker and not os.path.exists(marker):
        with open(marker, "w"):
            pass
        os.kill(os.getpid(), 9)
    return int(number)


def die_once(order: str) -> None:
    """After heavy imports: the first one notes the time and kills its worker, the next one notes when it is at work."""
    import benchmarks.slow_import  # noqa: F401

    died, at_work = order.split("|")
    mark = at_work if os.path.exists(died) else died
    if not os.path.exists(mark):
        with open(mark, "w") as file:
            file.write(str(time.monotonic()))
    if mark == died:
        os.kill(os.getpid(), 9)


def weigh_imports(item: Any) -> tuple[int, int]:
    """What this process weighs after heavy imports."""
    import pandas  # noqa: F401, ICN001
    import sklearn.ensemble  # noqa: F401

    return weigh(item)


# -- pictures --------------------------------------------------------------------------------------------------------


def thumbnail(path: str) -> bytes:
    """A picture, made small, as JPEG."""
    import io

    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((256, 256), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    small.save(written, "JPEG", quality=85)
    return written.getvalue()
