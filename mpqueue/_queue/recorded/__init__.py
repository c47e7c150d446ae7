"""Jobs that a journal has: looked at, run again, and told from those of today."""
