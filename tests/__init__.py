"""The tests. `unit` has no process and no thread; `contract` holds every engine to one behaviour; `integration` has
real workers; `chaos` kills them at random."""
