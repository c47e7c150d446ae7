"""The journal: how each item ended, on disk, so that no finished item has to run again.

    coordinator --announcements--> recorder --rows--> journal (a writer thread, group commits) --> journal file (SQLite)

`kept_values` and `chunk_rows` say how results and outcomes are written and read, `guards` that one queue at a time
writes, and that its files are still those.
"""
