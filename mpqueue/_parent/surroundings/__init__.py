"""What the parent reads of the system around it: time, memory, the exit of the interpreter."""
