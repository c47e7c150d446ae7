"""The functions that a worker calls: loaded, set up, and what they can ask about their item."""
