"""What a report says of programs that are slow for one reason: their figures were recorded when they really ran."""

from __future__ import annotations

import pytest

from benchmarks.bad_programs.all_programs import BUSY, PROGRAMS, problems
from benchmarks.bad_programs.program import Program
from benchmarks.bad_programs.recordings import FOLDER, from_plain, load, to_plain
from mpqueue._report.rules import advise


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=list(PROGRAMS))
def test_the_report_names_what_is_wrong_first_and_nothing_wrong_beside_it(program: Program) -> None:
    figures, alone = load(program.name)
    advice = advise(figures, alone)
    assert not problems(program, advice), [one.text for one in advice]
    assert BUSY not in {one.rule.name for one in advice}


def test_there_are_24_programs_each_with_its_recording_and_no_other() -> None:
    assert len(PROGRAMS) == 24
    assert {path.stem for path in FOLDER.iterdir()} == set(PROGRAMS)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 150_000


def test_a_recording_is_what_was_recorded() -> None:
    figures, _ = load("giant_last_item")
    assert from_plain(to_plain(figures)) == figures
