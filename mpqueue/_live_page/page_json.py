"""The JSON for the browser: the wire form of items, cut if it is too long for a list.

The same as in `JobProgress.to_dict`, with more keys: the item's ``index`` and ``label``, the seconds that its last try
took, and whether its result has a picture. Errors of users' objects are contained here.
"""

from __future__ import annotations

import json
import math
from typing import Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue._live_page.items.pictures import has_picture
from mpqueue._queue.job_items import JobItem, as_json
from mpqueue._text import beginning_of, repr_of, shown_json
from mpqueue.errors import JobStateError, JournalError, type_name_of
from mpqueue.status import COMPLETED, ITEM_CODES

#: Characters of a result or an error in the list of items; an item's own view has more.
IN_LIST = 300
#: The most values in a result, counted through all its containers, that are written as JSON.
_FEW = 100

_PLAIN = frozenset({type(None), bool, int, float, str, list, tuple})
_NO_PICTURE = frozenset({type(None), bool, int, float, str})
#: The types of ids that are compared as they are.
_TEXTS = frozenset({int, str})


def encode_item(table: ItemTable, index: int, status: int) -> str:
    """One item of a list, as JSON; with its ``label`` where that is not its id. Runs code of users."""
    texts, result = _texts_of(table, index, status)
    parts = [f'"index":{index},"status":"{ITEM_CODES[status]}","attempts":{table.attempts[index]}']
    if elapsed := table.elapsed[index]:
        parts.append(f'"elapsed":{float(f"{elapsed:.4g}")!r}')
    parts += [f'"{name}":{text}' for name, text in texts.items()]
    if type(result) not in _NO_PICTURE and shows_picture(result):
        parts.append('"picture":true')
    return f"{{{','.join(parts)}}}"


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
    texts, _ = _texts_of(table, index, table.status[index])
    return " ".join(json.loads(text) if text[0] == '"' else text for text in texts.values()).lower()


def _texts_of(table: ItemTable, index: int, status: int) -> tuple[dict[str, str], Any]:
    """Return the words of a row about its item, each as JSON, and the result; None if there is none."""
    item_id, result = table.id_of(index), None
    texts = {"id": brief_json(item_id) if type(item_id) is int else encode(as_json(item_id))}
    label = table.label_at(index)
    if label is not None and label != (item_id if type(item_id) is str else brief_json(item_id)):
        texts["label"] = encode(label)
    if status == COMPLETED and table.has_result(index):
        result = result_of(table, index)
        texts["result"] = brief_json(result)
        if type(result) not in _PLAIN and (proposed := _proposed_alt(table, index)) is not None:
            texts["proposedAlt"] = brief_json(proposed)
    elif status != COMPLETED and (failure := table.failures.get(index)) is not None:
        texts["errorType"] = encode(type_name_of(failure.error))
        texts["error"] = encode(cut(failure.message))
    return texts, result


def shows_picture(result: Any) -> bool:
    """True if a picture of the item's result can be asked for."""
    try:
        return has_picture(result)
    except Exception:  # noqa: BLE001 - users' code, asked for its attributes
        return False


def result_of(table: ItemTable, index: int) -> Any:
    """The item's result; or a text with the reason if it is not kept, or can't be read from the journal."""
    try:
        return table.result_of(index)
    except (JobStateError, JournalError) as error:
        return f"<{error}>"


def _proposed_alt(table: ItemTable, index: int) -> Any:
    try:
        return JobItem(table, index).proposed_alt
    except BaseException:  # noqa: BLE001 - asks the result, which is a user's
        return None


def encode(value: Any) -> str:
    """JSON without spaces; characters that are no text are escaped for showing."""
    return shown_json(value, separators=(",", ":"))


def as_event(name: str, data: str | bytes) -> bytes:
    """A server-sent event. ``data`` is JSON, which has no line breaks."""
    body = data if isinstance(data, bytes) else data.encode()
    return b"event: %s\ndata: %s\n\n" % (name.encode(), body)


def cut(text: str, most: int = IN_LIST) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= most else text[:most] + "…"


def brief_json(value: Any) -> str:
    """The value as JSON if it is short, else its beginning as a text."""
    kind = type(value)
    if kind is int and -1e15 < value < 1e15:
        return str(value)
    if kind is str:
        return encode(cut(value))
    if kind is float and math.isfinite(value):
        return repr(value)
    if _is_short(value):
        text = encode_or_none(value)
        if text is not None and len(text) <= IN_LIST:
            return text
    return encode(short_repr(value))


def encode_or_none(value: Any) -> str | None:
    """The value as JSON; None if it has no JSON form."""
    try:
        return shown_json(value, separators=(",", ":"), allow_nan=False)
    except Exception:  # noqa: BLE001 - json asks what may raise anything
        return None


def _is_short(value: Any) -> bool:
    """True if looking at the whole value costs little."""
    try:
        return _has_few_parts(value)
    except BaseException:  # noqa: BLE001 - users' kinds of lists, whose lengths may be anything
        return False


def _has_few_parts(value: Any) -> bool:
    room, rest = _FEW, [value]
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
    return True


def short_repr(value: Any, most: int = IN_LIST) -> str:
    """The value's ``repr``, or its beginning; for containers and texts at a cost that does not grow with them."""
    if isinstance(value, bytes | bytearray) and len(value) > most:
        return f"{cut(repr(bytes(value[:most])), most)} ({len(value):,} bytes)"
    return cut(repr_of(value) if _is_short(value) else beginning_of(value), most)
