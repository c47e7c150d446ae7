"""Memory that both sides share: segments, the ledger, the flags, and their locks."""
