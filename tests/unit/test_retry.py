"""The retry policy: when a failed item is tried again."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._dropin.batch import DROPIN_RETRY
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


def is_retried(policy: RetryPolicy, error: BaseException) -> bool:
    return isinstance(policy.decide(1, error, RNG), RetryAfter)


def delays(policy: RetryPolicy, count: int) -> list[float]:
    return [policy.delay(retry, RNG) for retry in range(1, count + 1)]


# -- delays ------------------------------------------------------------------------------------------------------------


@pytest.mark.holds("seed: retries: after 2, 4 and 8 seconds")
def test_by_default_an_item_is_tried_four_times_after_two_four_and_eight_seconds() -> None:
    policy = RetryPolicy()
    decisions = [policy.decide(attempt, ValueError(), RNG) for attempt in (1, 2, 3, 4)]
    assert decisions[:3] == [RetryAfter(2.0), RetryAfter(4.0), RetryAfter(8.0)]
    assert isinstance(decisions[3], Fail)


def test_no_retries_means_one_try() -> None:
    assert isinstance(RetryPolicy(max_retries=0).decide(1, ValueError(), RNG), Fail)


def test_no_delay_is_longer_than_max_delay() -> None:
    assert delays(RetryPolicy(max_delay=5.0), 4) == [2.0, 4.0, 5.0, 5.0]


def test_delays_stay_finite_however_many_retries_there_are() -> None:
    policy = RetryPolicy(max_retries=10_000, factor=10)
    assert policy.delay(10_000, RNG) == MAX_DELAY


def test_delays_stay_finite_whatever_max_delay_allows() -> None:
    assert RetryPolicy(base_delay=1e300, max_delay=1e300).delay(1, RNG) == MAX_DELAY


def test_without_a_base_delay_no_retry_waits_however_late() -> None:
    assert delays(RetryPolicy(max_retries=2000, base_delay=0), 2000) == [0.0] * 2000


def test_a_factor_of_zero_retries_at_once_after_the_first() -> None:
    assert delays(RetryPolicy(factor=0), 3) == [2.0, 0.0, 0.0]


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


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_exceptions_outside_exception_are_retried(kind: type[BaseException]) -> None:
    assert is_retried(RetryPolicy(), kind())
    assert is_retried(RetryPolicy(), remote(kind))


def test_a_crash_is_retried() -> None:
    assert is_retried(RetryPolicy(), WorkerCrashedError("gone", -11, "SIGSEGV"))


@pytest.mark.parametrize("error", [ItemPicklingError("no"), ResultPicklingError("no")])
def test_what_cannot_be_pickled_is_not_retried(error: BaseException) -> None:
    assert not is_retried(RetryPolicy(), error)


@pytest.mark.parametrize("stand_in", [False, True])
def test_filters_look_at_the_type_and_its_bases(stand_in: bool) -> None:
    def error(kind: type[BaseException]) -> BaseException:
        return remote(kind) if stand_in else kind()

    only_os = RetryPolicy(retry_on=(OSError,))
    assert is_retried(only_os, error(ConnectionResetError))
    assert not is_retried(only_os, error(ValueError))
    no_lookup = RetryPolicy(give_up_on=(LookupError,))
    assert not is_retried(no_lookup, error(KeyError))
    assert is_retried(no_lookup, error(ValueError))


def test_giving_up_goes_before_retrying() -> None:
    assert not is_retried(RetryPolicy(retry_on=(KeyError,), give_up_on=(LookupError,)), KeyError())


def test_a_stand_in_counts_as_its_original_only() -> None:
    """A `RemoteError` is an Exception, SystemExit is not."""
    assert is_retried(RetryPolicy(give_up_on=(Exception,)), remote(SystemExit))
    assert not is_retried(RetryPolicy(retry_on=(OSError, RuntimeError)), remote(ValueError))


@pytest.mark.parametrize("kind", [RemoteError, MPQueueError])
def test_a_filter_can_mean_the_stand_in_itself(kind: type[BaseException]) -> None:
    assert not is_retried(RetryPolicy(give_up_on=(kind,)), remote(ValueError))


def test_one_type_needs_no_tuple() -> None:
    policy = RetryPolicy(retry_on=ValueError, give_up_on=KeyError)
    assert (policy.retry_on, policy.give_up_on) == ((ValueError,), (KeyError,))


# -- what handlers ask for ---------------------------------------------------------------------------------------------


class Hopeless(GiveUp):
    """A user's own."""


@pytest.mark.parametrize("error", [GiveUp("no"), Hopeless("no"), remote(GiveUp), remote(Hopeless)])
def test_give_up_fails_at_once(error: BaseException) -> None:
    assert not is_retried(RetryPolicy(), error)


def test_retry_asks_for_another_try_whatever_the_filters_say() -> None:
    policy = RetryPolicy(retry_on=(KeyError,), give_up_on=(Exception,))
    assert policy.decide(1, Retry(), RNG) == RetryAfter(2.0)


def test_retry_may_name_its_delay() -> None:
    assert RetryPolicy().decide(1, Retry(delay=30), RNG) == RetryAfter(30.0)


@pytest.mark.parametrize(("asked", "given"), [(-1.0, 0.0), (math.nan, 0.0), (math.inf, MAX_DELAY), (1e300, MAX_DELAY)])
def test_a_delay_that_makes_no_sense_becomes_one_that_does(asked: float, given: float) -> None:
    assert RetryPolicy().decide(1, Retry(delay=asked), RNG) == RetryAfter(given)


def test_retry_counts_as_a_try() -> None:
    assert isinstance(RetryPolicy(max_retries=1).decide(2, Retry(delay=1), RNG), Fail)


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


def test_calls_of_the_drop_ins_are_made_again_after_short_delays() -> None:
    assert [DROPIN_RETRY.delay(retry, RNG) for retry in (1, 2, 3)] == [0.1, 0.2, 0.4]
