"""The policy by which failed items are tried again: a value, with no clock and no timer.

`RetryPolicy.decide` is a pure function of the attempt, the error and a random source; the scheduler's heap waits for
the delay.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any, NamedTuple

from mpqueue._text import seconds_in
from mpqueue.errors import GiveUp, PicklingError, RemoteError, Retry, shown, text_of, type_name_of, typed

__all__ = [
    "RetryPolicy",
]

ErrorTypes = tuple[type[BaseException], ...]


class RetryAfter(NamedTuple):
    """Try the item again ``delay`` seconds from now."""

    delay: float


class Fail(NamedTuple):
    """The item has failed for good; ``reason`` says which rule decided.

    ``error``, if there is one, is the error that the item fails with: the policy is at fault.
    """

    reason: str
    error: RuntimeError | None = None


def _type_tuple(name: str, value: Any) -> ErrorTypes:
    types = value if isinstance(value, tuple) else (value,)
    for entry in types:
        if not (isinstance(entry, type) and issubclass(entry, BaseException)):
            within = "" if entry is value else f" in {shown(value)}"
            raise TypeError(f"{name}: expected exception types, got {shown(entry)}{within}")
    return types


def check_number(name: str, value: Any, *, low: float, integer: bool = False, exclusive: bool = False) -> Any:
    """Return the value. Raises TypeError or ValueError unless it is a finite number from ``low`` up."""
    # Checks the type: the value itself can claim any class.
    if issubclass(type(value), bool) or not issubclass(type(value), int if integer else (int, float)):
        wanted = "a whole number" if integer else "a number"
        raise TypeError(f"{name}: expected {wanted}, got {shown(value)} of type {type(value).__name__}")
    if not _is_finite(value) or value < low or (exclusive and value == low):
        kind = "a whole number" if integer else "a finite number"
        bound = f"above {low:g}" if exclusive else f"of at least {low:g}"
        raise ValueError(f"{name}: expected {kind} {bound}, got {shown(value)}")
    return value


def check_seconds(name: str, value: float | str, *, exclusive: bool = False) -> float:
    """Return the seconds that a number, or a text such as "90s" or "1h30m", means. Raises TypeError or ValueError."""
    if isinstance(value, str):
        try:
            value = seconds_in(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    check_number(name, value, low=0, exclusive=exclusive)
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return False


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The rule for how often and when a failed item is tried again.

    ``max_retries`` counts the tries after the first: with 3, an item has at most 4 tries. The delay before retry *k*
    (from 1) is ``base_delay * factor ** (k - 1)`` seconds, at most ``max_delay``, and is then moved by at most
    ``jitter`` (0 to 1) of itself, evenly in both directions. Both may be texts, such as ``"5m"``. Errors of the types
    ``retry_on`` are retried, except those of ``give_up_on``. ``SystemExit``, ``KeyboardInterrupt`` and other types
    outside `Exception` are retried under the default ``retry_on``. A waiting item holds no worker.

    Raises TypeError or ValueError for values out of range, also nan and infinity.
    """

    max_retries: int = 3
    base_delay: float | str = 2.0
    factor: float = 2.0
    max_delay: float | str | None = None
    jitter: float = 0.0
    retry_on: ErrorTypes | type[BaseException] = (Exception,)
    give_up_on: ErrorTypes | type[BaseException] = ()

    def __post_init__(self) -> None:
        check_number("max_retries", self.max_retries, low=0, integer=True)
        object.__setattr__(self, "base_delay", check_seconds("base_delay", self.base_delay))
        check_number("factor", self.factor, low=0)
        if self.max_delay is not None:
            object.__setattr__(self, "max_delay", check_seconds("max_delay", self.max_delay))
        check_number("jitter", self.jitter, low=0)
        if self.jitter > 1:
            raise ValueError(f"jitter: expected a fraction from 0 to 1, got {shown(self.jitter)}")
        object.__setattr__(self, "retry_on", _type_tuple("retry_on", self.retry_on))
        object.__setattr__(self, "give_up_on", _type_tuple("give_up_on", self.give_up_on))

    def delay(self, retry: int, rng: random.Random) -> float:
        """Seconds to wait before retry number ``retry`` (from 1)."""
        try:
            delay: float = float(self.base_delay) * self.factor ** (retry - 1)
        except OverflowError:
            delay = MAX_DELAY if self.base_delay else 0.0
        delay = min(delay, MAX_DELAY if self.max_delay is None else float(self.max_delay), MAX_DELAY)
        if self.jitter:
            delay *= 1.0 + self.jitter * (2.0 * rng.random() - 1.0)
        return delay

    def decide(self, attempt: int, error: BaseException, rng: random.Random) -> RetryAfter | Fail:
        """Decide about an item whose try number ``attempt`` (from 1) failed with ``error``."""
        if _matches(error, (GiveUp,)):
            return Fail("the handler gave up")
        if isinstance(error, PicklingError):
            return Fail("what can't be pickled once can't be pickled the next time")
        if attempt > self.max_retries:
            return Fail(f"no tries left after {attempt}")
        if isinstance(error, Retry):
            return RetryAfter(
                self.delay(attempt, rng) if error.delay is None else min(max(0.0, error.delay), MAX_DELAY)
            )
        if _matches(error, self.give_up_on):
            return Fail("its type is in give_up_on")
        is_base_only = not isinstance(error, Exception) or isinstance(error, RemoteError)
        if not _matches(error, self.retry_on) and not (self.retry_on == (Exception,) and is_base_only):
            return Fail("its type is not in retry_on")
        return RetryAfter(self.delay(attempt, rng))


def decide_by(policy: RetryPolicy, attempt: int, error: BaseException, rng: random.Random) -> RetryAfter | Fail:
    """Return the policy's decision. If a user's policy raises or returns none, `Fail` with an error that says so."""
    try:
        decision = policy.decide(attempt, error, rng)
    except BaseException as raised:  # noqa: BLE001 - whatever a user's policy raises
        return _at_fault(policy, error, f"expected a decision, got {typed(type_name_of(raised), text_of(raised))}")
    if type(policy) is RetryPolicy:
        return decision
    if type(decision) is RetryAfter:
        delay: Any = decision.delay
        if type(delay) in (float, int) and 0 <= delay <= MAX_DELAY:
            return decision
        import numbers  # only for numbers of other types, like NumPy's

        try:
            if isinstance(delay, numbers.Real) and 0 <= (seconds := float(delay)) < math.inf:
                return RetryAfter(min(seconds, MAX_DELAY))
        except Exception:  # noqa: BLE001, S110 - a number of a user's class
            pass
        return _at_fault(policy, error, f"expected a delay of a finite number of seconds from 0 up, got {shown(delay)}")
    if type(decision) is Fail:
        return decision
    return _at_fault(policy, error, f"expected decide() to return what RetryPolicy.decide does, got {shown(decision)}")


def _at_fault(policy: RetryPolicy, cause: BaseException, what: str) -> Fail:
    error = RuntimeError(f"retry policy {type(policy).__name__}: {what}")
    error.__cause__ = cause
    return Fail("the policy is at fault", error)


#: With these types, a filter means the stand-in itself.
_STAND_IN = ("mpqueue.errors.RemoteError", "mpqueue.errors.MPQueueError")
#: Seconds; no computed delay is longer (a factor of 10 reaches infinity in 308 tries).
MAX_DELAY = 10 * 365 * 86400.0


def _matches(error: BaseException, types: ErrorTypes | type[BaseException]) -> bool:
    """Like isinstance, but for a `RemoteError` it checks the type that the error stands for."""
    if not isinstance(error, RemoteError):
        return isinstance(error, types)
    names = (*error.bases, *_STAND_IN)
    return any(f"{entry.__module__}.{entry.__qualname__}" in names for entry in _type_tuple("types", types))
