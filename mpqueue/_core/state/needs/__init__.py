"""What items need while they run, and how much of that there is."""
