r"""The two rules for text that goes out: how it is *shown* to people, and how it is *written* for programs.

File names, lines of stdin, errors and results may hold things that are no text: bytes that are no UTF-8 (in Python lone
surrogates, ``"\udcff"`` for the byte 0xFF), control characters, integers that Python refuses to print.

- **Shown** (terminal, error messages, logs of the command line, reports, the live page): things that are no text, or
  that would steer a terminal or turn the direction of a line, are escaped as in a Python literal: ``\udcff``, ``\x1b``,
  ``\u202e``. A long integer is its beginning and its size. See `visible`, `visible_line`, `label`, `shown`. A stream
  may have an encoding that lacks some characters, such as those of files and pipes on Windows: there these are escaped,
  too, see `fitting`.
- **Written** (files, pipes): exactly. Plain text has the bytes themselves (``surrogateescape``), JSON has ``\udcff``,
  which any JSON reader turns back, and stores that take UTF-8 only have the escaped form. A long integer is
  hexadecimal text: ``int(text, 16)`` is the integer again. See `json_text`, `encode_text`, `as_utf8`, `digits`.

Nothing here raises, for any value. Uses the standard library only: every process loads it.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from functools import cache
from typing import Any

#: The most characters of a value that an error message shows.
SHOWN = 300
#: Patterns, which `re` compiles at their first use: most programs need none. Control characters but newline and tab,
#: line separators, characters that turn a line's direction, and lone surrogates.
_HIDDEN = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
_HIDDEN_IN_LINE = "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
#: Surrogates that stand for no byte.
_NO_BYTE = "[\ud800-\udc7f\udd00-\udfff]"
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
#: The characters beside ASCII in mpqueue's own texts, each with its replacement for a stream that lacks it.
_PLAIN_FORMS = str.maketrans({"█": "#", "░": ".", "×": "x", "…": "..."})


# -- shown -------------------------------------------------------------------------------------------------------------


def visible(text: str) -> str:
    """The text as people may see it; it keeps its lines and tabs."""
    return text if text.isprintable() else re.sub(_HIDDEN, _escape, text)


def visible_line(text: str) -> str:
    """The text as people may see it, in one line: newlines and tabs are escaped as well."""
    return text if text.isprintable() else re.sub(_HIDDEN_IN_LINE, _escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return _SHORT.get(character) or _escaped(ord(character))


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def fitting(text: str, stream: object) -> str:
    """The text as a stream can write it: characters that its encoding lacks are escaped, so writing can't raise."""
    encoding = getattr(stream, "encoding", None)
    if not isinstance(encoding, str):
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN_FORMS).encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:  # Python does not know the encoding: it is the user's own stream
        return text
    return text


def label(value: object) -> str:
    """An item or its id for people, in one line: text as it is, the shortened ``repr`` of anything else."""
    return visible_line(str.__str__(value)) if isinstance(value, str) else shown(value)


def shown(value: object) -> str:
    """``repr(value)`` for an error message: at most a few lines, and never raises."""
    try:
        text = _plain(repr(value))
    except BaseException:  # noqa: BLE001 - its own code; the error message must still be made
        text = _shortened.repr(value)
    text = visible_line(text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def _plain(text: str) -> str:
    """The text as a plain str: ``repr()`` may return a str whose own methods raise."""
    return str.__str__(text)


def repr_of(value: object) -> str:
    """The value's ``repr``; if that raises, its type's name and as much more as is known."""
    try:
        return _plain(repr(value))
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - its own code
        return _shortened.repr(value)


def beginning_of(value: object) -> str:
    """The beginning of the value's ``repr``; the cost does not grow with containers and texts."""
    return _shortened.repr(value)


class _Shortened(reprlib.Repr):
    """A `Repr` that shows containers up to a number of elements and shortens each element by itself."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = SHOWN
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = most
        self.maxarray = self.maxdeque = most

    def repr1(self, x: Any, level: int) -> str:
        """Return the ``repr`` of one value at some depth; errors of its own code are contained."""
        try:
            return super().repr1(x, level)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - its own code
            return _reprless(x, error)

    def repr_instance(self, x: Any, level: int) -> str:
        """Return the ``repr`` of an object, shortened."""
        text = _plain(repr(x))
        return text if len(text) <= self.maxother else super().repr_instance(x, level)

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 - the base's
        """Return the ``repr`` of a number, however long, shortened."""
        text = int.__repr__(x) if abs(x) < 1 << 1000 else _long_number(x)
        return text if len(text) <= self.maxlong else f"{text[: self.maxlong]}..."


_shortened = _Shortened(20)


def _reprless(value: object, error: BaseException) -> str:
    if issubclass(type(value), int):
        return _long_number(value)  # type: ignore[arg-type]
    return f"<{type(value).__name__}: its repr() raised {type(error).__name__}>"


def _long_number(value: int) -> str:
    """The beginning of a number that may be too long for Python to print, and its size."""
    bits = int.bit_length(value)
    start = int.__rshift__(int.__abs__(value), max(0, bits - 64) // 4 * 4)
    sign = "-" if int.__lt__(value, 0) else ""
    return f"{sign}{start:#x}... (an int of {bits:,} bits)"


# -- written -----------------------------------------------------------------------------------------------------------


def json_text(value: Any, escape: Callable[[int], str] = "\\u{:04x}".format, **options: Any) -> str:
    r"""The value as JSON in UTF-8 that steers no terminal and has the same meaning: ``\u001b``, ``\udcff``.

    ``options`` are those of `json.JSONEncoder`; its errors are raised.
    """
    text = _encoder(**options)(value)
    # Only texts can hold such characters: outside of them JSON has only newlines.
    return text if text.isprintable() else re.sub(_HIDDEN, lambda found: escape(ord(found[0])), text)


@cache
def _encoder(**options: Any) -> Callable[[Any], str]:
    import json  # takes 1 ms, which programs that write no JSON save

    return json.JSONEncoder(ensure_ascii=False, **options).encode


def shown_json(value: Any, **options: Any) -> str:
    """The value as JSON for a page that people look at: texts hold the escapes themselves."""
    return json_text(value, "\\\\u{:04x}".format, **options)


def encode_text(text: str) -> bytes:
    """Text for a file: surrogates that stand for bytes become these bytes, any others are escaped."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return re.sub(_NO_BYTE, _escape, text).encode(errors="surrogateescape")


def as_utf8(text: str) -> str:
    """Text for a store that takes UTF-8 only: surrogates are escaped."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def digits(value: int) -> str:
    """A whole number as text: decimal, or hexadecimal if it has more digits than Python prints."""
    try:
        return int.__repr__(value)
    except ValueError:
        return hex(value)
