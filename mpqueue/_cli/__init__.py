"""The command line. Stands on what users have: nothing below knows it, and it uses nothing that begins with ``_``."""
