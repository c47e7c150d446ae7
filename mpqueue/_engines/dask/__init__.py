"""Dask as the engine: a lane is a slot of a Dask worker."""
