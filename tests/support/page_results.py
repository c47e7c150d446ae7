"""Handlers whose results are hard to show: long ones, odd ones, pictures."""

from __future__ import annotations

import io
from typing import Any

from tests.support.waiting import spend


class BadRepr:
    """Its ``repr`` raises."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


class SlowRepr:
    """Its ``repr`` takes longer than a page searches for one request."""

    def __repr__(self) -> str:
        spend(0.5)
        return "slow"


class Plot:
    """Shows itself as a picture in notebooks."""

    def _repr_png_(self) -> bytes:
        return encoded("PNG", 30)


class BrokenPlot:
    """Promises a picture and breaks."""

    def _repr_png_(self) -> bytes:
        raise ZeroDivisionError


def encoded(form: str, side: int = 40) -> bytes:
    """A red square, encoded."""
    from PIL import Image  # which not every test of these has

    file = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(file, format=form)
    return file.getvalue()


#: How each of `return_odd`'s results should come out in the list: a part of it.
ODD = ["[0, 1, 2", "xxx", "(1,000,000 bytes)", "nan", "{1: {2, 3}}", "<BadRepr: its repr() raised ZeroDivisionError>"]


def return_odd(index: int) -> Any:
    """Long and odd results."""
    return [list(range(100_000)), "x" * 1_000_000, bytes(1_000_000), float("nan"), {1: {2, 3}}, BadRepr()][index]


def return_slow_repr(item: Any) -> SlowRepr:
    """A result whose text takes half a second."""
    return SlowRepr()


#: The media type of each of `return_picture`'s; None where there is no picture to be had.
PICTURES = ["image/png", "image/jpeg", "image/png", "image/png", "image/gif", None, None, None]


def return_picture(index: int) -> Any:
    """Results with pictures in them, and without."""
    from PIL import Image

    return [
        encoded("PNG"),
        {"label": "red", "thumbnail": encoded("JPEG")},
        (1, Image.new("CMYK", (5000, 20))),
        Plot(),
        encoded("GIF"),
        "no picture",
        b"<svg onload='alert(1)'/>",
        BrokenPlot(),
    ][index]
