"""A hyper-parameter search with scikit-learn, on mpqueue's workers by one line around it.

scikit-learn runs its fits through joblib, whose backend can be replaced. What that gains is shown on the way: one fit
kills its worker, as a bug in C code or a full memory does. With joblib's own backend the whole search would end there
with ``TerminatedWorkerError`` and nothing to show; here that fit is done again.

    pip install 'mpqueue[examples-search]'
    python examples/search_parameters.py --help
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _options import at_least_one
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.svm import SVC

import mpqueue

GRID = {"C": [0.1, 1.0, 10.0, 100.0], "gamma": [0.0001, 0.0005, 0.001, 0.005, 0.01]}
#: With these parameters, the first fit kills its worker.
FATAL = (10.0, 0.0005)
#: How many of the best are shown.
SHOWN = 5


class FragileSVC(SVC):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier whose first fit with the parameters ``FATAL`` crashes; the file ``crash`` tells that it did."""

    def __init__(self, crash: Path, C: float = 1.0, gamma: float = 1.0) -> None:  # noqa: N803 - its name in SVC
        super().__init__(C=C, gamma=gamma)
        self.crash = crash

    def fit(self, x: Any, y: Any, sample_weight: Any = None) -> "FragileSVC":
        """Fit as ever, but for the one time. Runs in a worker."""
        if (self.C, self.gamma) == FATAL and not self.crash.exists():
            self.crash.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        super().fit(x, y, sample_weight)
        return self


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, and tell what was found, and that the crash cost one try."""
    options = _options(arguments)
    images, digits = load_digits(return_X_y=True)
    images, unread, digits, truth = train_test_split(images, digits, train_size=options.train, random_state=0)

    mpqueue.joblib_backend.register()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        crash = Path(folder) / "crash"
        search = GridSearchCV(FragileSVC(crash), GRID, cv=3)
        with parallel_config(backend="mpqueue", n_jobs=options.jobs):
            search.fit(images, digits)
        print(f"worker {crash.read_text()} was killed in the middle of a fit; the search went on")
    seconds = time.monotonic() - started
    mpqueue.joblib_backend.close()

    table = search.cv_results_
    print(f"{len(table['params'])} settings, 3 fits each, in {seconds:.1f} s; the best:")
    for place in table["rank_test_score"].argsort()[:SHOWN]:
        print(f"  {table['params'][place]}: {table['mean_test_score'][place]:.1%} right")
    print(f"{search.score(unread, truth):.1%} of {len(truth)} other digits are read right by the best of them")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Search the parameters of a classifier, on all cores.")
    parser.add_argument("--jobs", type=int, default=-1, metavar="N", help="worker processes; default: one a core")
    parser.add_argument("--train", type=at_least_one, default=1000, metavar="N", help="so many digits; %(default)s")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
