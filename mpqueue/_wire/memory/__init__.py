"""What both sides share without a message: segments, the ledger, the flags, and the locks of these."""
