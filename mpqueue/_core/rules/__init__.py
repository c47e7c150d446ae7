"""The scheduler's rules, one per module."""
