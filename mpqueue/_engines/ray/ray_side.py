"""The actor that Ray runs on a node for a queue's agent there: it has the slots, and is the agent's host."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any


class RayAgent:
    """The actor on a node. Its calls run beside each other, on its event loop."""

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the actor."""
        result = function(*arguments)
        return await result if inspect.isawaitable(result) else result


def where() -> tuple[str, str]:
    """Return the node, and the name by which the program may reach it: none if that would bypass Ray's encryption."""
    import ray  # installed on this side

    context = ray.get_runtime_context()
    os.environ["RAY_ADDRESS"] = context.gcs_address  # for handlers that use this Ray
    host = "" if os.environ.get("RAY_USE_TLS", "0") == "1" else ray.util.get_node_ip_address()
    return context.get_node_id(), host
