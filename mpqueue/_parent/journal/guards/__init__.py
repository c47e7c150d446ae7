"""Whose a journal is (its user's alone, one queue's at a time), whether it is whole, and what ended its programs."""
