"""``python -m mpqueue``: the command line."""

import sys

from mpqueue.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
