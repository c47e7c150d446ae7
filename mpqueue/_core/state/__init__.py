"""The scheduler's books: all that it knows."""
