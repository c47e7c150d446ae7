"""The journal: the outcome of each item, on disk, so that no finished item has to run again.

    coordinator --announcements--> outlet --rows--> journal (a writer thread, group commits) --> journal file (SQLite)

`kept_values` and `chunk_rows` write and read results and outcomes; `checks` ensures that one queue at a time writes,
and that its files are still the same.
"""
