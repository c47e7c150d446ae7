"""Numbers as texts for people, with few digits and a fitting unit."""

from __future__ import annotations

from datetime import datetime


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
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d")


def moment(at: float) -> str:
    """A moment as text, by the local clock: ``2026-11-27 14:05``."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def _digits(value: float) -> str:
    """A number with at most three digits, without zeros at its end."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
