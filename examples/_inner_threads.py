"""Owns how many threads a library may use inside one worker.

mpqueue sets ``OMP_NUM_THREADS`` and its like in each worker, to cores divided by workers. Libraries that do not look
there (onnxruntime, OpenCV) or not always (PyTorch) must be told by a call of their own, in ``setup``: with their own
defaults, two workers on two cores are two to three times *slower* than one.
"""

import os


def inner_threads() -> int:
    """The number of threads for one worker's numerical libraries; 1 outside of a worker."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))
