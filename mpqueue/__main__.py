"""``python -m mpqueue``: the command line."""

import sys

from mpqueue._cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())
