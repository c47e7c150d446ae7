"""Owns reading a picture from a file, and its thumbnail."""

import io
from pathlib import Path

from _files import write_whole
from PIL import Image, ImageOps, UnidentifiedImageError

#: Longest side, in pixels, of a picture as the examples work on it; the network looks at 227.
WORKING_SIDE = 512
#: Longest side of a thumbnail, in pixels.
THUMBNAIL_SIDE = 256


class UnreadablePicture(ValueError):
    """The file holds no picture that can be decoded."""


def read_picture(path: Path) -> Image.Image:
    """Decode a picture, upright, on white where it is transparent, at most ``WORKING_SIDE`` wide and high.

    Raises:
        UnreadablePicture: the file is no picture, or a damaged one.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (WORKING_SIDE, WORKING_SIDE))  # a large JPEG is decoded at a fraction of its size
            upright = ImageOps.exif_transpose(image)
            picture = _on_white(upright)
    except UnidentifiedImageError as error:  # its message holds the whole path
        raise UnreadablePicture(f"{path.name}: not a picture in a format that Pillow knows") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's decoders raise all three on damaged files
        raise UnreadablePicture(f"{path.name}: {error}") from error
    picture.thumbnail((WORKING_SIDE, WORKING_SIDE))
    return picture


def write_thumbnail(picture: Image.Image, path: Path) -> None:
    """Write a small JPEG of ``picture`` to ``path``, whole or not at all."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    encoded = io.BytesIO()
    small.save(encoded, format="JPEG", quality=85)
    write_whole(path, encoded.getvalue())


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    with_alpha = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(with_alpha, mask=with_alpha.getchannel("A"))
    return white
