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
    character, code = found[0], ord(found[0])
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


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
            if issubclass(type(x), int):
                return _long_number(x)
            return f"<{type(x).__name__}: its repr() raised {type(error).__name__}>"

    def repr_instance(self, x: Any, level: int) -> str:
        """Return the ``repr`` of an object, shortened."""
        text = _plain(repr(x))
        return text if len(text) <= self.maxother else super().repr_instance(x, level)

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 - the base's
        """Return the ``repr`` of a number, however long, shortened."""
        text = int.__repr__(x) if abs(x) < 1 << 1000 else _long_number(x)
        return text if len(text) <= self.maxlong else f"{text[: self.maxlong]}..."


_shortened = _Shortened(20)


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


#: Seconds of each unit.
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"(\d+(?:\.\d+)?)"
_PLAIN = re.compile(_NUMBER, re.ASCII)
_IN_UNITS = re.compile("".join(f"(?:{_NUMBER}{unit})?" for unit in _UNITS), re.ASCII)
#: days-hours, days-hours:minutes, days-hours:minutes:seconds, hours:minutes:seconds. SLURM's other forms are ambiguous.
_CLUSTERS = (
    re.compile(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII),
    re.compile(r"()(\d+):(\d+):(\d+)", re.ASCII),
)
_LONGEST = 40
#: The longest time that a thread can wait, in seconds.
_MOST = 1e9


def seconds_in(text: str) -> float:
    """Return the seconds that a text means. Raises ValueError."""
    words = text.strip().lower() if len(text) <= _LONGEST else ""
    forms = (_PLAIN, _IN_UNITS, *_CLUSTERS)
    found = next((found for form in forms if words and (found := form.fullmatch(words))), None)
    if found is None:
        raise ValueError(
            f"expected a time such as 90, 90s, 15m, 3h50m, 1d or 1-12:00:00 (a number alone: seconds), got {text!r:.60}"
        )
    units = ("s",) if found.re is _PLAIN else tuple(_UNITS)
    seconds = sum(float(number or 0) * _UNITS[unit] for number, unit in zip(found.groups(), units, strict=True))
    if seconds > _MOST:
        raise ValueError(f"expected a time of at most {_MOST / _UNITS['d']:.0f}d, got {text!r}")
    return seconds


def seconds(value: float) -> str:
    """Return seconds as text: ``41 ns``, ``41 ms``, ``1.93 s``, ``3 min 12 s``, ``5 h 02 min``."""
    if 0 < value < 0.9995e-6:
        return f"{value * 1e9:.0f} ns"
    if value < 0.9995e-3:
        return f"{value * 1e6:.0f} us"
    if value < 0.9995:
        return f"{_digits(value * 1e3)} ms"
    if value < 100:
        return f"{_digits(value)} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def minutes(value: float) -> str:
    """Seconds as ``m:ss``, from an hour on as ``h:mm:ss``."""
    whole, second = divmod(round(value), 60)
    hour, minute = divmod(whole, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def took(value: float) -> str:
    """The seconds that a job took: ``0.3 s``, from a minute on ``m:ss``."""
    return f"{value:.1f} s" if value < 60 else minutes(value)


def size(count: float) -> str:
    """Bytes as text: ``812 B``, ``3.1 kB``, ``31 MB``."""
    if count < 1000:
        return f"{count:.0f} B"
    if count < 999_500:
        return f"{_digits(count / 1e3)} kB"
    return f"{_digits(count / 1e6)} MB" if count < 999_500_000 else f"{_digits(count / 1e9)} GB"


def number(count: float) -> str:
    """A whole number as text: ``2,000``."""
    return f"{count:,.0f}"


def counted(count: int, noun: str) -> str:
    """A number of things as text: ``1 item``, ``2,000 items``, ``2 retries``."""
    if count != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number(count)} {noun}"


def percent(share: float) -> str:
    """A share of 1 as text: ``62%``; small ones have one more digit."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def done(fraction: float) -> str:
    """The part that is done as text, with ``100%`` only at the end."""
    return f"{100 if fraction >= 1 else min(99, int(100 * fraction + 1e-9))}%"


def rate(per_second: float) -> str:
    """A rate as text: ``0.52/s``, ``12.3/s``, ``12,346/s``."""
    return f"{number(per_second)}/s" if per_second >= 999.5 else f"{per_second:.3g}/s"


def times(factor: float) -> str:
    """A factor as text: ``1.9x``, ``12x``."""
    return f"{factor:.1f}x" if factor < 9.95 else f"{number(factor)}x"


def day(at: float) -> str:
    """A day as text, by the local clock: ``2026-11-27``."""
    return _local_time(at, "%Y-%m-%d")


def moment(at: float) -> str:
    """A moment as text, by the local clock: ``2026-11-27 14:05``."""
    return _local_time(at, "%Y-%m-%d %H:%M")


def _local_time(at: float, form: str) -> str:
    from datetime import datetime  # few processes need it

    return datetime.fromtimestamp(at).astimezone().strftime(form)


def _digits(value: float) -> str:
    """A number with at most three digits, without zeros at its end."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
