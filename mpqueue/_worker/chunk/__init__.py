"""Running a chunk: its items, what is measured meanwhile, and the report."""
