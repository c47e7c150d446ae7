"""The scheduler's books: all of its data."""
