"""The code that both sides of a process boundary use: pickling, frames, the ledger and the flags."""
