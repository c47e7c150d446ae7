"""What the scheduler decides, one rule a module."""
