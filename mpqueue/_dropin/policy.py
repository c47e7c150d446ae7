"""What the drop-ins do where nobody says otherwise."""

from __future__ import annotations

from mpqueue.retry import RetryPolicy

#: Three tries after the first, 0.1, 0.2 and 0.4 s apart: short enough for a script that somebody waits for.
DROPIN_RETRY = RetryPolicy(max_retries=3, base_delay=0.1)
