"""The ledger: what a worker writes into the shared page is what the parent reads."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqueue._os.memory_files import SharedFile
from mpqueue._wire.memory.ledger import (
    CLAIM,
    FLAG_JOB,
    FRACTION,
    MAX_CHUNK_ITEMS,
    NOWHERE,
    SINCE,
    SIZE,
    UNSENT,
    Claim,
    Ledger,
    Phase,
    pack_claim,
)

positions = st.integers(0, MAX_CHUNK_ITEMS)
#: Any, and those that fall upon odd floats or upon what claims are made of.
words = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 1, 2**63, 2**64 - 1]),
    st.floats().map(lambda real: int.from_bytes(struct.pack("d", real), sys.byteorder)),
    st.builds(pack_claim, st.integers(0, 2**21), st.integers(0, 7), positions, positions),
)
WORDS = 12


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    page = SharedFile("ledger-test", SIZE)
    ledger = Ledger(page.fd)
    page.close()
    yield ledger
    ledger.close()


@given(st.integers(0, 2**40), st.sampled_from(Phase), positions, positions, st.integers(1, 2**62))
@settings(max_examples=50)
def test_a_claim_is_read_as_it_was_written(
    ledger: Ledger, chunk: int, phase: Phase, one: int, other: int, since: int
) -> None:
    lo, hi = sorted((one, other))
    ledger.words[SINCE] = since
    ledger.words[CLAIM] = pack_claim(chunk, phase, lo, hi)
    claim = ledger.read()
    assert (claim.phase, claim.lo, claim.hi, claim.since) == (phase, lo, hi, since / 1e9)
    assert claim.is_of(chunk)
    assert not claim.is_of(chunk + 1)


@given(st.lists(words, min_size=WORDS, max_size=WORDS))
@settings(max_examples=200)
def test_whatever_stands_there_is_read_as_a_claim_or_as_none(ledger: Ledger, page: list[int]) -> None:
    for at, word in enumerate(page):
        ledger.words[at] = word
    claim = ledger.read()
    assert claim.phase in Phase
    assert claim.chunk == NOWHERE or 0 <= claim.chunk < 2**21
    assert 0 <= claim.lo <= claim.hi <= MAX_CHUNK_ITEMS
    assert 0.0 <= claim.fraction <= 1.0
    assert 0.0 <= claim.since < math.inf
    ledger.limit(claim.chunk)
    ledger.flags_of(1, lambda: (True, True))


@pytest.mark.parametrize(
    ("claim", "since"),
    [
        (pack_claim(1, Phase.RUNNING, 0, 1), 0),
        (pack_claim(1, Phase.RUNNING, 2, 1), 5),
        (pack_claim(1, 5, 0, 1), 5),
        (0, 0),
    ],
    ids=["at no time", "backwards", "a phase that there is not", "an empty page"],
)
def test_a_claim_that_no_worker_makes_is_of_no_chunk(ledger: Ledger, claim: int, since: int) -> None:
    ledger.words[CLAIM], ledger.words[SINCE] = claim, since
    assert ledger.read().chunk == NOWHERE


def test_a_ledger_that_was_begun_claims_nothing_yet() -> None:
    ledger = Ledger()
    ledger.begin(2.5)
    assert ledger.read() == Claim(0, Phase.IDLE, 0, 0, 2.5)
    ledger.close()


@given(st.integers(0, 2**40), positions, positions)
@settings(max_examples=50)
def test_two_chunks_in_a_row_have_a_limit_each(ledger: Ledger, chunk: int, first: int, second: int) -> None:
    ledger.set_limit(chunk, first)
    ledger.set_limit(chunk + 1, second)
    assert ledger.limit(chunk) == first
    assert ledger.limit(chunk + 1) == second


def test_a_limit_says_nothing_about_other_chunks(ledger: Ledger) -> None:
    ledger.set_limit(7, 3)
    assert ledger.limit(9) == MAX_CHUNK_ITEMS
    assert ledger.limit(5) == MAX_CHUNK_ITEMS


def test_every_word_has_a_place_of_its_own(ledger: Ledger) -> None:
    ledger.words[SINCE], ledger.words[CLAIM] = 5, pack_claim(1, Phase.RUNNING, 2, 3)
    ledger.set_limit(1, 11)
    ledger.set_limit(2, 12)
    ledger.words[FLAG_JOB], ledger.words[UNSENT] = 13, 14
    ledger.reals[FRACTION] = 0.5
    assert ledger.read() == Claim(1, Phase.RUNNING, 2, 3, 5e-9, 0.5)
    assert (ledger.limit(1), ledger.limit(2)) == (11, 12)
    assert (ledger.words[FLAG_JOB], ledger.words[UNSENT]) == (13, 14)


def test_both_sides_see_one_page() -> None:
    page = SharedFile("ledger-test", SIZE)
    ours, theirs = Ledger(page.fd), Ledger(page.fd)
    page.close()
    theirs.words[SINCE], theirs.words[CLAIM] = 5, pack_claim(3, Phase.LOADING, 0, 0)
    assert ours.read().is_of(3)
    ours.set_limit(3, 0)
    assert theirs.limit(3) == 0
    ours.close()
    theirs.close()


def test_a_closed_ledger_can_not_be_read() -> None:
    page = SharedFile("ledger-test", SIZE)
    ledger = Ledger(page.fd)
    page.close()
    ledger.close()
    with pytest.raises(ValueError, match="released"):
        ledger.read()


def test_a_shared_file_may_be_closed_twice() -> None:
    page = SharedFile("ledger-test", SIZE)
    page.close()
    page.close()
    assert page.fd == -1
