"""Types that are reduced in another way than their own, so that their memory is copied only once.

By default, each of them puts all its content into the pickle, which takes several copies. Here it becomes a buffer
beside the pickle, as for numpy's arrays.

============================  ======================================================================================
type                          why, and how
============================  ======================================================================================
`numpy.ndarray` of numbers    numpy takes 1.5 us to reduce it, and 0.8 us to make it again, in Python; an array of this
                              shape on this buffer, as it is made here, takes a third.
the same, with gaps           numpy makes a contiguous copy and puts that into the pickle. Here the copy is made in the
                              memory from which it is sent. Other arrays are left to numpy.
`torch.Tensor`, on the CPU    torch saves its storage as a file in the pickle. The storage is the buffer; tensors that
                              are views of one storage stay so. Only the part that tensors of this pickle view is
                              sent. Parameters and modules consist of tensors. Sparse, quantized and nested tensors,
                              those with attributes, hooks or names, and subclasses are left to torch.
a tensor on another device    is refused: a copy of it on the device, made by each worker, is seldom intended.
`PIL.Image.Image`, and what   Pillow packs pixels of 4 bytes into 3, in Python, and unpacks them. The buffer is its
`PIL.Image.open` returns      memory. Images with palettes are left to Pillow.
`io.BytesIO`                  copies its content when it is made again, if not made of one `bytes` object.
`array.array`                 makes a `bytes` object of its content first.
`memoryview`                  can't be pickled otherwise. The viewed memory is copied.
`polars.Series` and           polars writes a file in the Arrow format into the pickle. If pyarrow is imported too,
`polars.DataFrame`            its arrays have the same memory, for types that come back unchanged, column by column.
============================  ======================================================================================

`bytes`, `bytearray` and `str` are no part of this: in the pickle they are pieces of their own, see `beside`. Users'
registrations in `copyreg` override all of these. A type is found by its identity, so subclasses are not affected, and
all others cost nothing. No library is imported for this.
"""

from __future__ import annotations

import array
import contextlib
import copyreg
import functools
import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mpqueue._wire.memory.segments import BIG_BUFFER, Pieces
from mpqueue._wire.pickling import rebuilding
from mpqueue._wire.pickling.beside import Buffers, Later

PROTOCOL = 5
#: The bytes that are made at a time during writing: they stay in the processor's cache.
PIECE = 256 << 10
#: numpy's codes of numbers that it can show as a buffer, in both byte orders, and make from one.
NUMBERS = frozenset("?bBhHiIlLqQefdFD")
#: A part of a storage begins at a multiple of this, so that data in it stay aligned.
ALIGNMENT = 64

Reduce = Callable[[Any], Any]


def table() -> dict[type, Reduce]:
    """Return the `pickle.Pickler.dispatch_table`, which must not be changed. Costs 0.3 us."""
    if len(sys.modules) != _imported.modules or copyreg.dispatch_table != _imported.registered:
        _imported.learn()
    return _imported.table


def dump_by(pickler: pickle.Pickler, obj: Any, buffers: Buffers) -> None:
    """Pickle an object by a pickler that has this table and these buffers."""
    before, _under_way.buffers = _under_way.buffers, buffers
    try:
        pickler.dump(obj)
    finally:
        _under_way.buffers = before


class _UnderWay(threading.local):
    buffers = Buffers(in_band=True)  #: of the object that this thread pickles


_under_way = _UnderWay()


def _has_gaps(array: Any) -> bool:
    """Tell whether the array is big, and numpy would copy it into its pickle because it is contiguous in no order."""
    if array.nbytes < BIG_BUFFER:
        return False
    kind = array.dtype
    if kind.hasobject or kind.isbuiltin == 2 or kind.kind not in "biufcSUV" or not kind.isnative:
        return False  # numpy makes no buffer of others, or another value when it is read
    by_stride = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    return not array.transpose(by_stride).flags.c_contiguous


def _reduce_with_gaps(array: Any) -> Any:
    """Reduce a big array with gaps: its content is made contiguous while it is written."""
    make = type(array)((0,), array.dtype).__reduce_ex__(PROTOCOL)[0]
    source = Pieces(array.nbytes, functools.partial(_contiguous, array))
    return make, (pickle.PickleBuffer(Later(source)), array.dtype, array.shape, "C")


def _contiguous(array: Any) -> Iterator[memoryview]:
    """Yield the content in C order, in pieces that all use the same memory, since fresh memory costs more."""
    if array.dtype.kind == "V":
        array = array.view(f"V{array.itemsize}")  # including bytes between its fields
    numpy = sys.modules["numpy"]
    place = numpy.empty(max(PIECE, array.itemsize), "u1")
    for part in _cut(array):
        piece = place[: part.nbytes]
        numpy.copyto(piece.view(array.dtype).reshape(part.shape), part)
        yield memoryview(piece)


def _cut(array: Any) -> Iterator[Any]:
    """Yield consecutive parts of an array that are at most as large as a piece."""
    if array.nbytes <= PIECE or not array.ndim:
        yield array
        return
    rows = PIECE * len(array) // array.nbytes
    if rows:
        for at in range(0, len(array), rows):
            yield array[at : at + rows]
    else:
        for at in range(len(array)):
            yield from _cut(array[at, ...])


def _reduce_array(array: Any) -> Any:
    return reduce_array(array, in_band=_under_way.buffers.in_band)


def reduce_array(array: Any, *, in_band: bool) -> Any:
    """Reduce a `numpy.ndarray`, but no subclass."""
    flags = array.flags
    if flags.c_contiguous and array.dtype.char in NUMBERS:
        return type(array), (array.shape, array.dtype, pickle.PickleBuffer(array))
    if flags.forc or in_band or not _has_gaps(array):
        return array.__reduce_ex__(PROTOCOL)
    return _reduce_with_gaps(array)


class _TensorStorage:
    """The storage of one or more tensors of this pickle."""

    def __init__(self, untyped: Any, size: int, *, in_band: bool) -> None:
        self._untyped = untyped
        self._start = bytearray(8)
        self._in_band = in_band
        self.first, self.end = size, 0  #: the bytes that tensors view

    def __reduce__(self) -> Any:
        if self._in_band:
            return rebuilding.storage, (pickle.PickleBuffer(self._whole()),)
        later = (Later(self), Later(memoryview(self._start)))
        return rebuilding.storage, tuple(map(pickle.PickleBuffer, later))

    def settle(self) -> None:
        """Round the first byte that tensors view down to `ALIGNMENT`, and note it for the other side."""
        self.first = min(self.first, self.end) // ALIGNMENT * ALIGNMENT
        self._start[:] = self.first.to_bytes(8, "little")

    def memory(self) -> memoryview:
        """Return the bytes that tensors of this pickle view."""
        return self._whole()[self.first : self.end]

    def _whole(self) -> memoryview:
        torch = sys.modules["torch"]
        return memoryview(torch.empty(0, dtype=torch.uint8, device="cpu").set_(self._untyped).numpy())


def _reduce_tensor(tensor: Any) -> Any:
    device = tensor.device.type
    if device not in {"cpu", "meta"}:
        raise TypeError(f"a tensor on {tensor.device} is not sent to workers: send tensor.cpu(), or load it in setup")
    torch = sys.modules["torch"]
    if (
        device == "meta"
        or tensor.layout is not torch.strided
        or tensor.is_quantized
        or tensor.is_nested
        or vars(tensor)
        or tensor._backward_hooks  # noqa: SLF001 - asked by torch's own pickling
        or tensor.is_conj()
        or tensor.is_neg()
        or any(getattr(tensor, "names", ()))
        or "numpy" not in sys.modules
    ):
        return tensor.__reduce_ex__(PROTOCOL)
    offset, size, stride = tensor.storage_offset(), tuple(tensor.size()), tensor.stride()
    stored = _stored(_under_way.buffers, tensor)
    if tensor.numel():
        width = tensor.element_size()
        stored.first = min(stored.first, offset * width)
        last = sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        stored.end = max(stored.end, (offset + last + 1) * width)
    arguments = (stored, tensor.dtype, offset, size, stride)
    return rebuilding.tensor, (*arguments, True) if tensor.requires_grad else arguments


def _stored(buffers: Buffers, tensor: Any) -> _TensorStorage:
    untyped = tensor.untyped_storage()
    size = untyped.nbytes()
    where = (untyped.data_ptr(), size)
    known: _TensorStorage | None = buffers.storages.get(where)
    if known is None:
        known = buffers.storages[where] = _TensorStorage(untyped, size, in_band=buffers.in_band or size < BIG_BUFFER)
    return known


#: The modes of images whose memory `rebuilding.image` can map: Pillow's name of the layout, and its bytes.
_MODES = {
    "L": ("L", 1),
    "RGB": ("RGBX", 4),
    "RGBA": ("RGBA", 4),
    "RGBX": ("RGBX", 4),
    "CMYK": ("CMYK", 4),
    "I": ("I", 4),
    "F": ("F", 4),
}


def _reduce_image(image: Any) -> Any:
    image.load()
    width, height = image.size
    is_big = width * height * _MODES.get(image.mode, ("", 0))[1] >= BIG_BUFFER
    reduced = _by_pixels(image) if is_big and not _under_way.buffers.in_band else None
    return reduced or image.__reduce_ex__(PROTOCOL)


def _by_pixels(image: Any) -> Any:
    """Reduce an image to its pixels in their memory layout; None if it is more than that."""
    (width, height), (raw, pixel) = image.size, _MODES[image.mode]
    state = _without_pixels(image)
    if image.getpalette() is not None or state[1:5] != [image.mode, image.size, None, b""]:
        return None
    state[2] = (0, 0)
    content = Pieces(width * height * pixel, functools.partial(_bands, image, raw, max(1, PIECE // (width * pixel))))
    return rebuilding.image, (type(image), state, image.mode, image.size, pickle.PickleBuffer(Later(content)))


def _without_pixels(image: Any) -> list[Any]:
    """Return the state of an image as it would be pickled, made by a twin without pixels."""
    kind: Any = type(image)
    twin = kind.__new__(kind)
    vars(twin).update(vars(image), tobytes=bytes)
    state: list[Any] = twin.__getstate__()
    return state


def _bands(image: Any, raw: str, rows: int) -> Iterator[memoryview]:
    """Yield the pixels in their memory layout, a number of rows at a time."""
    width, height = image.size
    for at in range(0, height, rows):
        yield memoryview(image.crop((0, at, width, min(at + rows, height))).tobytes("raw", raw))


def _reduce_bytes_io(file: io.BytesIO) -> Any:
    return rebuilding.bytes_io, file.__getstate__()


def _reduce_numbers(numbers: array.array[Any]) -> Any:
    if numbers.typecode in "uw":  # text, whose characters have other sizes elsewhere
        return numbers.__reduce_ex__(PROTOCOL)
    content = pickle.PickleBuffer(numbers) if len(numbers) else b""
    return rebuilding.number_array, (numbers.typecode, numbers.itemsize, sys.byteorder, content)


def _reduce_view(view: memoryview) -> Any:
    layout = view.format
    try:
        memoryview(bytes(view.itemsize)).cast(layout)  # type: ignore[call-overload]
    except ValueError:
        raise TypeError(f"a memoryview of format {layout!r} can't be pickled: send the object that it views") from None
    content: Any = view
    if not view.c_contiguous or not view.nbytes:
        content = view.tobytes() if view.readonly else bytearray(view.tobytes())
    return rebuilding.memory_view, (pickle.PickleBuffer(content), layout, view.shape, view.readonly)


#: Built-in types; reducing these runs no users' code.
PLAIN: dict[type, Reduce] = {io.BytesIO: _reduce_bytes_io, array.array: _reduce_numbers, memoryview: _reduce_view}


def _reduce_of_polars(reduce: Reduce, value: Any) -> Any:
    return value.__reduce_ex__(PROTOCOL) if _under_way.buffers.in_band else reduce(value)


class _Imported:
    """The table for the libraries imported by now."""

    def __init__(self) -> None:
        self.modules = -1  #: the number of modules when it was made
        self.registered: dict[Any, Any] = {}  #: users' registrations
        self.table: dict[type, Reduce] = {}
        self._lock = threading.Lock()

    def learn(self) -> None:
        """Make the table anew, for the libraries imported by now."""
        with self._lock:
            modules, registered = len(sys.modules), dict(copyreg.dispatch_table)
            try:
                found = dict(_of_libraries())
            except AttributeError:  # a library is just being imported
                found, modules = {}, -1
            self.table = {**PLAIN, **found, **registered}
            self.modules, self.registered = modules, registered


def _of_libraries() -> Iterator[tuple[type, Reduce]]:
    if (numpy := sys.modules.get("numpy")) is not None:
        yield numpy.ndarray, _reduce_array
    if (torch := sys.modules.get("torch")) is not None:
        yield torch.Tensor, _reduce_tensor
    if (images := sys.modules.get("PIL.Image")) is not None and _are_mapped(images):
        yield images.Image, _reduce_image
        for kind in _opened(images.Image):
            yield kind, _reduce_image
    polars = sys.modules.get("polars")
    if polars is not None and "pyarrow" in sys.modules and are_handed_over(polars):
        yield polars.Series, functools.partial(_reduce_of_polars, reduce_series)
        yield polars.DataFrame, functools.partial(_reduce_of_polars, reduce_frame)


def _opened(kind: Any) -> Iterator[Any]:
    """Pillow's own types of images, as `PIL.Image.open` returns them."""
    for found in kind.__subclasses__():
        ways = (found.__reduce_ex__, found.__reduce__)
        if found.__module__.startswith("PIL.") and ways == (object.__reduce_ex__, object.__reduce__):
            yield found
            yield from _opened(found)


@functools.cache
def _are_mapped(images: Any) -> bool:
    """Tell whether this Pillow can make images from memory, which it does not promise."""
    with contextlib.suppress(Exception):
        for mode in _MODES:
            image = images.new(mode, (3, 2), 7)
            make, (*arguments, content) = _by_pixels(image)
            again = make(*arguments, bytearray(content.raw().obj.source.whole()))
            if type(again) is not type(image) or again != image:
                return False
        return True
    return False


_imported = _Imported()


#: Types that Arrow keeps unchanged. For categories, Arrow keeps other data than polars does.
_SAME = frozenset(
    {
        *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"),
        *("Boolean", "String", "Binary", "Date", "Datetime", "Duration", "Time", "Decimal"),
    }
)
#: Bytes per text in a column, besides those of the text itself.
_TEXT_VIEW = 16


def reduce_series(series: Any) -> Any:
    """Reduce a `polars.Series`; a big one by Arrow, if that restores the same series."""
    if series.estimated_size() < BIG_BUFFER:
        return series.__reduce_ex__(PROTOCOL)
    return _by_arrow(series) or series.__reduce_ex__(PROTOCOL)


def reduce_frame(frame: Any) -> Any:
    """Reduce a `polars.DataFrame`; a big one goes column by column."""
    if frame.estimated_size() < BIG_BUFFER:
        return frame.__reduce_ex__(PROTOCOL)
    return rebuilding.polars_frame, (frame.get_columns(),)


def _comes_back(dtype: Any) -> bool:
    """Tell whether an Arrow array of this type becomes a series of this type again."""
    match type(dtype).__name__:
        case "List" | "Array":
            return _comes_back(dtype.inner)
        case "Struct":
            return all(_comes_back(field.dtype) for field in dtype.fields)
        case name:
            return name in _SAME


def _texts(dtype: Any) -> int:
    """Return how many texts a row has, as far as known: not for lists."""
    match type(dtype).__name__:
        case "String" | "Binary":
            return 1
        case "Struct":
            return sum(_texts(field.dtype) for field in dtype.fields)
        case _:
            return 0


def _by_arrow(series: Any) -> Any:
    """Reduce a series by Arrow; None if it does not come back unchanged, or includes hidden data."""
    if not _comes_back(series.dtype):
        return None
    array = series.to_arrow(compat_level=sys.modules["polars"].CompatLevel.newest())
    enough = series.estimated_size() * 5 // 4 + _texts(series.dtype) * len(series) * _TEXT_VIEW
    if array.get_total_buffer_size() > enough:  # a part of a larger array
        array = sys.modules["pyarrow"].concat_arrays([array, array[:0]])  # copies the visible part of it
        if array.get_total_buffer_size() > enough:  # except for texts
            return None
    flags = series.flags
    order = "up" if flags.get("SORTED_ASC") else "down" if flags.get("SORTED_DESC") else ""
    return rebuilding.polars_series, (series.name, array, order)


@functools.cache
def are_handed_over(polars: Any) -> bool:
    """Tell whether the installed pyarrow and this polars agree: tried out once per process."""
    with contextlib.suppress(Exception):
        for values in ([1, None, 3], ["a", None, "a text that is longer than others"], [[1.5], None, []], [True, None]):
            series = polars.Series("name", values)
            found = _by_arrow(series)
            again = found and found[0](*found[1])
            if not found or again.dtype != series.dtype or not again.equals(series, check_names=True):
                return False
        return True
    return False
