"""`mpqueue.Pool`, in the place of `multiprocessing.Pool`."""
