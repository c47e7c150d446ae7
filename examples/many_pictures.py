"""Ten thousand pictures: loaded, measured and written into a Parquet file, in constant memory.

Two stages: one reads a picture and makes it small, the other finds its colours. The small pictures go from worker to
worker as they are pickled, a bounded number at a time. Each row goes into the file when its picture is done, so the
program holds neither pictures nor results. The pictures are drawn at the first run, unless you name a folder of your
own; damaged ones have rows with an error.
"""

import argparse
import resource
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _options import at_least_one
from PIL import Image

from mpqueue import JobQueue, sinks

SIZE = 256
SCHEMA = pa.schema(
    [
        pa.field("payload", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("brightness", pa.float32()),
        pa.field("colour", pa.list_(pa.uint8())),
        pa.field("error", pa.string()),
    ]
)


def load(path: str) -> tuple[int, int, np.ndarray]:
    """A picture's size, and the picture as numbers, made small."""
    with Image.open(path) as picture:
        width, height = picture.size
        picture.thumbnail((SIZE, SIZE))
        return width, height, np.asarray(picture.convert("RGB"))


def compute(loaded: tuple[int, int, np.ndarray]) -> dict[str, object]:
    """What is told of it: its size, how bright it is, and the colour that most of it has."""
    width, height, numbers = loaded
    coarse = (numbers >> 5).reshape(-1, 3).astype(int)
    most = np.bincount(coarse @ (64, 8, 1)).argmax()
    colour = [int(most // step % 8) * 32 + 16 for step in (64, 8, 1)]
    return {"width": width, "height": height, "brightness": float(numbers.mean() / 255), "colour": colour}


def draw(path: Path, number: int) -> None:
    """A picture of one colour with some noise; every thousandth file is damaged."""
    rng = np.random.default_rng(number)
    numbers = rng.integers(0, 40, (480, 640, 3), dtype=np.uint8) + rng.integers(0, 200, 3, dtype=np.uint8)
    if number % 1000 == 999:
        path.write_bytes(b"no picture")
    else:
        Image.fromarray(numbers).save(path, quality=50)


def draw_some(numbers: range, folder: Path) -> None:
    """Those that are not there yet."""
    for number in numbers:
        path = folder / f"{number:05}.jpg"
        if not path.exists():
            draw(path, number)


def megabytes() -> int:
    """The most memory that this program, without its workers, has had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most >> (20 if sys.platform == "darwin" else 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=Path, help="a folder with pictures of yours (default: drawn ones)")
    parser.add_argument("--count", type=at_least_one, default=10_000, help="how many to draw (default: 10000)")
    parser.add_argument("--output", type=Path, default=Path("pictures.parquet"))
    parser.add_argument("--concurrency", type=at_least_one, default=None, help="workers (default: one for each CPU)")
    options = parser.parse_args()

    with JobQueue(options.concurrency, max_retries=0) as queue:
        folder = options.pictures or Path("drawn")
        if options.pictures is None:
            folder.mkdir(exist_ok=True)
            parts = [range(lo, min(lo + 100, options.count)) for lo in range(0, options.count, 100)]
            queue.run(parts, lambda numbers: draw_some(numbers, folder), results="discard").raise_for_failures()
            paths = [str(folder / f"{number:05}.jpg") for number in range(options.count)]
        else:
            paths = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
        before = megabytes()
        rows = sinks.parquet(options.output, SCHEMA, in_order=True)
        job = queue.run_stages(paths, [load, compute], progress=True, results=rows)
        print(f"{job.completed} pictures, {job.failed} damaged, in {job.duration:.1f} s, into {job.results}")
        print(f"memory of this program: {before} MB before, {megabytes()} MB at most")

    brightest = max(pq.read_table(options.output).to_pylist(), key=lambda row: row["brightness"] or 0)
    print(f"the brightest is {brightest['payload']}")


if __name__ == "__main__":
    main()
