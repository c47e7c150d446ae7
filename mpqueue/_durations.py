"""Times as texts: ``90``, ``90s``, ``15m``, ``3h50m``, ``1d``, and SLURM's ``1-12:00:00``."""

from __future__ import annotations

import re

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
    form = next((form for form in forms if words and form.fullmatch(words)), None)
    if form is None:
        raise ValueError(
            f"expected a time such as 90, 90s, 15m, 3h50m, 1d or 1-12:00:00 (a number alone: seconds), got {text!r:.60}"
        )
    found = form.fullmatch(words)
    assert found is not None
    units = ("s",) if form is _PLAIN else tuple(_UNITS)
    seconds = sum(float(number or 0) * _UNITS[unit] for number, unit in zip(found.groups(), units, strict=True))
    if seconds > _MOST:
        raise ValueError(f"expected a time of at most {_MOST / _UNITS['d']:.0f}d, got {text!r}")
    return seconds
