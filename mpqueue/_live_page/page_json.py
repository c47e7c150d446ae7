"""The JSON for the browser: the wire form of items, cut if it is too long for a list; and one item with all its facts.

The wire form is that of `JobProgress.to_dict`, with more keys: the item's ``index`` and ``label``, the seconds that its
last try took, and whether its result has a picture. Errors of users' objects are contained here.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue._live_page.served import ShownJob
from mpqueue._os.process_facts import end_of_file, use_of
from mpqueue._parent.running import LaneNow
from mpqueue._queue.job_items import JobItem, as_json
from mpqueue._text import beginning_of, json_text, repr_of, shown_json
from mpqueue.errors import JobStateError, JournalError, type_name_of
from mpqueue.events import milliseconds
from mpqueue.status import COMPLETED, ITEM_CODES

#: Characters of a result or an error in the list of items; an item's own view has more.
IN_LIST = 300
#: The most values in a result, counted through all its containers, that are written as JSON.
_FEW = 100

_PLAIN = frozenset({type(None), bool, int, float, str, list, tuple})
_NO_PICTURE = frozenset({type(None), bool, int, float, str})
#: The types of ids that are compared as they are.
_TEXTS = frozenset({int, str})


def row_of(table: ItemTable, index: int, status: int) -> dict[str, Any]:
    """One item of a list, for JSON; with its ``label`` where that is not its id. Runs code of users."""
    words, result = _words_of(table, index, status)
    row = end_of(table, index, status) | {"attempts": table.attempts[index]} | words
    if type(result) not in _NO_PICTURE and shows_picture(result):
        row["picture"] = True
    return row


def end_of(table: ItemTable, index: int, status: int) -> dict[str, Any]:
    """An item's index, status and seconds, for JSON."""
    told: dict[str, Any] = {"index": index, "status": str(ITEM_CODES[status])}
    # Between two stages of a pipeline an item has run, and has not been tried: its seconds there say nothing of it.
    if table.attempts[index] and (elapsed := table.elapsed[index]):
        told["elapsed"] = float(f"{elapsed:.4g}")
    return told


def index_of(table: ItemTable, text: str) -> int | None:
    """Return the index of the item whose id is that text, or has it as JSON; None if there is none.

    Costs 0.1 us per item.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    for index in range(len(table)):
        item_id = table.id_of(index)
        plain = item_id if type(item_id) in _TEXTS else json.loads(encode(as_json(item_id)))
        if plain == text or (plain == value and isinstance(plain, bool) is isinstance(value, bool)):  # True == 1
            return index
    return None


def searched_text(table: ItemTable, index: int) -> str:
    """Return the text to find an item by, in lower case: its id, its label, and its row's text. Runs code of users."""
    words, _ = _words_of(table, index, table.status[index])
    return " ".join(word if type(word) is str else encode(word) for word in words.values()).lower()


def _words_of(table: ItemTable, index: int, status: int) -> tuple[dict[str, Any], Any]:
    """Return the words of a row about its item, short and ready for JSON, and the result; None if there is none."""
    item_id, result = table.id_of(index), None
    words = {"id": brief(item_id) if type(item_id) is int else as_json(item_id)}
    label = table.label_at(index)
    if label is not None and label != (item_id if type(item_id) is str else str(brief(item_id))):
        words["label"] = label
    if status == COMPLETED and table.has_result(index):
        result = result_of(table, index)
        words["result"] = brief(result)
        if type(result) not in _PLAIN and (proposed := _proposed_alt(table, index)) is not None:
            words["proposedAlt"] = brief(proposed)
    elif status != COMPLETED and (failure := table.failures.get(index)) is not None:
        words["errorType"] = type_name_of(failure.error)
        words["error"] = cut(failure.message)
    return words, result


def shows_picture(result: Any) -> bool:
    """True if `find_picture` would try to make one. Costs little, and only reads attributes of the result."""
    try:
        return any(_encoder_of(value) is not None for value in _candidates(result))
    except Exception:  # noqa: BLE001 - users' code, asked for its attributes
        return False


def result_of(table: ItemTable, index: int) -> Any:
    """The item's result; or a text with the reason if it is not kept, or can't be read from the journal."""
    try:
        return table.result_of(index)
    except (JobStateError, JournalError) as error:
        return f"<{error}>"


def _proposed_alt(table: ItemTable, index: int) -> Any:
    with suppress(BaseException):  # asks the result, which is a user's
        return JobItem(table, index).proposed_alt
    return None


def encode(value: Any) -> str:
    """JSON without spaces; characters that are no text are escaped for showing."""
    return shown_json(value, separators=(",", ":"))


def as_event(name: str, data: str) -> bytes:
    """A server-sent event. ``data`` is JSON, which has no line breaks."""
    return f"event: {name}\ndata: {data}\n\n".encode()


def cut(text: str, most: int = IN_LIST) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= most else text[:most] + "…"


def brief(value: Any) -> Any:
    """The value, as JSON has it, if it is short; else its beginning as a text."""
    kind = type(value)
    if kind is str:
        return cut(value)
    if (kind is int and -1e15 < value < 1e15) or (kind is float and math.isfinite(value)):
        return value
    if _is_short(value):
        with suppress(Exception):  # json asks what may raise anything, and has no form for many values
            text = shown_json(value, separators=(",", ":"), allow_nan=False)
            if len(text) <= IN_LIST:
                return json.loads(text)
    return short_repr(value)


def _is_short(value: Any) -> bool:
    """True if looking at the whole value costs little."""
    room, rest = _FEW, [value]
    try:
        while rest:
            one = rest.pop()
            if isinstance(one, dict | list | tuple | set | frozenset):
                room -= len(one)
                if room < 0:
                    return False
                rest += one
                rest += one.values() if isinstance(one, dict) else ()
            elif isinstance(one, str | bytes | bytearray) and len(one) > IN_LIST:
                return False
    except BaseException:  # noqa: BLE001 - users' kinds of lists, whose lengths may be anything
        return False
    return True


def short_repr(value: Any, most: int = IN_LIST) -> str:
    """The value's ``repr``, or its beginning; for containers and texts at a cost that does not grow with them."""
    if isinstance(value, bytes | bytearray) and len(value) > most:
        return f"{cut(repr(bytes(value[:most])), most)} ({len(value):,} bytes)"
    return cut(repr_of(value) if _is_short(value) else beginning_of(value), most)


# -- One item with all its facts, which the page shows when it is opened. ----------------------------------------------

#: The most characters of each text.
MAX_CHARS = 100_000
#: The most bytes of output that are shown while an item runs.
MOST_OUTPUT = 8_000


def details_of(book: ShownJob, index: int) -> dict[str, Any]:
    """Return an item's details for JSON.

    The cost is the ``repr`` of the item and of its result, which may run users' code.
    """
    item: JobItem = JobItem(book.table, index)
    completed = item.status == "completed"
    details: dict[str, Any] = {
        "jobId": book.id,
        "index": index,
        "id": as_json(item.id),
        "label": item.label,
        "status": str(item.status),
        "attempts": item.attempts,
        "mostAttempts": book.options.retry.max_retries + 1,
        "elapsed": round(item.elapsed, 6) if item.attempts else 0,
        "cpu": item.cpu_seconds,
        "peakMemory": item.peak_memory,
        "fraction": item.fraction,
        "keepsOutput": book.options.capture_output,
        "payload": short_repr(item.payload, MAX_CHARS),
        "history": [
            {
                "error": cut(tried.error, MAX_CHARS),
                "duration": round(tried.duration, 6),
                "pid": tried.pid,
            }
            for tried in item.history
        ],
    }
    texts = {"error": item.error, "traceback": item.traceback, "stdout": item.stdout, "stderr": item.stderr}
    if completed:
        result = result_of(book.table, index)
        texts["result"] = _as_text(result)
        details["picture"] = shows_picture(result)
        details["resultType"] = type(result).__name__
    return details | {name: cut(text, MAX_CHARS) for name, text in texts.items() if text}


def as_it_runs(lane: LaneNow, offset: float, *, is_here: bool, keeps_output: bool) -> dict[str, Any]:
    """Return for JSON the facts of the item that the lane runs. Costs 0.1 ms: it reads in /proc.

    ``offset`` turns moments of the monotonic clock into seconds since the epoch. ``is_here``: the worker is a process
    of this machine; ``keeps_output``: the item's output goes into a file for that item only.
    """
    told: dict[str, Any] = {
        "worker": lane.number,
        "pid": lane.pid,
        "since": milliseconds(lane.since + offset),
        "fraction": round(lane.fraction, 4),
    }
    if not is_here or lane.pid is None:
        return told
    use = use_of(lane.pid)
    if use is not None:
        told |= {"workerCpu": use.cpu, "memory": use.memory}
    for name, descriptor in (("stdout", 1), ("stderr", 2)) if keeps_output else ():
        # A zero byte precedes this item's output, if others have written to the file, see `captured_file`.
        written = (end_of_file(lane.pid, descriptor, MOST_OUTPUT) or b"").rpartition(b"\0")[2]
        if written:
            told[name] = written.decode(errors="replace")
    return told


def _as_text(value: Any) -> str:
    """Return short plain containers as JSON over several lines, texts as they are, and all other values as ``repr``."""
    if isinstance(value, str):
        return value
    brief = short_repr(value, MAX_CHARS)
    if isinstance(value, dict | list | tuple) and "..." not in brief:
        try:
            return json_text(value, indent=2, allow_nan=False)
        except Exception:  # noqa: BLE001 - json asks what may raise anything
            return brief
    return brief


# -- The picture in a result, if it has one, as bytes that a browser shows. --------------------------------------------
#
# A picture is a PIL image; bytes that are a PNG, JPEG, GIF or WebP; or an object that notebooks show as one
# (``_repr_png_``), or that can be saved as one (a matplotlib figure). It may also be in a key or a field of the
# result.

#: The most bytes of a picture that is sent.
MOST_BYTES = 32 << 20
#: Pixels of the longer side of a PIL image that is sent.
LONGEST_SIDE = 1600
#: The same for a picture in a row; and the most bytes of one that is sent there unchanged, if Pillow can't shrink it.
SMALL_SIDE, SMALL_BYTES = 96, 64 << 10
#: The most keys or fields of a result that are looked at.
_MOST_FIELDS = 50


class Picture(NamedTuple):
    """An encoded picture."""

    media_type: str
    data: bytes


def find_picture(result: Any) -> Picture | None:
    """Return the first picture in a result, None if there is none. Errors of the result's own code are raised."""
    for value in _candidates(result):
        encode_it = _encoder_of(value)
        picture = None if encode_it is None else encode_it()
        if picture is not None and len(picture.data) <= MOST_BYTES:
            return picture
    return None


def small(result: Any) -> Picture | None:
    """Return the picture for a row of a list; None also if it is big, and Pillow is not installed to shrink it."""
    picture = find_picture(result)
    if picture is None or len(picture.data) <= SMALL_BYTES // 8:
        return picture
    try:
        from PIL import Image  # not every program has it

        with Image.open(io.BytesIO(picture.data)) as image:
            image.thumbnail((SMALL_SIDE, SMALL_SIDE))
            return _saved(image)
    except Exception:  # noqa: BLE001 - Pillow can't read it, or is not installed
        return picture if len(picture.data) <= SMALL_BYTES else None


def _candidates(result: Any) -> Iterator[Any]:
    yield result
    if isinstance(result, Mapping):
        yield from list(result.values())[:_MOST_FIELDS]
    elif isinstance(result, tuple | list):
        yield from result[:_MOST_FIELDS]
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        yield from (getattr(result, field.name, None) for field in dataclasses.fields(result)[:_MOST_FIELDS])


def _encoder_of(value: Any) -> Callable[[], Picture | None] | None:
    """Return what makes a picture of the value, at a cost; None for a value that is none."""
    if isinstance(value, bytes | bytearray | memoryview):
        kind = _media_type(bytes(value[:16]))
        return None if kind is None else lambda: Picture(kind, bytes(value))
    if isinstance(value, type) or value is None or isinstance(value, str | int | float):
        return None
    # Known by names, so that the libraries need not be installed.
    names = {(kind.__module__, kind.__name__) for kind in type(value).__mro__}
    if ("PIL.Image", "Image") in names:
        return partial(_of_image, value)
    if any(module == "matplotlib.figure" for module, _ in names) and hasattr(value, "savefig"):
        return partial(_of_figure, value)
    return partial(_of_notebook, value) if callable(getattr(value, "_repr_png_", None)) else None


def _of_image(value: Any) -> Picture:
    image = value.copy()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return _saved(image)


def _of_figure(value: Any) -> Picture:
    file = io.BytesIO()
    value.savefig(file, format="png")
    return Picture("image/png", file.getvalue())


def _of_notebook(value: Any) -> Picture | None:
    data = value._repr_png_()
    if isinstance(data, tuple):  # with metadata
        data = data[0]
    return Picture("image/png", bytes(data)) if data and _media_type(bytes(data[:16])) == "image/png" else None


def _saved(image: Any) -> Picture:
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGB")
    file = io.BytesIO()
    image.save(file, format="PNG")
    return Picture("image/png", file.getvalue())


def _media_type(start: bytes) -> str | None:
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if start.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if start[:4] == b"RIFF" and start[8:12] == b"WEBP" else None
