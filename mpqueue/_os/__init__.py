"""The one room for the operating system: all that differs between systems is known here, and nowhere else."""
