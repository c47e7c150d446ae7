"""Jobs that a journal has: viewed, run again, and compared with today's."""
