"""Ray's room for workers with certain options, node by node. All of it asks Ray, which takes a few ms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ray
from ray._private import state  # the public function lists nodes one by one, by a server that may not run


def count_places(options: Mapping[str, Any]) -> int:
    """Return how many workers the nodes have room for when nothing else runs there."""
    return sum(_fitting(node["Resources"], options) for node in ray.nodes() if node["Alive"])


def free_places(options: Mapping[str, Any]) -> dict[str, int]:
    """Return how many workers each node has room for now, largest first, without nodes that have none."""
    places = {node: _fitting(there, options) for node, there in state.available_resources_per_node().items()}
    return {node: places[node] for node in sorted(places, key=places.__getitem__, reverse=True) if places[node]}


def times(options: Mapping[str, Any], workers: int) -> dict[str, Any]:
    """Return the options of one actor with the room of that many workers."""
    more = {name: options[name] * workers for name in ("num_cpus", "memory") if options.get(name)}
    if options.get("resources"):
        more["resources"] = {name: amount * workers for name, amount in options["resources"].items()}
    return {**options, **more}


def _fitting(there: Mapping[str, float], options: Mapping[str, Any]) -> int:
    wanted = {"CPU": options.get("num_cpus"), "GPU": options.get("num_gpus"), "memory": options.get("memory")}
    wanted |= options.get("resources") or {}
    return min((math.floor(there.get(name, 0.0) / amount) for name, amount in wanted.items() if amount), default=1)
