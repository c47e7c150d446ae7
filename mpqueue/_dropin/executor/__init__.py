"""`mpqueue.Executor`, in the place of `concurrent.futures.ProcessPoolExecutor`."""
