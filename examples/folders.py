"""The other job of the original, at full size: filing the pictures of a library into its folders.

Every second picture of a folder counts as filed by hand; the others are to be filed. Two jobs, one after the other: the
first looks at the filed pictures, the second files the others by what the first found, which all workers share
(``mpqueue.share``). Where a picture really lies is known, so the example tells how often it is right.

    python examples/folders.py --help
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _filing import FiledPictures, Folder
from _network import SqueezeNet
from _options import make_parser
from _pictures import NoPictures, Pictures, every_nth, find_pictures
from _thumbnails import read_picture

from mpqueue import Job, JobQueue, RetryPolicy, share

#: What the original writes of each picture, in the order of the table's columns.
COLUMNS = ["id", "file", "status", "action", "folderId", "folderPath", "newFolderPath", "confidence", "error"]
#: A damaged file is as damaged a second later.
RETRY = RetryPolicy(max_retries=1, base_delay=0.2)
#: How many filed pictures, and how many wrongly filed ones, are shown.
SHOWN = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """File the pictures, tell how many are where they belong, and write a table."""
    description = "File pictures into the folders of a library, on all cores."
    parser = make_parser(description, given="a folder of folders", output=Path("out/folders"))
    options = parser.parse_args(arguments)
    try:
        pictures = every_nth(find_pictures(options.pictures), options.limit)
    except NoPictures as reason:
        print(f"folders.py: {reason}", file=sys.stderr)
        return 2
    folders, unfiled = _half_filed(pictures)
    filed = [(folder, path) for folder in folders for path in folder.filed]
    print(f"{len(filed)} pictures in {len(folders)} folders ({pictures.source}); {len(unfiled)} to be filed")

    started = time.monotonic()
    with JobQueue(concurrency=options.concurrency, retry=RETRY) as queue:
        seen = queue.run([path for _, path in filed], look, setup=SqueezeNet.load, id="look", progress=True)
        known = [
            (folder, scores) for (folder, _), scores in zip(filed, seen.results, strict=True) if scores is not None
        ]
        for failure in seen.failures[:SHOWN]:
            print(f"  {failure}")
        if not known:
            print("folders.py: none of the filed pictures can be read", file=sys.stderr)
            return 1
        library = share(FiledPictures([folder for folder, _ in known], np.stack([scores for _, scores in known])))

        def file(item: dict[str, Any], network: SqueezeNet) -> dict[str, Any]:
            """Say where one picture belongs, with the keys of the original. Runs in a worker."""
            place = library.value.place(look(item["path"], network))
            return {
                "action": place.action,
                "folderId": place.folder_id,
                "folderPath": place.folder_path,
                "newFolderPath": place.new_folder_path,
                "confidence": place.confidence,
            }

        job = queue.run(unfiled, file, setup=SqueezeNet.load, id="file", progress=True)
        seconds = time.monotonic() - started
        print(f"{job.completed} filed, {job.failed} failed, in {seconds:.1f} s on {queue.concurrency} workers")

    _tell(job)
    options.output.mkdir(parents=True, exist_ok=True)
    job.export(options.output / "folders.csv", columns=COLUMNS)
    print(f"The table is {options.output / 'folders.csv'}.")
    return 0


def look(path: str, network: SqueezeNet) -> Any:
    """What the classifier makes of a picture: a score for each of 1,000 kinds of things. Runs in a worker."""
    return network.scores(read_picture(Path(path)))


def _half_filed(pictures: Pictures) -> tuple[list[Folder], list[dict[str, Any]]]:
    """Every folder with half of its pictures, and the others as items that know where they came from."""
    by_folder: dict[Path, list[Path]] = {}
    for path in pictures.paths:
        by_folder.setdefault(path.parent, []).append(path)
    folders, unfiled = [], []
    for number, (folder, paths) in enumerate(sorted(by_folder.items()), start=1):
        folders.append(Folder(number, pictures.name(folder), tuple(map(str, paths[::2]))))
        unfiled += [
            {"path": str(path), "file": pictures.name(path), "belongs": pictures.name(folder)} for path in paths[1::2]
        ]
    return folders, [{"id": number, **item} for number, item in enumerate(unfiled, start=1)]


def _tell(job: Job[dict[str, Any], dict[str, Any]]) -> None:
    """How many are where they belong, and some of them."""
    filed = [(item.payload, item.result) for item in job.items if item.result is not None]
    moved = [(picture, place) for picture, place in filed if place["action"] == "move"]
    right = [(picture, place) for picture, place in moved if place["folderPath"] == picture["belongs"]]
    wrong = [(picture, place) for picture, place in moved if place["folderPath"] != picture["belongs"]]
    print(f"{len(right)} went where they belong, {len(wrong)} elsewhere;", end=" ")
    print(f"for {len(filed) - len(moved)} a new folder is proposed")
    for picture, place in right[:SHOWN]:
        print(f"  right: {picture['file']} (confidence {place['confidence']})")
    for picture, place in wrong[:SHOWN]:
        print(f"  wrong: {picture['file']} to {place['folderPath']} (confidence {place['confidence']})")
    for failure in job.failures[:SHOWN]:
        print(f"  {failure}")


if __name__ == "__main__":
    sys.exit(main())
