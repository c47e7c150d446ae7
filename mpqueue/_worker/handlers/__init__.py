"""The functions that a worker calls: loading, setup, and `current_item` for them."""
