"""The pictures for the image batch: made once, kept in .cache, or taken from a folder of yours."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.handlers import thumbnail

#: The variable that names a folder of JPEGs to take instead.
FOLDER = "MPQUEUE_BENCH_PICTURES"
CACHE = Path(__file__).parent.parent / ".cache" / "bench-pictures"
WIDTHS = (640, 1024, 1600, 2400)


def paths(count: int) -> list[Path]:
    """That many pictures; fewer where a folder was given and has fewer."""
    folder = os.environ.get(FOLDER)
    if folder:
        return sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))[:count]
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted = [CACHE / f"{number:04}.jpg" for number in range(count)]
    for number, path in enumerate(wanted):
        if not path.exists():
            _draw(number, path)
    return wanted


def thumbnails(items: Sequence[str]) -> list[bytes]:
    """What must come out: made here, once a process."""
    for path in items:
        if path not in _made:
            _made[path] = thumbnail(path)
    return [_made[path] for path in items]


_made: dict[str, bytes] = {}


def _draw(number: int, path: Path) -> None:
    """Blurred noise under some shapes: compresses, and takes as long to decode, as a photograph does."""
    from PIL import Image, ImageChops, ImageDraw

    rng = random.Random(number)
    width = WIDTHS[number % len(WIDTHS)]
    size = (width, width * 3 // 4)
    channels = [Image.effect_noise((size[0] // 4, size[1] // 4), rng.uniform(20, 80)).resize(size) for _ in range(3)]
    picture = Image.merge("RGB", channels)
    shapes = Image.new("RGB", size)
    pen = ImageDraw.Draw(shapes)
    for _ in range(40):
        x, y, r = rng.randrange(size[0]), rng.randrange(size[1]), rng.randrange(10, size[1] // 4)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.randrange(128) for _ in range(3)))
    picture = ImageChops.add(picture, shapes)
    unfinished = path.with_suffix(f".{os.getpid()}")
    picture.save(unfinished, "JPEG", quality=90)
    unfinished.rename(path)
