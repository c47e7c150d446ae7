"""Workers in processes that other engines own: Dask, Ray, any executor."""
