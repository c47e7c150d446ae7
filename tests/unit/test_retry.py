"""The retry policy: when a failed item is tried again."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._dropin.whole_map import DROPIN_RETRY
from mpqueue.errors import (
    GiveUp,
    ItemPicklingError,
    MPQueueError,
    RemoteError,
    ResultPicklingError,
    Retry,
    WorkerCrashedError,
)
from mpqueue.retry import MAX_DELAY, Fail, RetryAfter, RetryPolicy, decide_by

RNG = random.Random(0)


def remote(kind: type[BaseException]) -> RemoteError:
    """What stands in for an exception of that type, when it could not travel."""
    bases = tuple(f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__[:-1])
    return RemoteError(bases[0], "no", "a traceback", bases)


# -- delays ------------------------------------------------------------------------------------------------------------


@pytest.mark.holds("seed: retries: after 2, 4 and 8 seconds")
def test_by_default_an_item_is_tried_four_times_after_two_four_and_eight_seconds() -> None:
    policy = RetryPolicy()
    decisions = [policy.decide(attempt, ValueError(), RNG) for attempt in (1, 2, 3, 4)]
    assert decisions[:3] == [RetryAfter(2.0), RetryAfter(4.0), RetryAfter(8.0)]
    assert isinstance(decisions[3], Fail)


@pytest.mark.parametrize(
    ("policy", "first", "expected"),
    [
        pytest.param(RetryPolicy(max_delay=5.0), 1, [2.0, 4.0, 5.0, 5.0], id="none is longer than max_delay"),
        pytest.param(RetryPolicy(max_retries=10_000, factor=10), 10_000, [MAX_DELAY], id="finite however late"),
        pytest.param(RetryPolicy(base_delay=1e300, max_delay=1e300), 1, [MAX_DELAY], id="finite whatever is allowed"),
        pytest.param(RetryPolicy(max_retries=2000, base_delay=0), 1, [0.0] * 2000, id="none without base_delay"),
        pytest.param(RetryPolicy(factor=0), 1, [2.0, 0.0, 0.0], id="none after the first with a factor of zero"),
        pytest.param(DROPIN_RETRY, 1, [0.1, 0.2, 0.4], id="short ones of the calls of the drop-ins"),
    ],
)
def test_delays_grow_by_the_factor_within_their_limit(policy: RetryPolicy, first: int, expected: list[float]) -> None:
    assert [policy.delay(first + at, RNG) for at in range(len(expected))] == expected


@given(st.floats(0, 1), st.integers(1, 10), st.integers())
@settings(max_examples=50)
def test_jitter_moves_a_delay_by_its_share_at_most(jitter: float, retry: int, seed: int) -> None:
    plain = RetryPolicy().delay(retry, RNG)
    moved = RetryPolicy(jitter=jitter).delay(retry, random.Random(seed))
    assert abs(moved - plain) <= jitter * plain * (1 + 1e-9) + 1e-15 * plain  # what rounding may add


def test_jitter_moves_delays_in_both_directions() -> None:
    policy, rng = RetryPolicy(jitter=0.5), random.Random(1)
    moved = [policy.delay(1, rng) for _ in range(100)]
    assert min(moved) < 2.0 < max(moved)


# -- what is retried ---------------------------------------------------------------------------------------------------


class Hopeless(GiveUp):
    """A user's own."""


ONLY_OS, NO_LOOKUP = RetryPolicy(retry_on=(OSError,)), RetryPolicy(give_up_on=(LookupError,))


@pytest.mark.parametrize(
    ("policy", "error", "retried"),
    [
        *((RetryPolicy(), kind(), True) for kind in (SystemExit, KeyboardInterrupt, GeneratorExit)),
        *((RetryPolicy(), remote(kind), True) for kind in (SystemExit, KeyboardInterrupt, GeneratorExit)),
        (RetryPolicy(), WorkerCrashedError("gone", -11, "SIGSEGV"), True),
        (RetryPolicy(), ItemPicklingError("no"), False),
        (RetryPolicy(), ResultPicklingError("no"), False),
        *((RetryPolicy(), error, False) for error in (GiveUp("no"), Hopeless("no"), remote(GiveUp), remote(Hopeless))),
        (RetryPolicy(max_retries=0), ValueError(), False),
        (RetryPolicy(max_retries=0), Retry(delay=1), False),  # which counts as a try
        # Filters look at the type and its bases, also at those of what stands in for an exception.
        *((ONLY_OS, error, True) for error in (ConnectionResetError(), remote(ConnectionResetError))),
        *((ONLY_OS, error, False) for error in (ValueError(), remote(ValueError))),
        *((NO_LOOKUP, error, False) for error in (KeyError(), remote(KeyError))),
        *((NO_LOOKUP, error, True) for error in (ValueError(), remote(ValueError))),
        (RetryPolicy(retry_on=(KeyError,), give_up_on=(LookupError,)), KeyError(), False),
        (RetryPolicy(retry_on=(KeyError,), give_up_on=(Exception,)), Retry(), True),
        # A `RemoteError` counts as its original, unless a filter means it: it is an Exception, SystemExit is not.
        (RetryPolicy(give_up_on=(Exception,)), remote(SystemExit), True),
        (RetryPolicy(retry_on=(OSError, RuntimeError)), remote(ValueError), False),
        *((RetryPolicy(give_up_on=(kind,)), remote(ValueError), False) for kind in (RemoteError, MPQueueError)),
    ],
)
def test_what_is_tried_again(policy: RetryPolicy, error: BaseException, retried: bool) -> None:
    assert isinstance(policy.decide(1, error, RNG), RetryAfter if retried else Fail)


def test_one_type_needs_no_tuple() -> None:
    policy = RetryPolicy(retry_on=ValueError, give_up_on=KeyError)
    assert (policy.retry_on, policy.give_up_on) == ((ValueError,), (KeyError,))


@pytest.mark.parametrize(
    ("asked", "given"),
    [(None, 2.0), (30, 30.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, MAX_DELAY), (1e300, MAX_DELAY)],
)
def test_a_handler_may_ask_for_another_try_after_a_delay(asked: float | None, given: float) -> None:
    assert RetryPolicy().decide(1, Retry(delay=asked), RNG) == RetryAfter(given)


# -- checks ------------------------------------------------------------------------------------------------------------


def test_a_policy_is_a_value() -> None:
    assert RetryPolicy(jitter=0.5) == RetryPolicy(jitter=0.5)
    assert hash(RetryPolicy()) == hash(RetryPolicy())
    with pytest.raises(AttributeError):
        RetryPolicy().max_retries = 5  # type: ignore[misc]


class Given(RetryPolicy):
    """A user's policy: its delay is what the test gives."""

    given: Any = None

    def delay(self, retry: int, rng: random.Random) -> float:
        if isinstance(self.given, BaseException):
            raise self.given
        return self.given  # type: ignore[no-any-return]


class Undecided(RetryPolicy):
    """A user's policy that forgets to return something."""

    def decide(self, attempt: int, error: BaseException, rng: random.Random) -> RetryAfter | Fail:
        return None  # type: ignore[return-value]


def giving(given: Any) -> RetryPolicy:
    return type("Given", (Given,), {"given": given})()  # type: ignore[no-any-return]


@pytest.mark.parametrize("given", [math.nan, math.inf, -math.inf, -5, -0.001, "1", None, 1j, [1]], ids=repr)
def test_a_policy_of_a_user_s_that_gives_no_delay_is_at_fault(given: Any) -> None:
    cause = ValueError("the item's own")
    decision = decide_by(giving(given), 1, cause, RNG)
    assert isinstance(decision, Fail)
    assert str(decision.error) == (
        f"retry policy Given: expected a delay of a finite number of seconds from 0 up, got {given!r}"
    )
    assert decision.error is not None
    assert decision.error.__cause__ is cause


@pytest.mark.parametrize("given", [0, 1, 0.5, Fraction(1, 2), 1e300, 10**400], ids=str)
def test_any_number_may_be_a_user_s_delay(given: Any) -> None:
    if given == 10**400:
        assert isinstance(decide_by(giving(given), 1, ValueError(), RNG), Fail)
    else:
        assert decide_by(giving(given), 1, ValueError(), RNG) == RetryAfter(min(float(given), MAX_DELAY))


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (giving(KeyError("oops")), "expected a decision, got KeyError: 'oops'"),
        (Undecided(), "expected decide() to return what RetryPolicy.decide does, got None"),
    ],
)
def test_a_policy_of_a_user_s_that_decides_nothing_is_at_fault(policy: RetryPolicy, text: str) -> None:
    decision = decide_by(policy, 1, ValueError(), RNG)
    assert isinstance(decision, Fail)
    assert str(decision.error) == f"retry policy {type(policy).__name__}: {text}"
