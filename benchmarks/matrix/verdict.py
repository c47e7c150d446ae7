"""From what happened to one word and a few more: who delivers what."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from benchmarks.matrix.faults import Fault


class Verdict(StrEnum):
    """How a library came through one fault."""

    GOOD = "good"  #: everything delivered, the fault named, nothing left
    PARTLY = "partly"  #: every good result came, but something else is wrong
    LOST = "lost"  #: good results are missing, or what was asked for can't be had
    HANGS = "hangs"  #: good results are missing because a call never returned


#: Answers that come after so many seconds count as none.
Judged = tuple[Verdict, str]


def judge(fault: Fault, record: dict[str, Any]) -> Judged:
    """The verdict, and words for what is amiss."""
    events = {event["event"]: event for event in record["events"]}
    if "cannot" in events:
        return Verdict.LOST, events["cannot"]["error"]
    if fault.play == "ending":
        return _judge_ending(fault, record, events)
    if fault.play == "initializer":
        return _judge_initializer(record, events)
    return _judge_batch(fault, record, events)


def _judge_batch(fault: Fault, record: dict[str, Any], events: dict[str, Any]) -> Judged:
    if "refused" in events:
        return Verdict.LOST, f"does not start: {_short(events['refused']['error'])}"
    verdict, words = _judge_answer(fault, record, events)
    if verdict in (Verdict.LOST, Verdict.HANGS) and not events.keys() & {"outcomes", "error", "results"}:
        return verdict, words  # it was ended there, so what came of it afterwards says nothing
    amiss = ([words] if words else []) + _afterwards(record, events)
    if verdict is Verdict.GOOD and amiss:
        verdict = Verdict.PARTLY
    return verdict, "; ".join(amiss)


def _judge_answer(fault: Fault, record: dict[str, Any], events: dict[str, Any]) -> Judged:
    """What became of the items alone."""
    if "outcomes" in events:
        return _judge_outcomes(events["outcomes"])
    if "endless" in events:
        return _judge_endless(events["endless"])
    if "results" in events:
        return (Verdict.GOOD, "") if events["results"]["right"] else (Verdict.LOST, "wrong results")
    if "error" in events:
        if events["error"]["told"]:
            return Verdict.GOOD, ""
        return Verdict.HANGS if fault.play == "refused" else Verdict.LOST, events["error"]["error"] or "no answer"
    if record["exitcode"] is None and fault.group == "sizes":
        return Verdict.LOST, "not done in 60 s"
    if record["exitcode"] is None:
        return Verdict.HANGS, "never returns" if "entered" in events else "never starts"
    return Verdict.LOST, f"the program ends with exit code {record['exitcode']}"


def _judge_outcomes(outcomes: dict[str, Any]) -> Judged:
    kinds, guilty = outcomes["kinds"], set(outcomes["guilty"])
    good = [kind for number, kind in enumerate(kinds) if number not in guilty]
    delivered = good.count("ok")
    if delivered < len(good):
        silent = "silent" in good
        return Verdict.HANGS if silent else Verdict.LOST, f"{delivered} of {len(good)}"
    if "silent" in kinds:
        return Verdict.PARTLY, "no error for the item at fault"
    return Verdict.GOOD, ""


def _judge_endless(told: dict[str, Any]) -> Judged:
    if told["taken"] < 50:
        return Verdict.HANGS, f"reads on: {told['reads']:,} items, {told['taken']} results"
    if told["reads"] > 2_000:
        return Verdict.PARTLY, f"reads on while no result is taken: {told['reads']:,} items"
    return (Verdict.GOOD, "") if told.get("right") else (Verdict.LOST, "wrong results")


def _judge_initializer(record: dict[str, Any], events: dict[str, Any]) -> Judged:
    told = events.get("error")
    if told is None:
        return Verdict.HANGS, "no answer"
    starts = f"; {told['starts']} workers started" if told["starts"] > 20 else ""
    if not told["told"]:
        return Verdict.HANGS, f"no error{starts}"
    amiss = [] if told["reason"] else ["the error does not say why"]
    if starts:
        amiss.append(starts[2:])
    amiss += _remains(record)
    if record["exitcode"] is None:
        amiss.append("hangs when closed")
    return (Verdict.PARTLY if amiss else Verdict.GOOD), "; ".join(amiss)


def _judge_ending(fault: Fault, record: dict[str, Any], events: dict[str, Any]) -> Judged:
    if "entered" not in events:
        return Verdict.LOST, "does not start"
    amiss = _remains(record)
    if record["exitcode"] is None:
        return Verdict.HANGS, "; ".join(["does not end in 10 s", *amiss])
    if fault.signal in (0, 2) and record["ended_after"] is not None and record["ended_after"] > 3:
        amiss.insert(0, f"ends after {record['ended_after']:.0f} s")
    return (Verdict.LOST if record["processes"] else Verdict.PARTLY if amiss else Verdict.GOOD), "; ".join(amiss)


def _afterwards(record: dict[str, Any], events: dict[str, Any]) -> list[str]:
    """What is wrong besides the items."""
    amiss = []
    if "afterwards" in events and not events["afterwards"]["usable"]:
        amiss.append("pool dead")
    if record["exitcode"] is None:
        hangs_at = "hangs at exit" if "left" in events else "hangs when closed"
        amiss.append(hangs_at if "afterwards" in events or "endless" in events else "pool hangs")
    elif "left" not in events:
        amiss.append(f"closing fails with {_short(record['last_line']).partition(':')[0]}")
    return amiss + _remains(record)


def _remains(record: dict[str, Any]) -> list[str]:
    left = []
    if record["processes"]:
        left.append(_count(record["processes"], "process", "processes") + " left")
    if record["shared_memory"]:
        left.append(_count(record["shared_memory"], "file", "files") + " left in /dev/shm")
    if record["files"]:
        left.append(_count(record["files"], "temporary file", "temporary files") + " left")
    return left


def _count(things: list[str], one: str, many: str) -> str:
    return f"{len(things)} {one if len(things) == 1 else many}"


def _short(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:70]
