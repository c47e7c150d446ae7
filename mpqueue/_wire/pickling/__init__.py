"""How objects become bytes and come back, on both sides."""
