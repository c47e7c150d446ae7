"""The scheduler's rules, one a module."""
