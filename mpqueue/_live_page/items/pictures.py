"""The picture in a result, if it has one, as bytes that a browser shows.

A picture is a PIL image; bytes that are a PNG, JPEG, GIF or WebP; or an object that notebooks show as one
(``_repr_png_``), or that can be saved as one (a matplotlib figure). It may also be in a key or a field of the result.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

#: The most bytes of a picture that is sent.
MOST_BYTES = 32 << 20
#: Pixels of the longer side of a PIL image that is sent.
LONGEST_SIDE = 1600
#: The same for a picture in a row; and the most bytes of one that is sent there unchanged, if Pillow can't shrink it.
SMALL_SIDE, SMALL_BYTES = 96, 64 << 10
#: The most keys or fields of a result that are looked at.
_MOST_FIELDS = 50


class Picture(NamedTuple):
    """An encoded picture."""

    media_type: str
    data: bytes


def has_picture(result: Any) -> bool:
    """True if `find_picture` would try to make one. Costs little, and only reads attributes of the result."""
    return any(_looks_like_one(value) for value in _candidates(result))


def find_picture(result: Any) -> Picture | None:
    """Return the first picture in a result, None if there is none. Errors of the result's own code are raised."""
    for value in _candidates(result):
        if _looks_like_one(value):
            picture = _encode(value)
            if picture is not None and len(picture.data) <= MOST_BYTES:
                return picture
    return None


def small(result: Any) -> Picture | None:
    """Return the picture for a row of a list; None also if it is big, and Pillow is not installed to shrink it."""
    picture = find_picture(result)
    if picture is None or len(picture.data) <= SMALL_BYTES // 8:
        return picture
    try:
        from PIL import Image  # not every program has it

        with Image.open(io.BytesIO(picture.data)) as image:
            image.thumbnail((SMALL_SIDE, SMALL_SIDE))
            return _saved(image)
    except Exception:  # noqa: BLE001 - Pillow can't read it, or is not installed
        return picture if len(picture.data) <= SMALL_BYTES else None


def _candidates(result: Any) -> Iterator[Any]:
    yield result
    if isinstance(result, Mapping):
        yield from list(result.values())[:_MOST_FIELDS]
    elif isinstance(result, tuple | list):
        yield from result[:_MOST_FIELDS]
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        yield from (getattr(result, field.name, None) for field in dataclasses.fields(result)[:_MOST_FIELDS])


def _looks_like_one(value: Any) -> bool:
    if isinstance(value, bytes | bytearray | memoryview):
        return _media_type(bytes(value[:16])) is not None
    if isinstance(value, type) or value is None or isinstance(value, str | int | float):
        return False
    return _is_pil(value) or _is_figure(value) or callable(getattr(value, "_repr_png_", None))


def _encode(value: Any) -> Picture | None:
    if isinstance(value, bytes | bytearray | memoryview):
        media_type = _media_type(bytes(value[:16]))
        return None if media_type is None else Picture(media_type, bytes(value))
    if _is_pil(value):
        image = value.copy()
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        return _saved(image)
    if _is_figure(value):
        file = io.BytesIO()
        value.savefig(file, format="png")
        return Picture("image/png", file.getvalue())
    data = value._repr_png_()
    if isinstance(data, tuple):  # with metadata
        data = data[0]
    return Picture("image/png", bytes(data)) if data and _media_type(bytes(data[:16])) == "image/png" else None


def _saved(image: Any) -> Picture:
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    file = io.BytesIO()
    image.save(file, format="PNG")
    return Picture("image/png", file.getvalue())


def _is_pil(value: Any) -> bool:
    """True for an image of PIL, known by name, so that PIL need not be installed."""
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(value).__mro__)


def _is_figure(value: Any) -> bool:
    return any(kind.__module__ == "matplotlib.figure" for kind in type(value).__mro__) and hasattr(value, "savefig")


def _media_type(start: bytes) -> str | None:
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if start.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if start[:4] == b"RIFF" and start[8:12] == b"WEBP" else None
