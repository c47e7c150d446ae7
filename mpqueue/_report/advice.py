"""The advice of a report: which rules apply, the largest effect first, and none that contradicts another.

Of the rules, two that say different things on a subject are never in one report.

Subjects: what the "pool" is good for (a plain loop against everything that improves a pool), the "item size", how
many "workers", what the "handler" does with its time, when its "pace" is slow, why workers had no "CPU", why some
were idle at the "end", what takes long to be sent ("sending") or loaded ("loading"), and when the "source" of the
items is slow.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpqueue._output.words import percent
from mpqueue._report.figures import Figures
from mpqueue._report.rules import on_data, on_handler, on_items, on_workers
from mpqueue._report.rules.rule import LIMITS, Advice, Confidence, Evidence, Rule, contradict

#: How many pieces of advice a report has, at most.
MOST = 3


MEASURED, INFERRED = Confidence.MEASURED, Confidence.INFERRED
KEEP = {"pool": "keep"}

RULES: tuple[Rule, ...] = (
    # what is sent
    Rule("heavy handler", MEASURED, on_data.heavy_handler, {**KEEP, "loading": "bytes"}),
    Rule("imports", MEASURED, on_data.imports, {**KEEP, "loading": "imports"}),
    Rule("items pickled", MEASURED, on_data.items_pickled, {**KEEP, "sending": "each item"}),
    Rule("results pickled", MEASURED, on_data.results_pickled, {**KEEP, "sending": "each item"}),
    Rule(
        "short items",
        MEASURED,
        on_data.short_items,
        {**KEEP, "item size": "larger", "sending": "many items", "handler": "is short"},
    ),
    Rule(
        "small chunks",
        MEASURED,
        on_data.small_chunks,
        {**KEEP, "item size": "as it is", "sending": "many items", "handler": "is short", "end": "chunks are small"},
    ),
    Rule("slow items source", INFERRED, on_data.slow_items_source, {**KEEP, "source": "before"}),
    Rule("starved", MEASURED, on_data.starved, {**KEEP, "source": "meanwhile", "workers": "enough"}),
    # how the work is cut
    Rule("few items", MEASURED, on_items.few_items, {**KEEP, "end": "few items", "item size": "smaller"}),
    Rule("giant item", MEASURED, on_items.giant_item, {**KEEP, "end": "giant item"}),
    Rule("coarse items", MEASURED, on_items.coarse_items, {**KEEP, "end": "coarse items", "item size": "smaller"}),
    # workers
    Rule("setup", MEASURED, on_workers.setup, KEEP),
    Rule("cold start", MEASURED, on_workers.cold_start, KEEP),
    Rule("deaths", MEASURED, on_workers.deaths, KEEP),
    Rule("recycling", MEASURED, on_workers.recycling, KEEP),
    Rule("first items", INFERRED, on_workers.first_items, {**KEEP, "pace": "slow at first"}),
    Rule("slow worker", INFERRED, on_workers.slow_worker, {**KEEP, "pace": "slow on one worker"}),
    Rule(
        "too many workers",
        INFERRED,
        on_workers.too_many_workers,
        {**KEEP, "workers": "fewer", "handler": "computes", "CPU": "too many workers"},
    ),
    Rule(
        "unused CPUs",
        INFERRED,
        on_workers.unused_cpus,
        {**KEEP, "workers": "more", "handler": "computes", "CPU": "enough"},
    ),
    Rule("waits", INFERRED, on_workers.more_workers, {**KEEP, "workers": "more", "handler": "waits", "CPU": "enough"}),
    # the handler
    Rule(
        "threads", INFERRED, on_handler.threads, {**KEEP, "workers": "fewer", "handler": "computes", "CPU": "threads"}
    ),
    Rule("busy machine", INFERRED, on_handler.busy_machine, {**KEEP, "CPU": "other programs"}),
    Rule(
        "shared bottleneck",
        INFERRED,
        on_handler.shared_bottleneck,
        {**KEEP, "workers": "fewer", "handler": "shares", "CPU": "a bottleneck"},
    ),
    Rule("memory", INFERRED, on_handler.memory, {**KEEP, "workers": "fewer", "handler": "swaps"}),
    Rule("failed tries", MEASURED, on_handler.failed_tries, KEEP),
    Rule("waits for retries", MEASURED, on_handler.waits_for_retries, {**KEEP, "end": "retries"}),
    Rule("listeners", MEASURED, on_handler.listeners, {}),
    # the last: where another rule saves as much, that one is there
    Rule("plain loop", MEASURED, on_items.plain_loop, {"pool": "drop", "item size": "larger"}),
)


def advise(figures: Figures, alone: Figures | None = None) -> Sequence[Advice]:
    """What could make the job quicker, the largest effect first; at most `MOST`, none where nothing is known.

    Of two rules that contradict each other the one with the larger effect is there. ``alone`` are the figures of a job
    with the same handler on one worker, to compare with.
    """
    if not figures.worker_seconds:
        return ()
    evidence = Evidence(figures, alone)
    found = [Advice(rule, finding) for rule in RULES if (finding := rule.find(evidence)) is not None]
    found = [one for one in found if one.finding.saved >= LIMITS.worth or one.finding.anyway]
    chosen: list[Advice] = []
    for one in sorted(found, key=lambda one: -one.finding.saved):
        if len(chosen) < MOST and not any(contradict(one.rule, other.rule) for other in chosen):
            chosen.append(one)
    return chosen


def conclude(figures: Figures, advice: Sequence[Advice]) -> list[str]:
    """The sentences of a report: the advice, or that there is nothing to win but in the handler."""
    if not advice and figures.worker_seconds and figures.share("handler") >= LIMITS.well_used:
        share = percent(figures.share("handler"))
        return [
            f"The workers were in your handler {share} of the time: only a quicker handler, or more CPUs, can help."
        ]
    return [one.text for one in advice]
