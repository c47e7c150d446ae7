"""Programs that are checked by mypy and not run: what users get is of the type that they expect."""
