"""Pictures for the rows of a list: small, whatever the result has."""

from __future__ import annotations

import io
from typing import Any

import pytest

from mpqueue._live_page.items.pictures import SMALL_BYTES, SMALL_SIDE, small
from tests.support.page_results import Plot, encoded


def noise(mode: str = "RGB", size: tuple[int, int] = (640, 320)) -> Any:
    image = pytest.importorskip("PIL.Image")
    return image.effect_noise(size, 100).convert(mode)


def as_png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_big_picture_is_made_small(mode: str) -> None:
    picture = small(noise(mode))
    assert picture is not None
    image = pytest.importorskip("PIL.Image")
    assert image.open(io.BytesIO(picture.data)).size == (SMALL_SIDE, SMALL_SIDE // 2)
    assert len(picture.data) < SMALL_BYTES


def test_a_small_one_stays_as_it_is() -> None:
    for result in (encoded("PNG"), {"thumbnail": encoded("GIF")}, Plot()):
        picture = small(result)
        assert picture is not None
        assert len(picture.data) <= SMALL_BYTES // 8
    assert small("none") is None


def test_without_pillow_only_what_is_not_big_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    big, medium = as_png(noise()), as_png(noise(size=(160, 100)))
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    assert small(big) is None
    assert small(medium) == ("image/png", medium)
