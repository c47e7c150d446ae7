"""The needs of items while they run, and how much of that there is."""
