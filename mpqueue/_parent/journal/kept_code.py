"""Code in what a journal keeps: functions, and classes of a script, are pickled with the code that Python compiled.

Another version of Python has other instructions, and running those of this one ends the interpreter. So such a pickle
says which Python it needs, and is refused by any other before anything of it is loaded. What is pickled by reference
needs none.
"""

from __future__ import annotations

import sys

#: The Python whose code this one can run.
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
#: What the pickle of a code object names.
_CODE = b"CodeType"
#: How a stamped pickle begins; no other does.
_STAMP = b"code of Python "


class ForeignCodeError(Exception):
    """A pickle has code that another Python compiled."""


def has_code(data: bytes) -> bool:
    """True where code may be in the pickle."""
    return _CODE in data


def stamped(data: bytes) -> bytes:
    """The pickle, which says which Python it needs if it has code."""
    return b"%b%b\n%b" % (_STAMP, VERSION.encode(), data) if has_code(data) else data


def unstamped(data: bytes) -> bytes:
    """The pickle again. Raises `ForeignCodeError`."""
    if not data.startswith(_STAMP):
        return data
    version, _, data = data[len(_STAMP) :].partition(b"\n")
    check_version(version.decode())
    return data


def check_version(version: str) -> None:
    """Raise `ForeignCodeError` unless code of that Python can be run by this one."""
    if version != VERSION:
        raise ForeignCodeError(f"it has code that Python {version} compiled, and this is Python {VERSION}")
