"""The memory that both sides share: segments, the ledger, the flags, and the locks of these."""
