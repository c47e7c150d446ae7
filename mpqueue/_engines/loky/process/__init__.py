"""A worker process as its parent sees it: its start, its end, and how it is ended."""
