"""Why another library is faster, if one is. The report prints a reason only if the figures need it."""

from __future__ import annotations

#: By question, then by contender; "" is for all that are not named.
REASONS: dict[str, dict[str, str]] = {
    "noop": {
        "multiprocessing": "`Pool.map` cuts the list into a few chunks beforehand and does nothing else: it does not "
        "watch items, retry them, time them out or report them. If a chunk hangs or its worker dies, it is lost.",
    },
    "item_count": {
        "": "A map of a few items is little more than a round trip. mpqueue sends the first items one by one, since it "
        "does not know yet whether they are long, and creates the job's records. Both cost time once per job.",
    },
    "durations": {
        "": "For very short items, all of the time is overhead: see the no-ops. For long items, mpqueue sends the "
        "first ones alone to learn how long they take, which costs some round trips at the beginning. If a time is "
        "below the "
        "ideal, the machine was faster at that moment than when the ideal was measured.",
    },
    "arrays": {
        "ray": "Ray has one object store for the whole machine, which every process maps once. An object is written "
        "there once and read in place, read-only. mpqueue's arrays arrive writable.",
        "": "For small data, a pipe is as fast as shared memory, and recording the chunk takes longer than sending it.",
    },
    "models": {
        "": "A model is copied once, into memory that all workers map. Libraries that do the same are limited by the "
        "speed of memory, and libraries that fork workers which have it already copy nothing.",
        "joblib": "joblib writes the arrays of an argument to files once, and finds them again as long as they are the "
        "same; its workers map them read-only.",
    },
    "replacement": {
        "": "A pool that forks a new worker at once does not check which item the old one was running: that item is "
        "lost, and its caller waits for ever. mpqueue finds the item first, and its worker gets a leash, pipes and "
        "the handler anew.",
    },
    "payload_kinds": {
        "multiprocessing": "torch moves the memory of a tensor into shared memory, where it stays: if a tensor is sent "
        "again, it is not copied.",
        "": "Objects whose types give no memory to a pickler, and that mpqueue does not take apart itself, "
        "are pickled in the same way by all libraries.",
    },
    "closure": {
        "multiprocessing, forked anew": "A forked worker has everything that its parent has without any copy. That is "
        "the fastest way, as long as no other thread runs (a fork copies locks in their current state), and "
        "the object exists before the pool.",
        "joblib": "joblib writes a large array argument to a file once and has its workers map it read-only.",
        "ray": "Every process maps Ray's object store once and reads it in place. mpqueue fills and maps a segment "
        "for each object.",
    },
    "one_item": {
        "": "A round trip through mpqueue passes its coordinator, another thread each way, so that a job has events, "
        "a journal and an owner; a bare executor has a queue and a pipe.",
    },
    "cold_start": {
        "": "A fork starts a worker in milliseconds. loky, and so mpqueue, spawns a fresh interpreter for each "
        "worker: that is safe with threads, and takes as long as starting Python does.",
        "loky": "mpqueue starts loky's workers, and also loads its own modules, in the program and in the workers.",
    },
    "import_time": {
        "": "`import mpqueue` itself loads very little; the first use of `JobQueue` loads the packages that it needs, "
        "including loky.",
    },
    "million": {
        "multiprocessing": "`Pool.map` keeps nothing of an item except its result.",
        "": "mpqueue keeps a status, attempts and timings for each item.",
    },
    "listeners": {
        "multiprocessing": "`imap_unordered` returns a result. An event has the item, its state, its job and counters, "
        "and an emitter sends it on a separate thread.",
        "": "The others return a result as it arrives. An event has the item, its state, its job and counters, "
        "and an emitter sends it on a separate thread.",
    },
    "crash": {
        "pebble": "pebble gives up the item that was running. mpqueue starts a new worker, tries the item again and "
        "delivers its result too.",
    },
    "scaling": {
        "": "Forked workers share one queue, so a batch of items goes to any free worker without a scheduler; "
        "mpqueue's one coordinator decides about each chunk. See also the last question.",
    },
}

GENERAL = "mpqueue keeps records of every item (status, attempts, timings, blame) and decides about each chunk anew."


def reason(question: str, contender: str) -> str:
    """Why ``contender`` is faster in ``question``."""
    known = REASONS.get(question, {})
    return known.get(contender) or known.get("") or GENERAL
