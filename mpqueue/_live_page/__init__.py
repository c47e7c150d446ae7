"""The live page of a queue: a server on its own thread, and its content.

`queue.serve()` makes a `server.Page`. It looks at the queue's books 10 times per second, as a bar does, and sends
changes to all browsers: it costs a job nothing per item. Nothing here is imported before a page is opened, and only
this package uses Starlette and uvicorn.
"""
