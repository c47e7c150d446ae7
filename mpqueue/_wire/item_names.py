"""The names of an item: its id, and the short label by which people see it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from mpqueue._plain import STANDARD, field_of, is_path, standard_types
from mpqueue._text import beginning_of, digits, visible_line
from mpqueue.errors import shown


class IdRule(StrEnum):
    """The source of an item's id; a job's first item decides for the whole job."""

    KEY = "key"  #: ``item["id"]``
    ATTRIBUTE = "attribute"  #: ``item.id``
    POSITION = "position"  #: its place in the list, from 0


def find_id(rule: IdRule, item: Any, position: int) -> Hashable:
    """The id of one item."""
    if rule is IdRule.POSITION:
        return position
    found: Hashable = item["id"] if rule is IdRule.KEY else item.id
    return found


def rule_of(item: Any) -> IdRule:
    """Return the rule for the ids of a job with this first item."""
    if isinstance(item, Mapping):
        return IdRule.KEY if "id" in item else IdRule.POSITION
    return IdRule.ATTRIBUTE if not isinstance(item, type) and hasattr(item, "id") else IdRule.POSITION


def ids_of(rule: IdRule, items: Sequence[Any], first: int = 0) -> list[Hashable] | None:
    """Return the ids of these items, from that position on; None if they are their positions.

    Raises TypeError for an item without one.
    """
    if rule is IdRule.POSITION:
        return None
    try:
        if rule is IdRule.KEY:
            return [item["id"] for item in items]
        return [item.id for item in items]
    except (KeyError, TypeError, IndexError, AttributeError):
        raise _missing_id(rule, items, first) from None


def _missing_id(rule: IdRule, items: Sequence[Any], first: int) -> TypeError:
    for position, item in enumerate(items, first):
        try:
            find_id(rule, item, position)
        except (KeyError, TypeError, IndexError, AttributeError):
            break
    where = 'an "id" key' if rule is IdRule.KEY else "an .id attribute"
    return TypeError(f"items[{position}]: expected {where}, as the first item has, got {shown(item)}")


# -- The label of an item for people: a short text, instead of its position or beside its id. --------------------------
#
# It is made from the item when it is displayed, and not kept, so it costs nothing if nothing is displayed. Making one
# may run users' code: an item's ``__str__``, a mapping's methods, the function given as ``label=``. Threads that must
# not run such code use `plain_label`, which returns None for such items.
#
# Nothing here raises, for any item.

#: The source of labels: a function of the item, or one of its keys or attributes; None: the rules of `label_of`.
Label = Callable[[Any], object] | str | None

#: The most characters of a label.
MAX_LABEL = 60
#: The keys of a mapping that are tried for its label, in this order.
NAMES = ("name", "path", "url", "id")
#: Types whose text runs no users' code, known by their identity.
_SCALARS = frozenset({str, int, float, complex, bool, bytes, type(None)})
#: The same, of modules that few workers load.
_LATER = {**STANDARD, "datetime": ("date", "datetime", "time", "timedelta")}
#: The most entries of a mapping, tuple or list that threads without users' code read.
_FEW = 100


def check_label(label: object) -> None:
    """Raise TypeError unless the value can choose a label."""
    if label is not None and not isinstance(label, str) and not callable(label):
        raise TypeError(
            f"label: expected a function of an item, or the key or attribute that names it, got {shown(label)} of type "
            f"{type(label).__name__}"
        )


def label_of(item: Any, chosen: Label = None) -> str | None:
    """Return the item's label; None if its text says nothing. May run users' code.

    It is the first of these: the ``chosen`` one; the name of a path; a mapping's ``name``, ``path``, ``url`` or ``id``;
    the item's text. In one line; the middle of a long label is left out.
    """
    try:
        found = None if chosen is None else _chosen(item, chosen)
        return _label(item) if found is None else found
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - users' code
        return None


def plain_label(item: Any, chosen: Label = None) -> str | None:
    """Return the item's label without running users' code; None if that would be needed."""
    if not (chosen is None or type(chosen) is str) or not _is_plain(item):
        return None
    return label_of(item, chosen)


def named(item_id: object, label: str | None) -> str:
    """An item in an error message: its id, with its label if that differs: ``3 (a.jpg)``."""
    text = shown(item_id)
    if label is None or label in (text, _text(item_id)):
        return text
    return f"{text} {label}" if label.startswith("(") and label.endswith(")") else f"{text} ({label})"


def _chosen(item: Any, chosen: Callable[[Any], object] | str) -> str | None:
    """The chosen label; None if the item has none, or the choice raises."""
    try:
        if not isinstance(chosen, str):
            return _label(chosen(item))
        return _label(item.get(chosen) if isinstance(item, Mapping) else field_of(item, chosen))
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - users' code
        return None


def _label(value: Any) -> str | None:
    if type(value) not in _SCALARS and isinstance(value, Mapping):
        for name in NAMES:
            found = value.get(name)
            if found is not None and (label := _text(found)) is not None:
                return label
    return _text(value)


def _text(value: Any) -> str | None:
    """Return a value in one line; None if that says nothing: for None, empty values, and objects without a text."""
    if type(value) is str and len(value) <= MAX_LABEL and value.isprintable():  # like most labels
        return value.strip() or None
    if type(value) is int:
        return _cut(digits(value))
    if isinstance(value, str):
        text = str.__str__(value)
    elif is_path(value):
        text = value.name or str(value)
    elif isinstance(value, bool):
        text = repr(value)
    elif isinstance(value, bytes | bytearray | list | tuple | dict | set | frozenset | deque):
        text = beginning_of(value)
    else:
        text = "" if value is None else _text_of_object(value)
    text = visible_line(_cut(text)).strip()
    return _cut(text) if text else None


def _text_of_object(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if type(shape) is tuple and shape:  # an array or a table has a long text, which is slow to make
        return f"{type(value).__name__} {' × '.join(map(str, shape))}"
    text = str.__str__(str(value))
    return "" if text.startswith("<") else text


def _cut(text: str) -> str:
    """The text; if it is long, without its middle, since paths and addresses differ at their ends."""
    if len(text) <= MAX_LABEL:
        return text
    head = (MAX_LABEL - 1) // 2
    return f"{text[:head]}…{text[head + 1 - MAX_LABEL :]}"


def _is_plain(item: Any) -> bool:
    kind = type(item)
    if _is_scalar(item):
        return True
    if kind is dict:
        return len(item) <= _FEW and all(type(key) is str for key in item) and _are_scalars(item.values())
    return (kind is tuple or kind is list) and len(item) <= _FEW and _are_scalars(item)


def _are_scalars(values: Iterable[Any]) -> bool:
    return all(map(_is_scalar, values))


def _is_scalar(value: Any) -> bool:
    return type(value) in _SCALARS or type(value) in standard_types(_LATER)
