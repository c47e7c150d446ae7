"""Takes three seconds to import, as a library of many parts does."""

import time

time.sleep(3.0)
