"""The main job: alt text and a thumbnail for each picture of a folder, on all cores, whatever goes wrong on the way.

Each worker loads a small image classifier once (``setup``) and then describes one picture after the other. Added for
show: two damaged files, which fail after their retries, and an item that kills its worker at its first attempt.

    python examples/alt_text.py --help
"""

import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _one_process
from _damaged import damaged_files
from _files import remove_unfinished
from _labels import alt_text, best_labels
from _network import SqueezeNet
from _options import make_parser
from _pictures import CACHE, NoPictures, Pictures, every_nth, find_pictures
from _progress_line import ProgressLine
from _report import print_report
from _results import write_results
from _thumbnails import read_picture, write_thumbnail

import mpqueue

#: Short waits between the attempts: this is a demonstration. Without this line they are 2, 4 and 8 seconds.
RETRY = mpqueue.RetryPolicy(max_retries=3, base_delay=0.2)


def load_network() -> SqueezeNet:
    """Run once in each worker, before its first picture."""
    return SqueezeNet.load()


def describe_picture(item: dict[str, Any], network: SqueezeNet) -> dict[str, Any]:
    """Write the thumbnail of one picture and make its alt text. Runs in a worker."""
    if item["kills_worker"] and mpqueue.current_item().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)  # what a full memory or a bug in C code does
    picture = read_picture(Path(item["path"]))
    write_thumbnail(picture, Path(item["thumbnail"]))
    labels = best_labels(network.scores(picture))
    return {"altText": alt_text(labels), "labels": {label.name: round(label.probability, 3) for label in labels}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job, show how it goes, and write what came of it."""
    description = "Make alt text and thumbnails for pictures, on all cores."
    options = make_parser(description, output=Path("out/alt-text")).parse_args(arguments)
    try:
        pictures = every_nth(find_pictures(options.pictures), options.limit)
    except NoPictures as reason:
        print(f"alt_text.py: {reason}", file=sys.stderr)
        return 2
    items = _items(pictures, options.output / "thumbnails")
    queue = mpqueue.JobQueue(concurrency=options.concurrency, retry=RETRY, progress_interval=0.1)
    job = queue.create_job("alt-text", items, describe_picture, setup=load_network)
    print(f"{len(pictures.paths)} pictures ({pictures.source}) and 2 damaged files, on {queue.concurrency} workers")

    line = ProgressLine()
    queue.on("job:progress", line.on_progress)
    queue.on("item:retry", line.on_retry)
    started = time.monotonic()
    interrupted = False
    try:
        with queue:
            queue.start(job.id).result()
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.monotonic() - started
    line.end()

    remove_unfinished(options.output / "thumbnails")
    files = write_results(options.output, map(_row, job.items))
    print(f"Results are in {' and '.join(map(str, files))}, thumbnails beside them.")
    one_process = None
    if not interrupted:
        print("Now some of the pictures once more, in one process, to compare ...")
        one_process = _one_process.measure([item for item in items if not item["damaged"]])
    print_report(job, seconds, queue.concurrency, one_process)
    return 130 if interrupted else 0


def _items(pictures: Pictures, thumbnails: Path) -> list[dict[str, Any]]:
    """One item a picture; the damaged files, and the one that kills its worker, are in the midst of them."""
    paths = list(pictures.paths)
    fatal = paths[len(paths) // 2]
    damaged = damaged_files(CACHE / "damaged")
    for position, path in enumerate(damaged, start=1):
        paths.insert(len(paths) * position // 3, path)
    return [
        {
            "id": number,
            "path": str(path),
            "file": pictures.name(path),
            "thumbnail": str(thumbnails / f"{number:04}-{path.stem[:60]}.jpg"),
            "damaged": path in damaged,
            "kills_worker": path == fatal,
        }
        for number, path in enumerate(paths, start=1)
    ]


def _row(item: mpqueue.JobItem) -> dict[str, Any]:
    """What the result files say of an item."""
    row = {"id": item.id, "file": item.payload["file"], "status": str(item.status), "attempts": item.attempts}
    if item.result is not None:
        thumbnail = Path(item.payload["thumbnail"])
        row |= {
            "proposedAlt": item.proposed_alt,
            "labels": item.result["labels"],
            "thumbnail": f"{thumbnail.parent.name}/{thumbnail.name}",
        }
    return row | {"error": item.error}


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names can hold anything
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before the job or after it; the job itself ends in an orderly way
        sys.exit(130)
