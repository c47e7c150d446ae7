"""Owns the two damaged files that the alt-text job is given on purpose."""

import io
from pathlib import Path

from _files import write_whole
from PIL import Image


def damaged_files(folder: Path) -> tuple[Path, Path]:
    """Make, in ``folder``, a PNG that breaks off in the middle and a text file that calls itself a JPEG."""
    encoded = io.BytesIO()
    Image.radial_gradient("L").save(encoded, format="PNG")
    truncated, text = folder / "truncated.png", folder / "text.jpg"
    write_whole(truncated, encoded.getvalue()[: len(encoded.getvalue()) // 2])
    write_whole(text, b"This is a text file, whatever its name says.\n")
    return truncated, text
