"""The parent's view of the system around it: time, memory, the exit of the interpreter."""
