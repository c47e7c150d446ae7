"""Whose a journal is: its user's alone, one queue's at a time, and the files that were opened."""
