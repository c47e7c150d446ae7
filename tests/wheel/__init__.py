"""Tests of the wheel where it is installed alone: `make test-wheel` runs a copy outside the checkout."""
