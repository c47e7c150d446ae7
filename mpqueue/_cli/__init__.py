"""The command line. It uses the public API only: no layer below knows it, and it uses no name that begins with `_`."""
