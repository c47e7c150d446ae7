"""Errors that were raised here and that users keep: with all their information, without our objects.

A traceback holds the frames of all calls at that time, and so the lane, the segments and the whole queue, for as long
as the error is referenced.
"""

from __future__ import annotations

import traceback


def text_of(error: BaseException) -> str:
    """Return the error's type and text; the text of some errors can't be read."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:
        return f"{type(error).__name__} (its str() fails)"


def let_go(error: BaseException) -> str:
    """Return the error's traceback as text; afterwards neither it nor any error that led to it holds a frame."""
    text = "".join(traceback.format_exception(error))
    seen: set[int] = set()
    linked: list[BaseException | None] = [error]
    while linked:
        each = linked.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            linked += [each.__cause__, each.__context__]
            linked += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return text
