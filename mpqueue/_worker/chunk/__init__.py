"""Running a chunk: its items, its measurements, and the report."""
