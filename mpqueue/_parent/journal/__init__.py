"""The journal: what became of each item, on disk, so that nothing that is done has to be done again.

    coordinator --announcements--> recorder --rows--> journal (a writer thread, group commits) --> journal file (SQLite)

`kept_values` and `chunk_rows` say how results and outcomes are written and read, `guards` that one queue at a time
writes, and that its files are still those.
"""
