"""Streams in a journal: jobs whose items come while they run, each of which has a row of its own."""
