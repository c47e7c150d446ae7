"""Pickling and unpickling, on both sides."""
