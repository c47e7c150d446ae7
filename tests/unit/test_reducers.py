"""Objects whose memory travels beside the pickle: they arrive as plain pickling would bring them."""

from __future__ import annotations

import array
import copyreg
import io
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mpqueue._parent.journal.kept_values import BigFile, keep, restore
from mpqueue._parent.packing import dump_without_user_code
from mpqueue._wire.memory.segments import BIG_BUFFER, Pieces, SegmentStore
from mpqueue._wire.pickling import beside as beside_module
from mpqueue._wire.pickling import rebuilding, reducers
from mpqueue._wire.pickling.beside import UNFRAMED, Buffers, Later, Pickled
from mpqueue._wire.pickling.payload import Packed, dump, dump_code, dump_plain, load, load_home
from tests.support.needed import needs

#: Bytes that make a buffer of its own, and that make a whole pickle go through a segment.
BIG = 400_000


def shared(value: Any) -> Any:
    """As to and from workers of this machine."""
    store = SegmentStore()
    return load_home(dump(value, store))


def beside(value: Any) -> Any:
    """Likewise, and all that is big of it goes through a segment."""
    store = SegmentStore()
    packed = dump(value, store)
    assert packed.segment is not None
    assert len(packed.data) < 2000
    return load_home(packed)


def in_band(value: Any) -> Any:
    """In one piece, as for workers on other machines."""
    packed = dump(value, None)
    assert packed.segment is None
    return load(packed)


def by_value(value: Any) -> Any:
    """As part of a handler."""
    packed, _segment = dump_code(lambda: value)
    return load(packed)()


def journalled(value: Any) -> Any:
    """Through a journal."""
    files: list[BigFile] = []
    kept = keep(value, files)
    contents = {file.name: b"".join(file.parts) for file in files}
    return restore(kept, contents.__getitem__)


def without_user_code(value: Any) -> Any:
    """On the coordinator's thread."""
    store = SegmentStore()
    packed = dump_without_user_code(value, store)
    assert packed is not None
    return load(packed)


WAYS: list[Callable[[Any], Any]] = [shared, in_band, by_value, journalled]


def plainly(value: Any) -> Any:
    """As plain pickle brings it, its buffers beside it."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, 5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytearray(buffer.raw()) for buffer in buffers])


def view_of(array: Any) -> memoryview:
    """Of an array's memory."""
    return memoryview(array)


def sends(value: Any) -> int:
    """Bytes that go over."""
    return dump(value, SegmentStore()).size


# -- arrays -----------------------------------------------------------------------------------------------------------

DTYPES = ("u1", "i2", ">i4", "f4", "f8", "c16", "?", "S7", "U3", "M8[ns]", "m8[s]", "V5", [("a", "u1"), ("b", "f8")])


@st.composite
def arrays(draw: Any) -> Any:
    """Arrays of some size, with all sorts of steps, orders, and rights."""
    shape = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    made = np.arange(np.prod(shape) * dtype.itemsize, dtype="u8").astype("u1").view("u1")
    if dtype.kind in "?U":
        made = np.zeros_like(made)
    made = made.view(dtype).reshape(shape, order=draw(st.sampled_from("CF")))
    made = made.transpose(draw(st.permutations(range(len(shape)))))
    steps = [draw(st.sampled_from([1, 1, 2, 3, -1])) for _ in shape]
    made = made[tuple(slice(None, None, step) for step in steps)]
    if draw(st.booleans()):
        made = np.broadcast_to(made, (draw(st.integers(1, 3)), *made.shape))
    if draw(st.booleans()):
        made.flags.writeable = False
    return made


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(arrays(), st.sampled_from(["dump", "without_user_code", "journal"]))
def test_an_array_arrives_as_numpy_would_bring_it(value: Any, way: str) -> None:
    expected = plainly(value)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reducers, "BIG_BUFFER", 64)
        patched.setattr(reducers, "PIECE", 100)
        if way == "journal":
            found = journalled([value, value])
        else:
            found = (shared if way == "dump" else without_user_code)([value, value])
    assert found[0] is found[1]
    assert found[0].dtype == expected.dtype
    assert (found[0].shape, found[0].strides) == (expected.shape, expected.strides)
    assert found[0].flags.writeable == expected.flags.writeable
    assert found[0].tobytes() == expected.tobytes()


NUMBERS = (*np.typecodes["AllFloat"], *np.typecodes["AllInteger"])


@pytest.mark.parametrize("code", [*NUMBERS, *(f">{code}" for code in NUMBERS), "?", "O", "M8[s]"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3)])
def test_a_small_array_arrives_as_numpy_would_bring_it(code: str, shape: tuple[int, ...]) -> None:
    value = np.ones(shape, code)
    fixed = value.copy()
    fixed.flags.writeable = False
    for way in WAYS:
        for found, sent in zip(way([value, fixed]), (value, fixed), strict=True):
            assert (found.dtype, found.shape) == (plainly(sent).dtype, sent.shape)
            assert found.strides == sent.strides or not sent.size
            assert found.flags.writeable == plainly(sent).flags.writeable
            assert found.tolist() == sent.tolist()


def test_an_array_with_gaps_is_beside_the_pickle() -> None:
    value = np.arange(BIG).reshape(400, -1)[::2, ::3]
    for way in (beside, without_user_code):
        assert np.array_equal(way(value), value)


@pytest.mark.parametrize(
    ("dtype", "in_pieces"),
    [("f8", True), ("u1", True), ("S7", True), ("V5", True)]
    + [(other, False) for other in (">f8", "M8[s]", "O", "a library's")],
)
def test_arrays_with_gaps_are_sent_in_pieces_where_they_are_big_and_numpy_would_copy_them(
    dtype: str, in_pieces: bool
) -> None:
    kind: Any = dtype
    if dtype == "a library's":
        kind = pytest.importorskip("numpy._core._rational_tests").rational
    made = np.zeros((40, 60, 50), kind)
    assert reducers._has_gaps(made[::2]) is in_pieces
    assert reducers._has_gaps(made[:, :, 1:].transpose(2, 0, 1)) is in_pieces
    assert not reducers._has_gaps(made)
    assert not reducers._has_gaps(made.transpose(1, 2, 0)), "in another order, but whole"
    for count, is_big in ((BIG_BUFFER, True), (BIG_BUFFER - 1, False)):
        assert reducers._has_gaps(np.zeros(2 * count, "u1")[::2]) is is_big


def test_small_arrays_are_beside_a_pickle_that_is_big() -> None:
    for count, kept in ((10, 10), (1000, 128 * 1024 // 8000)):
        value = [np.full(8000, at % 200, "u1") for at in range(count)]
        for packer in (dump, dump_without_user_code):
            store = SegmentStore()
            packed = packer(value, store)
            assert packed is not None
            assert len(packed.spans) == count - kept
            found = load(packed)
            assert all(np.array_equal(a, b) for a, b in zip(found, value, strict=True))
            found[-1][:] = 5
            assert (found[0] == 0).all()


class Subclass(np.ndarray[Any, Any]):
    """Pickled in its own way."""


def test_a_subclass_of_array_stays_one() -> None:
    value = np.arange(BIG)[::2].view(Subclass)
    found = shared(value)
    assert type(found) is Subclass
    assert np.array_equal(found, value)


# -- bytes and their like ---------------------------------------------------------------------------------------------


@dataclass
class Record:
    """Holds bytes."""

    id: int
    content: bytes


@pytest.mark.parametrize("size", [UNFRAMED - 1, UNFRAMED, BIG])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_are_pieces_of_their_own_wherever_they_are(kind: Callable[[int], Any], size: int) -> None:
    content = kind(size)
    value = {"a": content, "b": [(content, "x" * size)], "c": Record(1, bytes(size))}
    for way in WAYS:
        found = way(value)
        assert found == value
        assert type(found["a"]) is kind
        assert found["b"][0][0] is found["a"]


def test_bytes_are_not_copied_before_they_are_written() -> None:
    content = bytes(BIG)
    plain = dump_plain([content], None)
    assert plain is not None
    assert load(plain) == [content]
    written = Pickled()
    pickle.Pickler(written, 5).dump([content])
    assert any(piece is content for piece in written)


def test_what_is_pickled_by_name_is_not_searched_for_classes() -> None:
    store = SegmentStore()
    for value, by_value in (([bytes(BIG)], False), (lambda: BIG, True), ([np.zeros(3)], False)):
        for where in (store, None):
            packed = dump(value, where)
            assert packed.by_value is by_value
            load_home(packed)


def test_the_pieces_of_a_pickle_are_counted_and_put_together() -> None:
    for pieces, whole in (([b"ab"], b"ab"), ([b"ab", b"c"], b"abc"), ([b"a", b"b", b"cd"], b"abcd")):
        pickled = Pickled(pieces)
        assert (pickled.nbytes, pickled.whole(), bytes(pickled.part().whole())) == (len(whole), whole, whole)


@pytest.mark.parametrize(
    ("code", "width"), [(b"B", 4), (b"X", 4), (b"C", 4), (b"\x8e", 8), (b"\x8d", 8), (b"\x96", 8), (b"\x8c", 8)]
)
def test_a_large_piece_is_data_where_the_one_before_says_so(code: bytes, width: int) -> None:
    mark, is_data = b"_main__", code not in (b"C", b"\x8c")
    for size in (UNFRAMED, UNFRAMED + 257):
        data = mark.ljust(size, b".")
        for said, expected in ((size, is_data), (size + 1, False)):
            frame = b"frame" + code + said.to_bytes(width, "little")
            assert Pickled([frame, data, b"."]).names(mark) is not expected
            assert Pickled([frame, bytes(size), data]).names(mark), "what comes behind it is a frame"
    for huge in (1 << 32, ord("B") << 24):  # the second has the code of another in it
        announced = beside_module._announces(code + huge.to_bytes(8, "little")[:width], huge)
        assert announced is (is_data and (width == 8 or huge < 1 << 32))


def test_a_buffer_with_gaps_is_left_to_pickle_which_refuses_it() -> None:
    buffer = pickle.PickleBuffer(memoryview(b"abcd")[::2])
    assert Buffers().take(buffer) is True
    with pytest.raises(pickle.PicklingError, match="non-contiguous"):
        pickle.Pickler(Pickled(), 5, buffer_callback=Buffers().take).dump(buffer)


@pytest.mark.parametrize("size", [3, UNFRAMED, BIG])
def test_a_name_of_main_is_found_beside_data_but_not_in_it(size: int) -> None:
    for value, expected in (
        ([b"_main__" + bytes(size)], size < UNFRAMED),
        (["_main__" + "x" * size], size < UNFRAMED),
        ([bytes(size), "_main__"], True),
        ([bytes(size), bytes(size), bytearray(size), "_main__"], True),
    ):
        written = Pickled()
        pickle.Pickler(written, 5).dump(value)
        assert written.names(b"_main__") is expected


@pytest.mark.parametrize("way", [*WAYS, without_user_code])
def test_files_numbers_and_views(way: Callable[[Any], Any]) -> None:
    file = io.BytesIO(bytes(range(250)) * 2000)
    file.seek(7)
    found = way(file)
    assert (type(found), found.tell(), found.getvalue()) == (io.BytesIO, 7, file.getvalue())
    found.write(b"more")
    assert file.getvalue()[7:11] != b"more"
    for numbers in (array.array("d", range(60_000)), array.array("H", range(60_000)) * 4):
        assert way(numbers) == numbers
        assert way([numbers, array.array(numbers.typecode)])[1] == array.array(numbers.typecode)


@pytest.mark.parametrize("way", WAYS)
def test_a_view_arrives_as_one(way: Callable[[Any], Any]) -> None:
    for view in (
        memoryview(bytearray(BIG)),
        memoryview(bytes(BIG)),
        view_of(np.arange(BIG).reshape(4, -1)),
        view_of(np.arange(BIG, dtype="i2").reshape(4, -1)[:, ::2]),
        view_of(np.arange(BIG, dtype="i2").reshape(4, -1).T),
    ):
        found = way(view)
        assert found == view
        assert (found.format, found.shape, found.readonly) == (view.format, view.shape, view.readonly)


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b""),
        memoryview(b"abc"),
        view_of(np.zeros((2, 3))),
        view_of(np.array(3.5)),
        memoryview(array.array("d")),
        memoryview(b"abc").cast("c")[:0],
        view_of(np.zeros((0, 3))),
        view_of(np.zeros((0, 3), "u1")),
        view_of(np.zeros((3, 0))),
        view_of(np.zeros((2, 0, 4), "?")),
        memoryview(bytes(8)).cast("@h")[:0],
    ],
    ids=lambda view: f"{view.format}{view.shape}",
)
def test_a_small_view_arrives_too(view: memoryview) -> None:
    for way in WAYS:
        found = way(view)
        assert (found, found.format, found.shape, found.readonly) == (view, view.format, view.shape, view.readonly)
        assert found.nbytes == view.nbytes


def test_a_view_of_records_is_refused() -> None:
    with pytest.raises(TypeError, match="memoryview of format"):
        dump(view_of(np.zeros(3, "i4,f8")), SegmentStore())


# -- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"]
)
@pytest.mark.parametrize("size", [(0, 0), (3, 2), (900, 700)])
def test_an_image_arrives_as_pillow_would_bring_it(mode: str, size: tuple[int, int]) -> None:
    value = Image.new(mode, size)
    if all(size):
        value.paste(Image.new(mode, (2, 1), 1), (1, 0))
    value.info["dpi"] = (72, 72)
    for way in WAYS:
        found = way(value)
        assert found == value == shared(found)
        assert vars(found).keys() == vars(pickle.loads(pickle.dumps(value))).keys()
        if all(size):
            found.putpixel((0, 0), value.getpixel((1, 0)))
            assert found != value


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jpeg", "png", "bmp", "gif", "tiff", "webp"])
def test_an_opened_image_stays_of_its_type(form: str) -> None:
    file = io.BytesIO()
    Image.effect_noise((700, 500), 50).convert("RGB").save(file, form)
    value = Image.open(io.BytesIO(file.getvalue()))
    found = in_band(value)
    expected = pickle.loads(pickle.dumps(value))
    assert type(found) is type(value)
    assert found == value == shared(value)
    assert {name: value for name, value in vars(found).items() if name not in ("_im", "palette")} == {
        name: value for name, value in vars(expected).items() if name not in ("_im", "palette")
    }


@pytest.mark.slow
def test_an_image_is_beside_the_pickle_whatever_its_memory_is_like() -> None:
    small = Image.effect_noise((700, 500), 50).convert("RGB")
    large = Image.effect_noise((3000, 2500), 50).convert("RGB")  # more than one block of Pillow's memory
    for value in (small, large):
        mapped = beside(value)
        assert mapped == value == beside(mapped)


@pytest.mark.parametrize("mode", reducers._MODES)
def test_an_image_is_its_pixels_in_bands(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reducers._are_mapped.__wrapped__(Image), "this Pillow is one of those that work so"
    width = reducers._MODES[mode][1]
    value = Image.effect_noise((310, 290), 50).convert(mode)
    value.info["dpi"] = (72, 72)
    pixels = value.tobytes("raw", reducers._MODES[mode][0])
    monkeypatch.setattr(reducers._under_way, "buffers", Buffers())
    monkeypatch.setattr(reducers, "PIECE", 310 * width * 100)
    make, (kind, state, *place, buffer) = reducers._reduce_image(value)
    source = buffer.raw().obj.source
    assert isinstance(source, Pieces)
    assert [part.nbytes for part in source.make()] == [310 * width * rows for rows in (100, 100, 90)]
    assert (make, kind, place) == (rebuilding.image, Image.Image, [mode, (310, 290)])
    assert bytes(source.whole()) == pixels
    assert state[:3] == [{"dpi": (72, 72)}, mode, (0, 0)], "with no pixels of its own"
    assert make(kind, state, *place, bytearray(source.whole())) == value
    for few in (Image.new(mode, (10, 10)), Image.new("P", (310, 290)), Image.new(mode, (0, 5))):
        assert reducers._reduce_image(few)[0] is not rebuilding.image, "Pillow does it"
    limit = BIG_BUFFER // width
    assert reducers._reduce_image(Image.new(mode, (limit, 1)))[0] is rebuilding.image
    assert reducers._reduce_image(Image.new(mode, (limit - 1, 1)))[0] is not rebuilding.image


@pytest.mark.parametrize("color", [7, 8])
def test_images_of_a_pillow_that_makes_others_of_memory_are_left_to_it(
    color: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reduce(image: Image.Image) -> tuple[Any, ...]:
        made = lambda _: Image.new(image.mode, (3, 2), color)  # noqa: E731
        return made, (pickle.PickleBuffer(Later(Pieces(0, lambda: iter(())))),)

    monkeypatch.setattr(reducers, "_by_pixels", reduce)
    assert reducers._are_mapped.__wrapped__(Image) is (color == 7)


def test_images_of_a_pillow_that_works_otherwise_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(Image), "core", SimpleNamespace())
    assert not reducers._are_mapped.__wrapped__(Image)


# -- tensors ----------------------------------------------------------------------------------------------------------


def tensors() -> dict[str, Any]:
    """By what is special about each."""
    torch: Any = pytest.importorskip("torch")
    base = torch.arange(120_000.0).reshape(300, 400)
    named: dict[str, Any] = {
        str(dtype): (torch.arange(60_000) % 2).to(dtype)
        for dtype in (
            torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
            torch.float32, torch.float64, torch.complex64, torch.complex128, torch.bool, torch.float8_e4m3fn,
        )
    }  # fmt: skip
    return named | {
        "transposed": base.T,
        "steps": base[::3, ::2],
        "a part": base[100:],
        "expanded": base[:1].expand(200, 400),
        "grad": base.clone().requires_grad_(),
        "no leaf": base.clone().requires_grad_() * 2,
        "parameter": torch.nn.Parameter(base.clone()),
        "frozen": torch.nn.Parameter(base.clone(), requires_grad=False),
        "number": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "channels last": torch.zeros(2, 3, 50, 50).to(memory_format=torch.channels_last),
        "conjugate": torch.ones(30_000, dtype=torch.complex64).conj(),
        "sparse": base.to_sparse(),
        "compressed": base.to_sparse_csr(),
        "meta": torch.empty(3, 4, device="meta"),
    }


@pytest.mark.slow
def test_a_tensor_arrives_as_torch_would_bring_it() -> None:
    needs("torch")
    import torch

    with warnings.catch_warnings(action="ignore"):
        values = tensors()
    for name, value in values.items():
        # which plain pickle can't bring at all
        expected = value if name == "torch.float8_e4m3fn" else pickle.loads(pickle.dumps(value))
        for way in WAYS:
            found = way(value)
            assert type(found) is type(expected), name
            for what in ("dtype", "shape", "layout", "device", "requires_grad", "is_leaf"):
                assert getattr(found, what) == getattr(expected, what), (name, what)
            if value.layout is torch.strided:
                assert found.stride() == expected.stride(), name
            if name != "meta":
                with warnings.catch_warnings(action="ignore"):
                    assert torch.equal(found.to_dense().cfloat(), value.to_dense().cfloat()), name


@pytest.mark.slow
@pytest.mark.parametrize("rows", [10, 1000])
def test_tensors_that_view_one_storage_do_so_again(rows: int) -> None:
    needs("torch")
    import torch

    base = torch.arange(rows * 100.0).reshape(rows, 100)
    for way in WAYS:
        value = [base[2:5], base[4:9, ::2], base[3]]
        first, second, third = way(value)
        assert [torch.equal(a, b) for a, b in zip((first, second, third), value, strict=True)] == [True] * 3
        first[1:] = -1
        assert (third == -1).all()
        assert (second[0] == -1).all()
        assert (second[1:] != -1).all()


@pytest.mark.slow
def test_a_tensor_of_nothing_may_lie_before_or_behind_what_is_sent() -> None:
    needs("torch")
    import torch

    base = torch.arange(60_000.0).reshape(3, -1)
    for way in WAYS:
        for value in ([base[2:], base[:0]], [base[:0], base[2:]], [base[:1], base[3:]], [base[:0], base[3:]]):
            found = way(value)
            assert [torch.equal(a, b) for a, b in zip(found, value, strict=True)] == [True] * 2
            assert [tensor.stride() for tensor in found] == [tensor.stride() for tensor in value]


@pytest.mark.slow
def test_only_what_is_viewed_of_a_storage_is_sent() -> None:
    needs("torch")
    import torch

    rows = torch.zeros(1000, 30_000)
    assert sends(rows[7]) < 130_000
    assert sends([rows[7], rows[:0]]) < 130_000
    nothing = reducers._TensorStorage(rows.untyped_storage(), rows.nbytes, in_band=False)
    nothing.settle()
    assert len(nothing.memory()) == 0
    assert sends([rows[7], rows[8]]) < 250_000


@pytest.mark.slow
def test_a_model_arrives_whole_with_weights_that_are_tied() -> None:
    needs("torch")
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(200, 200), torch.nn.BatchNorm1d(200), torch.nn.Linear(200, 200))
    model[2].weight = model[0].weight
    for way in WAYS:
        found = shared(model) if way is beside else way(model)
        assert found[2].weight is found[0].weight
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), found.parameters(), strict=True))
        found(torch.zeros(4, 200)).sum().backward()


@pytest.mark.slow
def test_subclasses_and_attributes_of_tensors_are_left_to_torch() -> None:
    needs("torch")
    import torch

    value = torch.zeros(30_000)
    value.note = "kept"
    assert in_band(value).note == "kept"
    with warnings.catch_warnings(action="ignore"):
        quantized = torch.quantize_per_tensor(torch.rand(30_000), 0.1, 10, torch.quint8)
        assert torch.equal(in_band(quantized), quantized)
        nested = torch.nested.nested_tensor([torch.rand(20_000), torch.rand(3)])
    for found in (in_band(nested), shared(nested)):
        assert all(map(torch.equal, found.unbind(), nested.unbind()))


def test_a_tensor_on_a_device_is_refused() -> None:
    tensor = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    with pytest.raises(TypeError, match=r"send tensor\.cpu\(\)"):
        reducers._reduce_tensor(tensor)


# -- polars -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def columns() -> dict[str, Any]:
    """Series of 50,000 rows: of types that go as Arrow arrays, and of those that are left to polars."""
    needs("polars", "pyarrow")
    import polars as pl
    import pyarrow as pa  # noqa: F401 - the condition for going as Arrow arrays

    assert {pl.Series, pl.DataFrame} <= reducers.table().keys()

    rows = 50_000
    numbers = pl.Series(np.arange(rows))
    texts = pl.Series([f"the text of row {at}" if at % 7 else None for at in range(rows)])
    categories = numbers.cast(pl.Int64) % 5
    columns = {
        "numbers": numbers,
        "few": numbers.cast(pl.Int32),
        "gaps": pl.Series([at if at % 3 else None for at in range(rows)]),
        "sorted": numbers.sort(descending=True),
        "whether": numbers % 2 == 0,
        "texts": texts,
        "binary": texts.cast(pl.Binary),
        "days": numbers.cast(pl.Int32).cast(pl.Date),
        "times": numbers.cast(pl.Datetime("ms", "Europe/Berlin")),
        "exact": numbers.cast(pl.Decimal(12, 3)),
        "lists": pl.Series([[at, 1] for at in range(rows)]),
        "vectors": pl.Series(np.ones((rows, 3))),
        "structs": pl.DataFrame({"a": numbers, "b": texts}).to_struct(),
        "categories": categories.cast(pl.String).cast(pl.Categorical),
        "choices": categories.cast(pl.String).cast(pl.Enum(list("01234"))),
        "wide": numbers.cast(pl.Int128),
        "nothing": pl.Series([None] * rows),
        "pieces": pl.concat([numbers[: rows // 2], numbers[rows // 2 :]], rechunk=False),
    }
    return {name: series.alias(name) for name, series in columns.items()}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_series_or_a_frame_arrives_as_polars_would_bring_it(
    way: Callable[[Any], Any], columns: dict[str, Any]
) -> None:
    import polars as pl

    expected = {name: pickle.loads(pickle.dumps(series)) for name, series in columns.items()}
    whole = pl.DataFrame(list(columns.values()))
    for found in (way(columns), way(whole).to_dict()):
        for name, series in expected.items():
            assert found[name].dtype == series.dtype, name
            assert found[name].flags == series.flags, name
            assert found[name].equals(series, check_dtypes=True, check_names=True), name
    assert way(whole).equals(whole)
    unnamed = pl.DataFrame({"column_0": columns["few"], "": columns["numbers"]})
    assert way(unnamed).columns == unnamed.columns
    assert way(unnamed).equals(unnamed)
    assert way(pl.DataFrame()).equals(pl.DataFrame())


@pytest.mark.slow
def test_the_memory_of_a_series_is_beside_the_pickle_and_only_what_it_shows(columns: dict[str, Any]) -> None:
    numbers, texts = columns["numbers"], columns["texts"]
    found = beside([numbers, numbers.to_frame()])
    assert found[0].equals(numbers)
    assert len(dump(texts, SegmentStore()).data) < 100_000
    assert sends(numbers[20_000:40_000]) < 170_000
    assert sends(texts[:2000]) < 200_000
    assert shared(texts[30_000:]).equals(texts[30_000:])


@pytest.mark.slow
def test_what_arrived_of_polars_can_be_changed(columns: dict[str, Any]) -> None:
    sent = columns["numbers"]
    found = shared(sent)
    found[0] = 7
    assert found[0] == 7
    assert sent[0] == 0


@pytest.mark.slow
def test_without_pyarrow_polars_pickles_itself(columns: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pyarrow")
    assert not dump(columns["numbers"], SegmentStore()).spans


@pytest.mark.slow
def test_series_that_this_pyarrow_gives_back_as_others_are_left_to_polars(
    columns: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import polars as pl

    agree = reducers.are_handed_over.__wrapped__
    assert agree(pl)
    assert not agree(SimpleNamespace()), "of another version"
    changes: list[Callable[[Any], Any]] = [
        lambda series: series.alias("other"),
        lambda series: pl.Series(series.name, series.to_list()[::-1]),
        lambda series: series.cast(pl.Int32) if series.dtype == pl.Int64 else series,
    ]
    for change in changes:
        monkeypatch.setattr(reducers, "_by_arrow", lambda series, change=change: (change, (series,)))
        assert not agree(pl)
    monkeypatch.setattr(reducers, "_by_arrow", lambda _: None)
    assert not agree(pl)


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_table_is_that_of_what_is_imported_and_registered_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    reducers.table()  # which may import what Pillow needs
    known = reducers.table()
    assert known[np.ndarray] is reducers._reduce_array
    anew = reducers._Imported()
    anew.learn()
    assert anew.table.keys() == known.keys()
    assert (anew.table[Image.Image] is reducers._reduce_image) is reducers._are_mapped(Image)
    assert known[io.BytesIO] is reducers._reduce_bytes_io
    assert reducers.table() is known, "nothing has changed"
    monkeypatch.setitem(copyreg.dispatch_table, Record, str)
    registered = reducers.table()
    assert registered[Record] is str
    monkeypatch.setitem(sys.modules, "imported_just_now", ModuleType("imported_just_now"))
    assert reducers.table() is not registered
    monkeypatch.undo()
    assert Record not in reducers.table()


def test_what_is_pickled_later_has_no_buffers_of_what_was_pickled_before() -> None:
    before = reducers._under_way.buffers
    assert len(beside([np.zeros(BIG)])) == 1
    with pytest.raises(TypeError, match="memoryview of format"):
        dump(view_of(np.zeros(3, "i4,f8")), SegmentStore())
    assert reducers._under_way.buffers is before


def test_of_pillow_s_types_those_are_taken_that_leave_pickling_to_their_base() -> None:
    base = type("Image", (), {"__module__": "PIL.Image"})
    opened = type("Opened", (base,), {"__module__": "PIL.Opened"})
    below = type("Below", (opened,), {"__module__": "PIL.Below"})
    others = [
        type("Users", (base,), {"__module__": "users"}),
        type("Own", (base,), {"__module__": "PIL.Own", "__reduce__": lambda _: (list, ())}),
        type("OwnToo", (base,), {"__module__": "PIL.OwnToo", "__reduce_ex__": lambda _, __: (list, ())}),
    ]
    assert [*reducers._opened(base)] == [opened, below]
    assert len(base.__subclasses__()) == 1 + len(others)


def test_what_users_have_registered_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(copyreg.dispatch_table, io.BytesIO, lambda file: (bytes.upper, (file.getvalue(),)))
    assert shared([io.BytesIO(b"abc")]) == [b"ABC"]


@pytest.mark.slow
def test_no_library_is_imported() -> None:
    program = (
        "import sys; from mpqueue._wire.pickling.payload import dump, load; load(dump([object(), b'x' * 10**6]));"
        "sys.exit(bool({'numpy', 'torch', 'PIL', 'polars', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_what_pickles_name_stays() -> None:
    """Journals keep pickles for years. This may only grow."""
    from inspect import signature

    names = {name: list(signature(getattr(rebuilding, name)).parameters) for name in (
        "bytes_io", "number_array", "memory_view", "storage", "tensor", "image", "polars_series", "polars_frame",
    )}  # fmt: skip
    assert names == {
        "bytes_io": ["content", "position", "attributes"],
        "number_array": ["typecode", "itemsize", "byteorder", "content"],
        "memory_view": ["content", "layout", "shape", "readonly"],
        "storage": ["content", "start"],
        "tensor": ["stored", "dtype", "offset", "size", "stride", "rest"],
        "image": ["kind", "state", "mode", "size", "content"],
        "polars_series": ["name", "array", "order"],
        "polars_frame": ["columns"],
    }
    assert rebuilding.__name__ == "mpqueue._wire.pickling.rebuilding"


def test_pieces_that_are_not_what_was_said_are_an_error() -> None:
    pieces = Pieces(BIG_BUFFER, lambda: iter([memoryview(bytes(10))]))
    with pytest.raises(ValueError, match="expected 32768 bytes"):
        SegmentStore().lend([pieces])


def test_a_packed_array_of_a_few_bytes_stays_in_the_pickle() -> None:
    packed = dump([np.zeros(10)[::2], io.BytesIO(b"abc")], SegmentStore())
    assert isinstance(packed, Packed)
    assert packed.segment is None
