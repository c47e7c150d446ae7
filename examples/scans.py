"""Reading scans: text recognition on real pages, of which some take 30 times as long as others.

An item is a page. Fixed chunks would leave one worker with the long ones while the others idle; here nothing is set,
and an idle worker takes over what waits behind a slow page. Each worker loads the recognizer once. A page that hangs
is ended by ``timeout``, one that needs too much memory by the memory limit (there is one, of 544 megapixels);
files that are damaged fail by themselves. What each page took stands in a table.

    pip install 'mpqueue[examples-ocr]'
    python examples/scans.py --help
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pypdfium2
from _downloads import NotToBeHad, fetch_scans
from _files import write_whole
from _inner_threads import inner_threads
from _options import make_parser
from _pictures import CACHE
from PIL import Image
from rapidocr import RapidOCR

from mpqueue import Job, JobQueue, MemoryLimitError, RetryPolicy

#: What is read.
PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}
SUFFIXES = {".pdf", *PICTURES}
#: Dots an inch at which a page of a PDF is drawn.
RESOLUTION = 200
#: Seconds for one try of one page. The slowest needs a fifth of it on a slow machine.
TIMEOUT = 120
#: Of one worker. A page takes 300 MB to 1 GB. Only Linux can tell what a process takes.
MEMORY = "1500MB" if sys.platform == "linux" else None
#: Two tries for each page, and one where it is too large: the second would take as much.
RETRY = RetryPolicy(max_retries=1, base_delay=0.2, give_up_on=(MemoryLimitError,))
#: What the table tells of each page.
COLUMNS = ["id", "status", "attempts", "elapsed", "cpu_seconds", "peak_memory", "megapixels", "error"]
#: How many results are shown, and how much of each.
SHOWN, SHOWN_LENGTH = 6, 60


def load_reader() -> RapidOCR:
    """Load the models, once in each worker: 1 second, and 300 MB."""
    threads = inner_threads()
    cv2.setNumThreads(threads)
    engine = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
    settings = {f"EngineConfig.onnxruntime.{name}": value for name, value in engine.items()}
    return RapidOCR(params={"Global.log_level": "critical", **settings})


def read_page(item: dict[str, Any], reader: RapidOCR) -> dict[str, Any]:
    """The text of one page. Runs in a worker; takes a tenth of a second to ten seconds."""
    picture = _draw(Path(item["path"]), item["page"])
    found = reader(np.asarray(picture))
    return {"text": "\n".join(found.txts or ()), "megapixels": round(picture.width * picture.height / 1e6, 1)}


def _draw(path: Path, page: int) -> Image.Image:
    """The page as a picture."""
    if path.suffix.lower() in PICTURES:
        with Image.open(path) as image:
            return image.convert("RGB")
    with pypdfium2.PdfDocument(path) as document:
        drawn: Image.Image = document[page].render(scale=RESOLUTION / 72).to_pil()
        return drawn.convert("RGB")


def pages_in(folder: Path) -> Iterator[dict[str, Any]]:
    """An item for each page of the scans in a folder."""
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        for page in range(_count(path)):
            yield {"id": f"{path.name}-{page + 1}", "path": str(path), "page": page}


def _count(path: Path) -> int:
    if path.suffix.lower() in PICTURES:
        return 1
    try:
        with pypdfium2.PdfDocument(path) as document:
            return len(document)
    except pypdfium2.PdfiumError:
        return 1  # damaged: an item that fails and says why


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the pages, keep each one's text as soon as it is there, and tell how long they took."""
    parser = make_parser(
        "Read the text of scanned pages, on all cores.",
        inputs="scans",
        given="pictures and PDFs of your own",
        output=Path("out/scans"),
    )
    options = parser.parse_args(arguments)
    try:
        folder = options.scans or fetch_scans(CACHE, print)
    except NotToBeHad as reason:
        print(f"scans.py: the scans are not to be had here ({reason}); give a folder of your own: --scans DIR")
        return 2
    pages = list(pages_in(folder))
    pages = pages[:: max(1, len(pages) // (options.limit or len(pages) or 1))][: options.limit]
    options.output.mkdir(parents=True, exist_ok=True)

    started = time.monotonic()
    with JobQueue(options.concurrency, retry=RETRY, timeout=TIMEOUT, per_worker={"memory": MEMORY}) as queue:
        job = queue.create_job("scans", pages, read_page, setup=load_reader)
        for item in queue.start("scans", progress=True).as_completed():
            if item.result is not None:
                write_whole(options.output / f"{item.id}.txt", item.result["text"].encode())
        workers = queue.concurrency
    _tell(job, time.monotonic() - started, workers)
    job.export(options.output / "scans.csv", columns=COLUMNS)
    print(f"The texts are in {options.output}, and scans.csv with times and memory beside them.")
    return 0


def _tell(job: Job[dict[str, Any], dict[str, Any]], seconds: float, workers: int) -> None:
    """What was read, how unlike the times are, and what failed."""
    read = [(item, item.elapsed or 0.0, item.result) for item in job.items if item.result is not None]
    for item, elapsed, result in read[:: len(read) // SHOWN + 1]:
        print(f"  {item.id} ({elapsed:.1f} s): {' '.join(result['text'].split())[:SHOWN_LENGTH] or 'no text'}")
    for item in job.items:
        if item.error is not None:
            print(f"  {item.id} failed at try {item.attempts}: {item.error}")
    print(f"{job.completed} of {job.total} pages read in {seconds:.1f} s on {workers} workers")
    if read:
        fastest, slowest = min(elapsed for _, elapsed, _ in read), max(elapsed for _, elapsed, _ in read)
        busy = sum(elapsed for _, elapsed, _ in read) / (seconds * workers)
        print(f"from {fastest:.2f} s to {slowest:.1f} s a page, {slowest / fastest:.0f} times as long;", end=" ")
        print(f"the workers read {busy:.0%} of the time")
        peaks = [item.peak_memory / 1e6 for item, _, _ in read if item.peak_memory is not None]
        if peaks:
            print(f"from {min(peaks):.0f} MB to {max(peaks):.0f} MB of memory")


if __name__ == "__main__":
    sys.exit(main())
