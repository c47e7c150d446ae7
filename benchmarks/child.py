"""The process in which one contender is measured. Told what to do by `benchmarks.session`, in one argument, as JSON.

Answers with lines of JSON on a descriptor of its own, since what is measured may print. Up to the point where a cold
start has been measured it loads nothing that a contender might want to load too.
"""

from __future__ import annotations

import json
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from benchmarks.case import Case, Sizes
    from benchmarks.contenders import Contender


def main(order: dict[str, Any]) -> None:
    """Measure the cases that the order names, one after the other."""
    with open(order["answers"], "w", buffering=1) as answers:

        def tell(**what: Any) -> None:
            answers.write(json.dumps(what) + "\n")

        if order["cold"]:
            _measure_cold(order, tell)
        else:
            _measure_all(order, tell)
        tell(event="done")


def _measure_cold(order: dict[str, Any], tell: Any) -> None:
    name = order["cases"][0]
    tell(event="begin", case=name)
    started = time.perf_counter()
    from benchmarks import contenders, handlers

    exec(contenders.BY_NAME[order["contender"]].statement, {})  # as the first line of a program
    imported = time.perf_counter()
    contender = contenders.make(order["contender"], order["workers"])
    result = contender.map(handlers.echo, [7], 1)
    ended = time.perf_counter()
    assert list(result) == [7], "not the expected result"
    tell(event="measure", case=name, measures={"seconds": ended - started, "after_import": ended - imported})
    contender.close()


def _measure_all(order: dict[str, Any], tell: Any) -> None:
    from benchmarks import questions
    from benchmarks.busy import Loop
    from benchmarks.case import Sizes

    loop = Loop(**order["loop"])
    sizes = Sizes(order["size"], order["workers"], loop)
    cases = {case.name: case for case in questions.load(order["question"]).cases(sizes)}
    contender = None
    for name in order["cases"]:
        case = cases[name]
        try:
            contender = _ready(contender, order, case)
            _measure_case(contender, case, sizes, order["seed"], tell)
        except Exception as error:  # noqa: BLE001 - that is a result too
            tell(event="failed", case=name, error=_describe(error))
            _close(contender)
            contender = None
    _close(contender)


def _ready(contender: Contender | None, order: dict[str, Any], case: Case) -> Contender:
    """The contender with as many workers as the case wants, and all of them there."""
    from benchmarks import contenders, handlers

    if not case.started:
        return contenders.BY_NAME[order["contender"]]()
    workers = case.workers or order["workers"]
    if contender is not None and contender.workers == workers:
        return contender
    _close(contender)
    contender = contenders.make(order["contender"], workers)
    if not isinstance(contender, contenders.BareLoop):
        contender.map(handlers.settle, list(range(4 * workers)), 1)
    return contender


def _measure_case(contender: Contender, case: Case, sizes: Sizes, seed: int, tell: Any) -> None:
    from benchmarks.case import warm_up

    tell(event="begin", case=case.name)
    if case.started and case.warm:
        warm_up(contender, case)
    started = time.monotonic()
    for repeat in range(case.repeats):
        tell(event="begin", case=case.name)
        tell(event="measure", case=case.name, measures=case.run(contender, seed * 100 + repeat))
        if time.monotonic() - started > sizes.enough:
            break


def _close(contender: Contender | None) -> None:
    if contender is not None and contender.workers:
        try:
            contender.close()
        except Exception as error:  # noqa: BLE001 - said in the log; the next one gets a fresh start
            print(f"closing failed: {_describe(error)}", file=sys.stderr)


def _describe(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
