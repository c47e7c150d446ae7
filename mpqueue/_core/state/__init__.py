"""What the scheduler knows: its books."""
