"""Why somebody else is faster, where somebody is. The report prints a reason only where the figures call for it."""

from __future__ import annotations

#: By question, then by contender; "" is for all that are not named.
REASONS: dict[str, dict[str, str]] = {
    "noop": {
        "multiprocessing": "`Pool.map` cuts the list into a few chunks beforehand and does nothing else: no item is "
        "watched, none can be retried, timed out or told of, and a chunk that hangs or dies is gone.",
    },
    "item_count": {
        "": "A map of a few items is a round trip and little else. mpqueue sends the first items one by one, since it "
        "can't know yet whether they are long, and makes books for the job; both are paid once a job.",
    },
    "durations": {
        "": "Of very short items all of the time is overhead: see the no-ops. Of long ones mpqueue sends the first "
        "ones alone to learn how long they take, which costs some round trips at the beginning. A time below the ideal "
        "is nobody's merit: the machine was faster in that moment than whenever the ideal was measured.",
    },
    "arrays": {
        "ray": "Ray keeps one object store for the whole machine, mapped once by everybody. What is put there is "
        "written once and read in place, read-only. mpqueue's arrays arrive writable.",
        "": "A pipe is as fast as shared memory for what is small, and a chunk's books cost more than it does.",
    },
    "models": {
        "": "A model is copied once, into memory that all workers map. Who does that too is as fast as memory is, and "
        "who forks workers that have it already copies nothing.",
        "joblib": "joblib writes the arrays of an argument to files once, and finds them again as long as they are the "
        "same; its workers map them read-only.",
    },
    "replacement": {
        "": "A pool that forks a new worker at once never asks what the old one had in hand: that item is lost, and "
        "its caller waits for ever. mpqueue finds that out first, and its worker gets a leash, pipes and "
        "the handler anew.",
    },
    "payload_kinds": {
        "multiprocessing": "torch moves the memory of a tensor into shared memory, where it stays: what was sent once "
        "is sent again without a copy.",
        "": "Objects whose types give no memory to a pickler, and are not among those that mpqueue takes apart itself, "
        "are pickled by everybody in the same way.",
    },
    "closure": {
        "multiprocessing, forked anew": "A forked worker has everything that its parent has without any copy. That is "
        "the fastest way there is, as long as nobody else runs threads (a fork copies their locks in whatever state "
        "they are), and the object is there before the pool is.",
        "joblib": "joblib writes a large array argument to a file once and has its workers map it read-only.",
        "ray": "Ray's object store is mapped once, by everybody, and read in place; here a segment is filled and "
        "mapped for each object.",
    },
    "one_item": {
        "": "A round trip through mpqueue passes its coordinator and its listener thread, so that a job has events, "
        "a journal and an owner; a bare executor has a queue and a pipe.",
    },
    "cold_start": {
        "": "Whoever forks starts a worker in milliseconds. loky, and so mpqueue, spawns a fresh interpreter for each "
        "worker: that is safe with threads, and takes as long as starting Python does.",
        "loky": "mpqueue starts loky's workers, and loads its own modules besides, here and there.",
    },
    "import_time": {
        "": "`import mpqueue` itself loads next to nothing; the first use of `JobQueue` loads what it stands on, loky "
        "included.",
    },
    "million": {
        "multiprocessing": "`Pool.map` keeps nothing of an item but its result.",
        "": "mpqueue keeps a status, attempts and timings for each item.",
    },
    "listeners": {
        "multiprocessing": "Going through `imap_unordered` hands over a result; an event says which item, in which "
        "state, of which job, with counters, and is told by an emitter on a thread of its own.",
        "": "Going through results as they come hands over a result; an event says which item, in which state, of "
        "which job, with counters, and is told by an emitter on a thread of its own.",
    },
    "crash": {
        "pebble": "pebble gives the item up that was running, where mpqueue starts a new worker, tries it again and "
        "delivers its result too.",
    },
    "scaling": {
        "": "Forked workers share one queue, so that a batch of items goes to whoever is free without a scheduler; "
        "mpqueue's one coordinator decides about each chunk. See also the last question.",
    },
}

GENERAL = "mpqueue keeps books on every item (status, attempts, timings, blame) and decides about each chunk anew."


def reason(question: str, contender: str) -> str:
    """Why."""
    known = REASONS.get(question, {})
    return known.get(contender) or known.get("") or GENERAL
