"""Which code made the results that a journal has."""
