"""Functions that rebuild objects from the memory that `reducers` took out.

Pickles name these functions, and journals keep pickles for years: their names, modules and arguments must not change.
Other arguments need a new function. A library is imported only when one of its objects is made.
"""

from __future__ import annotations

import array
import io
import math
import struct
import sys
from typing import Any


def bytes_io(content: bytes, position: int, attributes: dict[str, Any] | None) -> io.BytesIO:
    """Make an `io.BytesIO`, which shares the content until it is written to."""
    made = io.BytesIO(content)
    made.seek(position)
    if attributes:
        vars(made).update(attributes)
    return made


def number_array(typecode: str, itemsize: int, byteorder: str, content: Any) -> array.array[Any]:
    """Make an `array.array`. Raises ValueError if its numbers have another size here."""
    made = array.array(typecode)
    if made.itemsize != itemsize:
        raise ValueError(f"expected numbers of type {typecode!r} of {itemsize} bytes, got {made.itemsize} here")
    made.frombytes(content)
    if byteorder != sys.byteorder:
        made.byteswap()
    return made


def memory_view(content: Any, layout: str, shape: tuple[int, ...], readonly: bool) -> memoryview:
    """Make a `memoryview`. Raises ImportError for an empty shape that needs numpy, if that is missing."""
    if 0 in shape:
        made = _empty_view(layout, shape)
    else:
        made = memoryview(content).cast("B").cast(layout, shape)  # type: ignore[call-overload]
    return made.toreadonly() if readonly else made


def _empty_view(layout: str, shape: tuple[int, ...]) -> memoryview:
    """Return an empty view. Python can't cast to a shape with a zero, but the first axis can be cut to nothing."""
    if 0 in shape[1:]:  # made by numpy, and equivalent
        import numpy as np

        made: Any = np.empty(shape, layout.lstrip("@"))
        return memoryview(made)
    one = bytearray(math.prod(shape[1:]) * struct.calcsize(layout))
    return memoryview(one).cast(layout, (1, *shape[1:]))[:0]  # type: ignore[call-overload, no-any-return]


def storage(content: Any, start: Any = b"") -> tuple[Any, int]:
    """Return the storage that tensors view, and the byte of the original at which it begins."""
    import torch

    made = torch.frombuffer(content, dtype=torch.uint8).untyped_storage() if len(content) else torch.UntypedStorage(0)
    return made, int.from_bytes(start, "little")


def tensor(
    stored: tuple[Any, int], dtype: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: bool
) -> Any:
    """Make a `torch.Tensor`, a view of that storage; ``rest`` is a single True if it requires a gradient."""
    import torch

    storage, start = stored
    made = torch.empty(0, dtype=dtype, device="cpu")
    # An empty tensor may begin before the part that was sent, which the others view.
    made.set_(storage, max(0, offset - start // made.element_size()), size, stride)
    if rest:
        made.requires_grad = True
    return made


def image(kind: Any, state: list[Any], mode: str, size: tuple[int, int], content: Any) -> Any:
    """Make an image of Pillow from pixels in Pillow's memory layout; ``state`` is that of an empty image."""
    from PIL import Image

    core: Any = vars(Image)["core"]
    made = kind.__new__(kind)
    made.__setstate__(state)
    made.im = core.map_buffer(content, size, "raw", 0, (mode, 0, 1))
    made._size = size  # noqa: SLF001 - as Pillow's own `__setstate__` does
    return made


def polars_series(name: str, array: Any, order: str) -> Any:
    """Make a `polars.Series` from an Arrow array; ``order`` is its known sorting: "up", "down" or ""."""
    import polars as pl

    made: Any = pl.from_arrow(array)
    made = made.alias(name)
    return made.set_sorted(descending=order == "down") if order else made


def polars_frame(columns: list[Any]) -> Any:
    """Make a `polars.DataFrame`."""
    import polars as pl

    return pl.DataFrame({column.name: column for column in columns})  # a list's unnamed columns would get one
